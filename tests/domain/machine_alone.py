"""The machine's engine where there is nothing but memory: each verb one transaction, a millisecond apart.

The same verbs over real Postgres, with the memory beside it, are `tests/engine/machine_both.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from app.domain import ids
from app.domain.aggregate import Sender
from app.domain.outcomes import Outcome
from tests.domain.machine_memory import LEASE, Flight, Memory
from tests.domain.machine_plans import Document, planned
from tests.domain.machine_verbs import Asked, Refused

MOMENT = timedelta(milliseconds=1)


@dataclass(kw_only=True)
class Alone:
    memory: Memory = field(default_factory=Memory)
    numbers: int = 0

    def _id(self, what: str) -> UUID:
        self.numbers += 1
        return ids.timed(self.memory.now, what, str(self.numbers))

    def _begin(self) -> Memory:
        self.memory.now += MOMENT
        return self.memory

    def submit(self, document: Document, given: Any, *, key: str) -> UUID:
        plan, digest = planned(document)
        workflow_id = self._id("workflow")
        self._begin().submit(workflow_id, plan, given, definition_digest=digest, key=key)
        return workflow_id

    def worker(self) -> UUID:
        made = self._id("worker")
        sender = Sender(lease_until=self.memory.now + LEASE, reaped_at=None, lost_at=None)
        self.memory.store.workers[made] = sender
        return made

    def claim(self, call_id: UUID, *, worker: UUID) -> Flight | None:
        got = self._begin().claim(call_id, worker=worker, attempt_id=self._id("attempt"))
        if got is None or isinstance(got, Flight):
            return got
        self._begin().advance(self.memory.store.call(call_id).workflow_id, [got])
        return None

    def settle(self, flight: Flight, outcome: Outcome) -> None:
        self._begin().settle(flight, outcome)

    def keep(self, flight: Flight, outcome: Outcome) -> None:
        self._begin().keep(flight, outcome)

    def report(self, flight: Flight, *, succeeded: bool) -> bool:
        try:
            self._begin().report(flight, succeeded=succeeded, result={"n": 1})
        except Refused:
            return False
        return True

    def in_flight(self, call_id: UUID) -> None:
        self._begin().in_flight(call_id)

    def fire(self, kind: str, ref: UUID) -> None:
        self._begin().fire(kind, ref)

    def ask(self, asked: Asked) -> bool:
        """Whether it was not refused."""
        try:
            self._begin().ask(asked)
        except Refused:
            return False
        return True

    def lose(self, worker: UUID, *, proof: bool) -> None:
        self._begin().lose(worker, proof=proof)

    def shut(self, scope: str) -> None:
        self._begin().shut(scope)

    def reopen(self, scope: str) -> None:
        self._begin().reopen(scope)

    def hold(self, scope: str) -> None:
        self._begin().hold(scope)

    def release(self, scope: str) -> None:
        self._begin().release(scope)

    def pass_time(self, by: timedelta) -> None:
        self.memory.now += by

    def close(self) -> None:
        """Nothing is held."""
