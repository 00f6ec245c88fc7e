"""One attempt on its way: may it be sent, was it, and who may stop it; and the watch that tells all of a process.

A sent effect is never stopped: what left is waited for, because its outcome can only be told by who sent it. What was
not sent, and what does no harm (a model call, a read), is stopped at once when the process drains.
"""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

from app.domain.outcomes import Failure, Outcome
from app.domain.states import AttemptOutcome, CallKind, EffectClass, FailureKind
from app.engine.lease import Lease
from app.store.claims import Claimed


class Sending:
    """One attempt on its way: may it be sent, was it, and who may stop it."""

    def __init__(self, *, lease: Lease, claimed: Claimed) -> None:
        self._lease = lease
        self._claimed = claimed
        self._task: asyncio.Task[Outcome] | None = None
        self.sent = False

    def may_send(self) -> bool:
        """Asked by the port at the last moment before the first byte: the self-fence."""
        allowed = self._lease.may_send(self._claimed.attempt_id)
        self.sent = self.sent or allowed  # asked twice, a later no takes back nothing
        return allowed

    @property
    def harmless(self) -> bool:
        """Model and read_only calls are cancelled at once when the process drains; a sent effect never is."""
        return self._claimed.kind == CallKind.MODEL or self._claimed.effect == EffectClass.READ_ONLY

    def revoked(self, reason: str) -> None:
        """The fence went to somebody else: stop if nothing left yet; what left is waited for, as evidence."""
        if not self.sent and self._task is not None:
            self._task.cancel()

    def drain(self) -> None:
        if self._task is not None and (self.harmless or not self.sent):
            self._task.cancel()

    async def run(self, sending: Any) -> Outcome:
        self._task = asyncio.create_task(sending)
        if self._lease.draining.is_set():
            self.drain()
        try:
            return await self._task
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                self._task.cancel()
                raise
            return stopped(sent=self.sent)


def stopped(*, sent: bool) -> Outcome:
    """We stopped it ourselves: before the first byte that is certain; after it only a harmless call is stopped."""
    certainty = AttemptOutcome.UNKNOWN if sent else AttemptOutcome.NOT_SENT
    failure = Failure(
        kind=FailureKind.WORKER_LOST, message="The worker is shutting down; the call is made again elsewhere."
    )
    return Outcome(certainty=certainty, failure=failure)


class Watch:
    """Tells every attempt of this process when a drain begins."""

    def __init__(self, lease: Lease) -> None:
        self.sendings: dict[UUID, Sending] = {}
        self.task = asyncio.create_task(self._run(lease))

    async def _run(self, lease: Lease) -> None:
        await lease.draining.wait()
        for sending in list(self.sendings.values()):
            sending.drain()
