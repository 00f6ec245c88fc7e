"""A Celery pool whose tasks are coroutines: 500 calls in one process, one event loop, no threads, no forks.

Celery's consumer runs in the main thread and hands messages over (`on_apply`); the loop of `worker/loop.py` runs
them; ended ones go back to the consumer's hub in batches, where Celery's callbacks give the credit back. All of
Celery's state is touched in its own thread only.

It gives what the stock threads pool lacks: cancellation (`terminate_job`), SIGQUIT, and a bounded SIGTERM: first
nothing new is taken, then whoever may be cancelled cancels itself (`Drain.begin`), then the rest is waited for up to
the longest deadline still open; only then it is cancelled. Hard timeouts are the engine's, which knows the deadlines;
a task with a Celery time limit is refused.

Never: retries, stores results, sends events, or lets an exception of a task do anything but be logged.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog
from celery.concurrency.base import BasePool

log = structlog.get_logger(__name__)

CANCEL_WITHIN: Final = 5.0
"""Seconds a cancelled task has to end; one that swallows its cancellation must not keep the process alive."""


@dataclass(kw_only=True, slots=True, eq=False, weakref_slot=True)
class Job:
    """One task on its way through the pool."""

    id: int
    name: str
    args: tuple[Any, ...]
    done: Callable[..., None] | None
    """Celery's callback that gives the credit back; None for what the sweeper feeds, and for whoever passed it on."""
    pool: TaskPool
    since: float
    """When its place was taken (monotonic): by itself, or by the first of those that passed it on."""
    task: asyncio.Task[None] | None = None
    cancelled: bool = False

    def terminate(self, signal: object = None) -> None:
        """Celery's word for cancel."""
        self.pool.terminate_job(self.id)


