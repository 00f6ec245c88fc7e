"""The sweep in every worker: the only recovery code there is, run about once a second.

A *worker* bootstep, not a consumer's: a consumer's is down exactly when Redis is, which is when the sweep has to do
the bell's work. The sweep itself rings what is due; while the broker is away its ids go straight into the local pool,
up to the calls (and deliveries) this process has room for.

Never: stops because one sweep failed (the database is away, the next one tries again), or runs twice at a time.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol
from uuid import UUID

import structlog
from celery import bootsteps

from app.domain.states import Lane
from app.ports.bell import TASK_NAMES
from worker.feeding import LocalFeed
from worker.pool import TaskPool

log = structlog.get_logger(__name__)

JITTER: Final = 0.2
"""Part of the interval by which it varies, so that the sweeps of many workers spread out."""


class Swept(Protocol):
    @property
    def calls(self) -> Sequence[UUID]: ...
    @property
    def deliveries(self) -> Sequence[UUID]: ...


class Sweep(Protocol):
    def __call__(self, *, free_slots: int) -> Awaitable[Swept]: ...


class Sweeper:
    """Sweeps on the pool's loop until stopped."""

    def __init__(
        self,
        *,
        sweep: Sweep,
        broker_away: Callable[[], bool],
        interval: float,
        concurrency: int,
        delivery_concurrency: int,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._sweep = sweep
        self._broker_away = broker_away
        self._interval = interval
        self._slots = {Lane.CALLS: concurrency, Lane.DELIVERIES: delivery_concurrency}
        self._chance = chance
        self._task: asyncio.Task[None] | None = None

    async def start(self, pool: TaskPool) -> None:
        self._task = asyncio.create_task(self._forever(pool), name="sweeper")

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _forever(self, pool: TaskPool) -> None:
        while True:
            try:
                await self._once(pool)
            except Exception:
                log.exception("sweep_failed")
            await asyncio.sleep(self._interval * (1 + JITTER * (2 * self._chance() - 1)))

    async def _once(self, pool: TaskPool) -> None:
        swept = await self._sweep(free_slots=self._free(pool, Lane.CALLS))
        if self._broker_away():
            self._feed(pool, Lane.CALLS, swept.calls)
            self._feed(pool, Lane.DELIVERIES, swept.deliveries)

    def _feed(self, pool: TaskPool, lane: Lane, ids: Sequence[UUID]) -> None:
        for ref in ids[: self._free(pool, lane)]:
            pool.feed(TASK_NAMES[lane], str(ref))

    def _free(self, pool: TaskPool, lane: Lane) -> int:
        return max(0, self._slots[lane] - pool.running(TASK_NAMES[lane]))


def sweeper_step(sweeper: Sweeper, *, feed: LocalFeed) -> type[bootsteps.StartStopStep]:
    """The bootstep that runs this sweeper: started before the consumer, stopped before the pool drains."""

    class SweeperStep(bootsteps.StartStopStep):
        label = "Sweeper"
        requires = ("celery.worker.components:Pool",)

        def start(self, w: Any) -> None:
            feed.attach(w.pool)
            w.app.event_loop.run(sweeper.start(w.pool))

        def stop(self, w: Any) -> None:
            w.app.event_loop.run(sweeper.stop())

        terminate = stop

    return SweeperStep
