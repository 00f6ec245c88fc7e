"""The next call of a workflow, taken by the worker that has just recorded the one before.

A doorbell through Redis costs two thread hops and a message; the worker that made a call due can run it as its own
next task at once. What `follows` says may follow is claimed by the record itself (`app/engine/follow.py`) and handed
over by `take`. What is only offered is a doorbell all the same: the call is claimed like any other, and if this process
dies before that, the due's `ring_at` brings it back within seconds.

It takes the place of the call that made it due, so no more run at once than before, and calls that are quick follow one
another without a message each however many wait. A workflow whose calls have held one place for `SLICE` has had its
turn: if the process has no room beside them, the bell rings and the next call queues behind the others. Refused, too,
while the process drains.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from app.domain.states import Lane
from app.engine.lease import Lease
from app.ports.bell import TASK_NAMES
from worker.pool import TaskPool

_CALL: Final = TASK_NAMES[Lane.CALLS]

SLICE: Final = 5.0
"""Seconds for which calls of one workflow may follow one another in one place while others wait for a place. Short
beside a model call or two, so that agents take turns; long beside ten quick steps even when the machine is overloaded
and each of them waits half a second: with one second half of the doorbells were rung again just then."""


class LocalFeed:
    def __init__(self, *, lease: Lease, concurrency: int) -> None:
        self._lease = lease
        self._concurrency = concurrency
        self._pool: TaskPool | None = None

    def attach(self, pool: TaskPool) -> None:
        """From now on there is a pool to feed."""
        self._pool = pool

    def offer(self, call_id: UUID, after: Sequence[UUID]) -> bool:
        """True if the local pool runs it next. `after`: the calls whose outcomes made it due."""
        if self._pool is None or self._lease.draining.is_set():
            return False
        if self.follows(after):
            self.take(call_id, after)
            return True
        if self._pool.running(_CALL) >= self._concurrency:
            return False
        self._pool.feed(_CALL, str(call_id))
        return True

    def follows(self, after: Sequence[UUID]) -> bool:
        """Whether one of these has a place here that it may pass on."""
        return self._pool is not None and self._pool.may_pass_on(_CALL, _refs(after), within=SLICE)

    def take(self, call_id: UUID, after: Sequence[UUID]) -> None:
        """Run it in the place of one of these; beside everything else if none of them is left."""
        assert self._pool is not None, "nothing follows where nothing runs"
        self._pool.follow(_CALL, str(call_id), after=_refs(after))


def _refs(calls: Sequence[UUID]) -> list[str]:
    return [str(call) for call in calls]
