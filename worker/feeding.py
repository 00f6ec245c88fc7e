"""The next call of a workflow, taken by the worker that has just recorded the one before.

A doorbell through Redis costs two thread hops and a message; the worker that made a call due can run it as its own
next task at once. It is a doorbell all the same: the call is claimed like any other, and if this process dies before
that, the due's `ring_at` brings it back within seconds. Refused (then the bell rings) while the process drains, and
when it has no room: then another worker is quicker.
"""

from __future__ import annotations

from uuid import UUID

from app.domain.states import Lane
from app.engine.lease import Lease
from app.ports.bell import TASK_NAMES
from worker.pool import TaskPool


class LocalFeed:
    def __init__(self, *, lease: Lease, concurrency: int) -> None:
        self._lease = lease
        self._concurrency = concurrency
        self._pool: TaskPool | None = None

    def attach(self, pool: TaskPool) -> None:
        """From now on there is a pool to feed."""
        self._pool = pool

    def offer(self, call_id: UUID) -> bool:
        """True if the local pool runs it next."""
        pool, name = self._pool, TASK_NAMES[Lane.CALLS]
        if pool is None or self._lease.draining.is_set() or pool.running(name) >= self._concurrency:
            return False
        pool.feed(name, str(call_id))
        return True
