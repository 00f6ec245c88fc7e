"""Threads for functions that block: bounded, made when needed, never waited for at the end.

A thread cannot be stopped from outside. One whose function went on after its deadline is *abandoned*: it keeps its
place until the function returns, so that such functions can neither pile up without bound nor pass unnoticed (a log
line when it is abandoned, another when it comes back). The threads are daemons: a function that never returns must not
keep its worker from ending, which `concurrent.futures` would let it do.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

log = structlog.get_logger(__name__)

IDLE: Final = 30.0
"""Seconds a thread without work stays: bursts come back sooner, and a quiet worker should not keep 200 stacks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """What became of a function: it returned, or it raised."""

    value: Any = None
    raised: BaseException | None = None


@dataclass(kw_only=True, slots=True)
class _Job:
    function: Callable[[], Any]
    name: str
    context: contextvars.Context
    done: asyncio.Future[Ended]
    began: float = field(default_factory=time.monotonic)
    abandoned: bool = False


class FunctionThreads:
    """One per process and event loop. `limit`: the most functions at work at once, abandoned ones included."""

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._free = asyncio.Semaphore(limit)
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._idle = 0
        self._lock = threading.Lock()
        self.busy = 0
        """Functions at work, abandoned ones included."""
        self.abandoned = 0
        """Of these, how many nobody waits for any more."""

    @property
    def limit(self) -> int:
        return self._limit

    @property
    def full(self) -> bool:
        return self._free.locked()

    async def reserve(self) -> None:
        """Wait for a place. Follow it with `run`, or with `give_back`."""
        await self._free.acquire()

    def give_back(self) -> None:
        self._free.release()

    async def run(self, function: Callable[[], Any], *, name: str) -> Ended:
        """Run it in the place that was reserved. If the wait for it is cancelled the function goes on, abandoned; if it
        had just ended, what it came to is worth more than the cancellation."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Ended] = loop.create_future()
        job = _Job(function=function, name=name, context=contextvars.copy_context(), done=done)
        self.busy += 1
        self._hand_over(job)
        try:
            return await done
        except asyncio.CancelledError:
            if done.done() and not done.cancelled():
                return done.result()
            self._abandon(job)
            raise

    def _hand_over(self, job: _Job) -> None:
        with self._lock:
            waiting = self._idle > 0
            if waiting:
                self._idle -= 1
        self._jobs.put(job)
        if not waiting:
            threading.Thread(target=self._work, name="surefoot-tool", daemon=True).start()

    def _abandon(self, job: _Job) -> None:
        job.abandoned = True
        self.abandoned += 1
        log.warning("python_tool.abandoned", tool=job.name, abandoned=self.abandoned, busy=self.busy, limit=self._limit)

    # --- in a thread ---

    def _work(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=IDLE)
            except queue.Empty:
                with self._lock:
                    if self._idle == 0:  # a job was promised to an idle thread: somebody has to take it
                        continue
                    self._idle -= 1
                return
            ended = job.context.run(_ended, job.function)
            with self._lock:
                self._idle += 1
            try:
                job.done.get_loop().call_soon_threadsafe(self._settle, job, ended)
            except RuntimeError:
                return  # the loop is closed, and with it everybody who waited
            del job, ended

    # --- on the loop ---

    def _settle(self, job: _Job, ended: Ended) -> None:
        self.busy -= 1
        self._free.release()
        if job.abandoned:
            self.abandoned -= 1
            log.warning("python_tool.returned_late", tool=job.name, seconds=round(time.monotonic() - job.began, 3))
        if not job.done.done():
            job.done.set_result(ended)


def _ended(function: Callable[[], Any]) -> Ended:
    """Whatever a stranger's code raises, SystemExit included, ends here."""
    try:
        return Ended(value=function())
    except BaseException as error:
        return Ended(raised=error)
