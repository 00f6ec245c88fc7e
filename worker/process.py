"""One worker process from start to end, with what it performs given as arguments (`worker/main.py` gives the real).

Order of life: the event loop, the services on it, the lease (a row in `workers` and its heartbeat), then Celery in the
main thread. Redis may be away at any of these moments: the sweeper performs what is due meanwhile. At the end the
other way round: the consumer, the sweeper, the drain of the pool, `stopped_at`, the services, the loop.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
from celery.exceptions import CPendingDeprecationWarning, SecurityWarning

from app import garbage
from app.engine.lease import Lease
from app.ports.world import Bell
from app.settings import Settings
from worker.celery_app import WorkerApp, build_app
from worker.feeding import LocalFeed
from worker.loop import EventLoop
from worker.program import Program
from worker.sweeper import Sweep, Sweeper, sweeper_step
from worker.tasks import Verb, add_tasks

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a process performs and lives on."""

    bell: Bell
    lease: Lease
    perform: Verb
    deliver: Verb
    sweep: Sweep
    feed: LocalFeed
    warm: Callable[[], Awaitable[None]]
    """Called once, beside the work: loads what the first call would otherwise wait for."""
    close: Callable[[], Awaitable[None]]
    """Called last, on the loop: everything else has ended."""


@dataclass(frozen=True, kw_only=True)
class LeaseDrain:
    lease: Lease

    def begin(self) -> None:
        self.lease.draining.set()

    def seconds_open(self) -> float:
        return self.lease.seconds_open()


def run_worker(settings: Settings, *, name: str, build: Callable[[], Work]) -> int:
    """Work until a signal; the exit code: 0 after a clean drain, 1 if calls had to be cancelled or something broke.

    `build` is called on the event loop that everything will run on. In the main thread only.
    """
    _ignore_known_warnings()
    event_loop = EventLoop()
    event_loop.start()
    work, _warming = event_loop.run(_start(build, name=name))
    try:
        return Program(_app(settings, work, event_loop), name=name).run()
    finally:
        event_loop.run(_stop(work))
        log.info("worker_ended", worst_lag=round(event_loop.lag.worst, 3), stalls=event_loop.lag.stalls)
        event_loop.close()


async def _start(build: Callable[[], Work], *, name: str) -> tuple[Work, asyncio.Future[None]]:
    """The work, and the task that warms it up: somebody has to hold on to it."""
    work = build()
    await work.lease.start()
    log.info("worker_started", name=name, worker_id=str(work.lease.worker_id))
    warming = asyncio.ensure_future(work.warm())
    warming.add_done_callback(_warmed)
    return work, warming


def _warmed(warming: asyncio.Future[None]) -> None:
    """A failed warm-up costs nothing but time: the first call meets the same error and says so."""
    garbage.settle()
    error = None if warming.cancelled() else warming.exception()
    if error is not None:
        log.warning("warm_up_failed", error=str(error)[:200])


async def _stop(work: Work) -> None:
    await work.lease.stop()
    await work.close()


def _app(settings: Settings, work: Work, event_loop: EventLoop) -> WorkerApp:
    app = build_app(
        settings.redis_url,
        concurrency=settings.concurrency,
        delivery_concurrency=settings.delivery_concurrency,
        event_loop=event_loop,
        drain=LeaseDrain(lease=work.lease),
    )
    add_tasks(app, perform=work.perform, deliver=work.deliver)
    sweeper = Sweeper(
        sweep=work.sweep,
        broker_away=lambda: work.bell.broker_away,
        interval=settings.sweep,
        concurrency=settings.concurrency,
        delivery_concurrency=settings.delivery_concurrency,
    )
    app.steps["worker"].add(sweeper_step(sweeper, feed=work.feed))
    return app


def _ignore_known_warnings() -> None:
    # Celery says at every lost connection what 6.0 will do about running tasks; `celery_app.py` has decided that.
    warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)
    # It warns of root because pickle would run anything; this worker takes JSON only, and of that only ids.
    warnings.filterwarnings("ignore", category=SecurityWarning)
