"""The one asyncio loop of a worker process, on a thread of its own, and how late it runs.

Celery's consumer has the main thread (signals arrive there); everything of ours that awaits runs here. A blocking
call in a coroutine stops every call of the process, and its heartbeat: a watching thread says so while it happens,
with the stack of the guilty, and `lag` keeps the numbers.

Promises: `submit` and `run` work from any thread. Never: ends by itself.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import structlog

log = structlog.get_logger(__name__)

T = TypeVar("T")

TICK: Final = 0.25
"""Seconds between two looks at the clock: cheap (4 callbacks a second), finer than anything that is scheduled."""

SLOW: Final = 0.25
"""Seconds the loop may be late without a word: a thirtieth of a heartbeat's patience, far above a busy loop's."""


@dataclass(kw_only=True, slots=True)
class Lag:
    """How late the loop ran its tick, seconds."""

    last: float = 0.0
    worst: float = 0.0
    stalls: int = 0
    """Times it was later than `SLOW`."""


class EventLoop:
    def __init__(self) -> None:
        self.lag = Lag()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run_forever, name="calls", daemon=True)
        self._watcher = threading.Thread(target=self._watch, name="lag", daemon=True)
        self._closing = threading.Event()
        self._due = 0.0

    def start(self) -> None:
        self._due = time.monotonic() + TICK
        self._loop.call_soon(self._tick)
        self._thread.start()
        self._watcher.start()

    def submit(self, callback: Callable[..., object], *args: object) -> None:
        """Run a callback on the loop, soon. Works in a signal handler, too."""
        self._loop.call_soon_threadsafe(callback, *args)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for it here. Signals are handled meanwhile."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        """Cancel what is left, stop, close."""
        self._closing.set()
        self.run(_cancel_rest())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._watcher.join()
        self._loop.close()

    def _run_forever(self) -> None:
        asyncio.set_event_loop(self._loop)
        while True:
            try:
                self._loop.run_forever()
                return
            except (SystemExit, KeyboardInterrupt):
                # asyncio lets these through from any task. A task that a tool's function has started may raise them;
                # it ends nobody's calls but its own.
                log.exception("exit_raised_in_task")

    def _tick(self) -> None:
        now = time.monotonic()
        late = max(0.0, now - self._due)
        self.lag.last = late
        self.lag.worst = max(self.lag.worst, late)
        self.lag.stalls += late > SLOW
        self._due = now + TICK
        self._loop.call_later(TICK, self._tick)

    def _watch(self) -> None:
        reported = 0.0
        while not self._closing.wait(TICK):
            due = self._due
            late = time.monotonic() - due
            if late > SLOW and due != reported:
                reported = due
                frame = sys._current_frames().get(self._thread.ident or 0)
                stack = "".join(traceback.format_stack(frame, limit=8)) if frame is not None else ""
                log.warning("event_loop_blocked", late=round(late, 3), stack=stack)


async def _cancel_rest() -> None:
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()
    await asyncio.get_running_loop().shutdown_default_executor()
