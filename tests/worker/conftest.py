"""A worker process under test: a real child with a real lease, bell, sweeper and pool, told what to do over a pipe."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.embedded.valkey import EmbeddedValkey

PATIENCE = 30.0
"""Seconds a condition may take on a busy machine before it is called false."""

ROOT = Path(__file__).parents[2]


class Child:
    """`tests/worker/child.py` as a process. It writes one JSON line per thing that happens; so does `expect` read."""

    def __init__(self, *, database_url: str, redis_url: str, settings: dict[str, str]) -> None:
        self.lines: list[dict[str, Any]] = []
        self._arrived: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        environment = os.environ | {"SUREFOOT_DATABASE_URL": database_url, "SUREFOOT_REDIS_URL": redis_url} | settings
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.worker.child"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def tell(self, **order: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def expect(self, event: str, *, times: int = 1, **fields: object) -> list[dict[str, Any]]:
        """Wait until that many lines (of all so far) are this event with these fields; they are the answer."""
        until = time.monotonic() + PATIENCE
        while len(found := self.seen(event, **fields)) < times:
            line = self._next(until - time.monotonic())
            assert line is not None, f"{len(found)} of {times} {event} {fields}; seen: {self.lines[-20:]}"
        return found

    def seen(self, event: str, **fields: object) -> list[dict[str, Any]]:
        self._take()
        wanted = {"event": event} | fields
        return [line for line in self.lines if wanted.items() <= line.items()]

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        """Its exit code."""
        return self._process.wait(PATIENCE)

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._arrived.put(json.loads(line))
        self._arrived.put(None)

    def _take(self) -> None:
        while not self._arrived.empty():
            line = self._arrived.get()
            if line is not None:
                self.lines.append(line)

    def _next(self, seconds: float) -> dict[str, Any] | None:
        try:
            line = self._arrived.get(timeout=max(0.01, seconds))
        except queue.Empty:
            return None
        if line is not None:
            self.lines.append(line)
        return line


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    """A Redis that the test may kill; not started."""
    server = EmbeddedValkey(tmp_path / "valkey")
    yield server
    server.kill()


@pytest.fixture
def start_worker(database_url: str) -> Iterator[Callable[..., Child]]:
    """`start_worker(redis_url, sweep="0.1")`: a worker that has started (not: reached Redis)."""
    children: list[Child] = []

    def start(redis_url: str, **settings: str) -> Child:
        names = {f"SUREFOOT_{name.upper()}": value for name, value in settings.items()}
        child = Child(database_url=database_url, redis_url=redis_url, settings=names)
        children.append(child)
        child.expect("started")
        return child

    yield start
    for child in children:
        child.end()
