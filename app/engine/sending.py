"""One attempt on its way: may it be sent, was it, and who may stop it; and the watch that tells all of a process.

A sent effect is never stopped: what left is waited for, because its outcome can only be told by who sent it. What was
not sent, and what does no harm (a model call, a read), is stopped at once when the process drains, or when nobody waits
for its answer any more; what a model had written until then is kept and billed.
"""

from __future__ import annotations

import asyncio
from typing import Any, Literal
from uuid import UUID

from app.domain.outcomes import Failure, Outcome
from app.domain.states import AttemptOutcome, CallKind, EffectClass, FailureKind
from app.engine.lease import Lease, Reason
from app.ports.partial_texts import PartialTexts
from app.ports.writing import BrokenOff, Writing
from app.store.claims import Claimed


class Sending:
    """One attempt on its way: may it be sent, was it, and who may stop it."""

    def __init__(self, *, lease: Lease, claimed: Claimed, partials: PartialTexts | None = None) -> None:
        """`partials`: who shows what a model has written so far."""
        self._lease = lease
        self._claimed = claimed
        self._partials = partials
        self._task: asyncio.Task[Outcome] | None = None
        self._reason: Reason | Literal["drain"] | None = None
        self.sent = False
        self.writing: Writing | None = None
        if claimed.kind == CallKind.MODEL:
            changed = None if partials is None else partials.changed
            self.writing = Writing(attempt_id=claimed.attempt_id, changed=changed)

    def may_send(self) -> bool:
        """Asked by the port at the last moment before the first byte: the self-fence."""
        allowed = self._lease.may_send(self._claimed.attempt_id)
        self.sent = self.sent or allowed  # asked twice, a later no takes back nothing
        return allowed

    @property
    def harmless(self) -> bool:
        """Model and read_only calls are cancelled at once when the process drains; a sent effect never is."""
        return self._claimed.kind == CallKind.MODEL or self._claimed.effect == EffectClass.READ_ONLY

    def revoked(self, reason: Reason) -> None:
        """The fence went to somebody else: stop if nothing left yet; what left is waited for, as evidence. Or nobody
        waits for the answer any more: stop it if that does no harm."""
        if self.harmless if reason == "unwanted" else not self.sent:
            self._stop(reason)

    def drain(self) -> None:
        if self._task is not None and (self.harmless or not self.sent):
            self._stop("drain")

    def _stop(self, reason: Reason | Literal["drain"]) -> None:
        if self._task is not None and self._reason is None:  # once: a second time would disturb its cleaning up
            self._reason = reason
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
            arrived = None if self.writing is None else self.writing.broken_off
            return stopped(sent=self.sent, reason=self._reason, arrived=arrived)
        finally:
            if self._partials is not None and self.writing is not None:
                self._partials.forget(self.writing)


def stopped(*, sent: bool, reason: Reason | Literal["drain"] | None, arrived: BrokenOff | None = None) -> Outcome:
    """We stopped it ourselves: before the first byte that is certain; after it only a harmless call is stopped. Without
    a reason something inside has cancelled it, and would again."""
    certainty = AttemptOutcome.UNKNOWN if sent else AttemptOutcome.NOT_SENT
    kind, message = FailureKind.WORKER_LOST, "The worker is shutting down; the call is made again elsewhere."
    if reason == "unwanted":
        kind, message = FailureKind.CANCELLED, "Nobody waited for the answer any more: the request was broken off."
    elif reason is None:
        kind, message = FailureKind.INTERNAL, "A defect of Surefoot, or of a tool: it was cancelled from inside."
    failure = Failure(kind=kind, message=message)
    if not sent or arrived is None:
        return Outcome(certainty=certainty, failure=failure)
    return Outcome(
        certainty=certainty,
        failure=failure,
        evidence=arrived.evidence,
        usage=arrived.usage,
        request_id=arrived.request_id,
        sent_after=arrived.sent_after,
    )


class Watch:
    """Tells every attempt of this process when a drain begins."""

    def __init__(self, lease: Lease) -> None:
        self.sendings: dict[UUID, Sending] = {}
        self.task = asyncio.create_task(self._run(lease))

    async def _run(self, lease: Lease) -> None:
        await lease.draining.wait()
        for sending in list(self.sendings.values()):
            sending.drain()
