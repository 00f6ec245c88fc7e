"""Celery's worker as our program: its signals, its start, its exit code.

    SIGTERM, SIGINT, SIGHUP   stop taking, drain, exit 0
    the same once more, SIGQUIT   cancel everything at once, exit 1 if anything was cancelled
    SIGUSR1                   write the stacks of all threads to stderr

Signals arrive in the main thread, where Celery's consumer is; what they ask for is done at once on the calls' loop,
and by the consumer as soon as its hub wakes (`end_if_asked`). No children, no pid file, no banner, no logging set-up,
no restart by SIGHUP.
"""

from __future__ import annotations

import faulthandler
import signal
import sys
from typing import Any

import structlog
from celery.apps.worker import Worker
from celery.exceptions import WorkerShutdown
from celery.platforms import EX_FAILURE, EX_OK

from app.domain.states import Lane
from worker.celery_app import WorkerApp

log = structlog.get_logger(__name__)


class Program(Worker):
    def __init__(self, app: WorkerApp, *, name: str) -> None:
        self._asked: int | None = None
        super().__init__(
            app=app,
            hostname=name,
            queues=[Lane.CALLS.value],
            quiet=True,
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
        )

    def run(self) -> int:
        """Work until a signal; the exit code of the process. In the main thread only."""
        self.start()
        forced = bool(self.pool is not None and self.pool.forced)
        return EX_FAILURE if forced else int(self.exitcode or EX_OK)

    def end_if_asked(self) -> None:
        """Celery's way to end from inside its loops."""
        if self._asked is not None:
            raise WorkerShutdown(self._asked)

    def setup_logging(self, colorize: bool | None = None) -> bool:
        """True: logging is set up already (`app/logs.py`)."""
        return True

    def install_platform_tweaks(self, worker: Any) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGQUIT, self._on_quit)
        faulthandler.register(signal.SIGUSR1, file=sys.stderr, all_threads=True)

    def _on_stop(self, number: int, frame: object) -> None:
        if self._asked is not None:
            self._on_quit(number, frame)
            return
        # First of all: the next signal may interrupt this very handler, and it is the second one.
        self._asked = EX_OK
        # At once, and not when the consumer's loop notices: what may be cancelled must not go on for another second.
        self.app.event_loop.submit(self.app.drain.begin)
        self._wake()

    def _on_quit(self, number: int, frame: object) -> None:
        self._asked = EX_FAILURE
        if self.pool is not None:
            self.pool.cancel_all()
        self._wake()

    def _wake(self) -> None:
        # The hub sleeps up to a second in poll, and a signal handler alone does not end that. Not from here, though:
        # its lock may be held by the very code that the signal has interrupted.
        if self.hub is not None:
            self.app.event_loop.submit(self.hub.call_soon, self.end_if_asked)