class TaskPool(BasePool):
    signal_safe = False
    body_can_be_buffer = True
    task_join_will_block = False

    def on_start(self) -> None:
        self._event_loop = self.app.event_loop
        self._ids = itertools.count(1)
        self._jobs: dict[int, Job] = {}
        self._running: Counter[str] = Counter()
        self._by_ref: dict[tuple[Any, ...], Job] = {}
        self._arrived: deque[Job] = deque()
        self._ended: deque[Job] = deque()
        self._waking = False
        self._settling = False
        self._closed = False
        self._hub: Any = None
        self._no_jobs = asyncio.Event()
        self.forced = 0
        """Tasks that were cancelled by force, at the end of a drain or by SIGQUIT."""

    # --- from Celery's thread ---

    def register_with_event_loop(self, loop: Any) -> None:
        self._hub = loop

    def on_apply(
        self,
        target: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        callback: Callable[..., None] | None = None,
        accept_callback: Callable[..., None] | None = None,
        timeout_callback: object = None,
        error_callback: object = None,
        timeout: float | None = None,
        soft_timeout: float | None = None,
        correlation_id: object = None,
        waitforslot: object = None,
        callbacks_propagate: object = None,
    ) -> Job:
        """`args` are Celery's: name, message id, request, body, content type and encoding.

        What is not used is listed because Celery names it in the call.
        """
        if timeout or soft_timeout:
            raise ValueError("this pool knows no Celery time limits: deadlines are the engine's")
        name, _, request = args[:3]
        job = self._new(name, tuple(request["args"]), callback)
        if accept_callback is not None:
            accept_callback(job.id, time.monotonic())
        return job

    def feed(self, name: str, *args: object) -> None:
        """Run a task that nobody rang for: the sweep's way round a broker that is away."""
        self._new(name, args, None)

    def may_pass_on(self, name: str, refs: Sequence[object], *, within: float) -> bool:
        """Whether a task of that name and one of these arguments runs here whose place was taken less than `within`
        seconds ago: after that others have their turn. Only on the loop."""
        job = self._running_one(name, refs)
        return job is not None and time.monotonic() - job.since < within

    def follow(self, name: str, *args: object, after: Sequence[object]) -> None:
        """Run a task in the place of one of the same name that is about to end, named by its argument: no more run than
        before, and the credit passes to it. Beside all others if none of them runs. It is run although the pool is
        closing: the drain waits for it, and it knows what to do. Only on the loop."""
        before = self._running_one(name, after)
        if before is None:
            job = self._job(name, args, None)
        else:
            done, before.done = before.done, None
            job = self._job(name, args, done, since=before.since)
        self._begin(job)

    def _running_one(self, name: str, refs: Sequence[object]) -> Job | None:
        found = (self._by_ref.get((name, ref)) for ref in refs)
        return next((job for job in found if job is not None), None)

    def running(self, name: str) -> int:
        """How many tasks of that name are in the pool."""
        return self._running[name]

    def terminate_job(self, pid: int, signal: object = None) -> None:
        self._event_loop.submit(self._cancel, pid)

    def cancel_all(self) -> None:
        """Cancel at once whatever runs (SIGQUIT, or the second SIGTERM). Safe in a signal handler."""
        self._closed = True
        self._event_loop.submit(self._cancel_every)

    def on_stop(self) -> None:
        """SIGTERM: see the module's docstring."""
        self._closed = True
        self._event_loop.run(self._drain())

    def on_terminate(self) -> None:
        self._closed = True
        self._event_loop.run(self._force())

    def _new(self, name: str, args: tuple[Any, ...], done: Callable[..., None] | None) -> Job:
        job = self._job(name, args, done)
        self._arrived.append(job)
        # One wake-up is enough for any number of messages: a write to the loop's pipe costs more than all the rest.
        if not self._waking:
            self._waking = True
            self._event_loop.submit(self._take)
        return job

    def _job(
        self, name: str, args: tuple[Any, ...], done: Callable[..., None] | None, *, since: float | None = None
    ) -> Job:
        taken = time.monotonic() if since is None else since
        return Job(id=next(self._ids), name=name, args=args, done=done, pool=self, since=taken)

    def _settle(self) -> None:
        """In the hub: Celery's bookkeeping for what has ended, which gives the credit back."""
        self._settling = False
        while self._ended:
            job = self._ended.popleft()
            if job.done is not None:
                job.done((0, None, 0.0))

    # --- on the loop ---

    def _take(self) -> None:
        self._waking = False
        while self._arrived:
            job = self._arrived.popleft()
            if self._closed:
                continue  # nobody is waiting for it: the due row rings again, elsewhere
            self._begin(job)

    def _begin(self, job: Job) -> None:
        self._jobs[job.id] = job
        self._running[job.name] += 1
        self._by_ref.setdefault((job.name, *job.args), job)
        self._no_jobs.clear()
        job.task = asyncio.create_task(self._perform(job))

    async def _perform(self, job: Job) -> None:
        try:
            work: Coroutine[Any, Any, object] = self.app.tasks[job.name].run(*job.args)
            await work
        except asyncio.CancelledError:
            if not job.cancelled:
                raise
        except Exception:
            log.exception("task_failed", task=job.name, args=job.args)
        finally:
            self._end(job)

    def _end(self, job: Job) -> None:
        del self._jobs[job.id]
        self._running[job.name] -= 1
        if self._by_ref.get((job.name, *job.args)) is job:
            del self._by_ref[(job.name, *job.args)]
        if not self._jobs:
            self._no_jobs.set()
        if job.done is None:
            return
        self._ended.append(job)
        if not self._settling and self._hub is not None:
            self._settling = True
            self._hub.call_soon(self._settle)

    def _cancel(self, job_id: int) -> None:
        job = self._jobs.get(job_id)
        if job is not None and job.task is not None:
            job.cancelled = True
            self.forced += 1
            job.task.cancel()

    def _cancel_every(self) -> None:
        for job_id in list(self._jobs):
            self._cancel(job_id)

    async def _drain(self) -> None:
        started, grace = time.monotonic(), self.app.grace
        self.app.drain.begin()
        grace_ends = started + grace
        while self._jobs:
            left = max(grace_ends - time.monotonic(), self.app.drain.seconds_open())
            if left <= 0:
                await self._force()
                break
            if await self._all_ended(within=min(left, grace)):
                break
            # Whoever is still open may be writing down its outcome: grace counts from the last open deadline.
            if self.app.drain.seconds_open() > 0:
                grace_ends = time.monotonic() + grace
                log.info("draining", calls=len(self._jobs), seconds_open=round(self.app.drain.seconds_open(), 1))
        log.info("drained", seconds=round(time.monotonic() - started, 3), forced=self.forced)

    async def _force(self) -> None:
        if self._jobs:
            log.warning("cancelling", calls=len(self._jobs))
        self._cancel_every()
        if not await self._all_ended(within=CANCEL_WITHIN):
            log.error("calls_left", calls=len(self._jobs))

    async def _all_ended(self, *, within: float) -> bool:
        if self._jobs:
            try:
                await asyncio.wait_for(self._no_jobs.wait(), within)
            except TimeoutError:
                return False
        return True
