"""Clients: one kept connection each, that submit and remember what they were promised and how long it took.

Client(url, key).submit(definition, input)     one workflow
Crowd(…)        keeps so many workflows open (closed loop), to find out how much there can be
Stream(…)       submits at a fixed rate whatever the answers do (open loop), to find out how long one waits: the
                clock of a submission starts when it was due, not when a thread was free for it
"""

from __future__ import annotations

import http.client
import itertools
import json
import queue
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg

Definition = Mapping[str, Any]

TOP_UP: Final = 0.05
"""Seconds between two looks at how many are open."""

_OPEN: Final = "SELECT count(*) FROM dues WHERE kind = 'deadline'"
"""Every open workflow has exactly one such row, and the table is narrow."""


def chain(tool: str, steps: int) -> dict[str, Any]:
    """Steps one after the other; each takes the output of the one before it, so that nothing can be answered early."""
    made: dict[str, Any] = {}
    for n in range(1, steps + 1):
        arguments: dict[str, Any] = {"workflow": "${{ input.n }}", "step": n}
        if n > 1:
            arguments["before"] = f"${{{{ steps.s{n - 1}.output }}}}"
        made[f"s{n}"] = {"tool": tool, "with": arguments}
    return {"name": f"bench-chain-{steps}", "input": {"n": {"type": "integer"}}, "steps": made}


@dataclass(frozen=True, kw_only=True, slots=True)
class Promise:
    """One 202."""

    workflow: str
    due_at: float
    """When it was to be sent, by `time.time()`."""
    seconds: float
    """From then until the answer."""


class Client:
    """One kept connection to the API."""

    def __init__(self, url: str, key: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=120)
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def submit(self, definition: Definition, given: Any, *, wait: int | None = None) -> dict[str, Any]:
        headers = self._headers | {"Idempotency-Key": uuid4().hex}
        if wait is not None:
            headers["Prefer"] = f"wait={wait}"
        body = json.dumps({"definition": definition, "input": given})
        return self._ask("POST", "/v1/workflows", body, headers)

    def get(self, path: str) -> dict[str, Any]:
        return self._ask("GET", path, None, self._headers)

    def _ask(self, method: str, path: str, body: str | None, headers: Mapping[str, str]) -> dict[str, Any]:
        try:
            self._connection.request(method, path, body, dict(headers))
            answer = self._connection.getresponse()
        except (ConnectionError, http.client.HTTPException):
            # The server closed a connection that was idle for long. The same key again is the same submission.
            self._connection.close()
            self._connection.request(method, path, body, dict(headers))
            answer = self._connection.getresponse()
        told = json.loads(answer.read())
        if answer.status not in (200, 202):
            raise SystemExit(f"bench: {method} {path} was refused: {answer.status} {told}")
        return dict(told)

    def close(self) -> None:
        self._connection.close()


@dataclass(kw_only=True)
class _Threads:
    """Threads with a client each that take orders: when one was due, or None to go home."""

    url: str
    key: str
    definition: Definition
    clients: int = 4
    promises: list[Promise] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _orders: queue.SimpleQueue[float | None] = field(default_factory=queue.SimpleQueue)
    _threads: list[threading.Thread] = field(default_factory=list)
    _failed: list[BaseException] = field(default_factory=list)

    def start(self) -> None:
        for _ in range(self.clients):
            thread = threading.Thread(target=self._submit_forever, daemon=True)
            thread.start()
            self._threads.append(thread)

    def order(self) -> None:
        self._orders.put(time.time())

    def stop(self) -> None:
        """Return when every order has its answer. Raises what a client met."""
        for _ in self._threads:
            self._orders.put(None)
        for thread in self._threads:
            thread.join()
        self.check()

    def check(self) -> None:
        if self._failed:
            raise SystemExit(f"bench: a client failed: {self._failed[0]!r}")

    @property
    def accepted(self) -> list[str]:
        return [promise.workflow for promise in self.promises]

    def _submit_forever(self) -> None:
        client = Client(self.url, self.key)
        try:
            while (due_at := self._orders.get()) is not None:
                told = client.submit(self.definition, {"n": next(self._numbers)})
                self.promises.append(Promise(workflow=told["id"], due_at=due_at, seconds=time.time() - due_at))
        except BaseException as error:  # shown by the main thread, which would otherwise wait for ever
            self._failed.append(error)
        finally:
            client.close()


@dataclass(kw_only=True)
class Crowd(_Threads):
    """Keeps `in_flight` workflows open while told to."""

    in_flight: int

    def keep(self, connection: psycopg.Connection[Any], *, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for _ in range(self.in_flight - still_open(connection) - self._orders.qsize()):
                self.order()
            self.check()
            time.sleep(TOP_UP)


@dataclass(kw_only=True)
class Stream(_Threads):
    """Submits `rate` a second from a thread of its own, until stopped."""

    rate: float
    _ending: threading.Event = field(default_factory=threading.Event)
    _clock: threading.Thread | None = None

    def start(self) -> None:
        super().start()
        self._clock = threading.Thread(target=self._tick, daemon=True)
        self._clock.start()

    def stop(self) -> None:
        self._ending.set()
        if self._clock is not None:
            self._clock.join()
        super().stop()

    def _tick(self) -> None:
        began = time.monotonic()
        for n in itertools.count(1):
            if self._ending.wait(max(0.0, began + n / self.rate - time.monotonic())):
                return
            self.order()


def still_open(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute(_OPEN).fetchone()
    return 0 if row is None else int(row[0])


def drain(connection: psycopg.Connection[Any], *, seconds: float) -> float:
    """Wait until every workflow has ended; seconds it took."""
    began = time.monotonic()
    while (left := still_open(connection)) > 0:
        if time.monotonic() - began > seconds:
            raise SystemExit(f"bench: {left} workflows have not ended within {seconds:.0f} s")
        time.sleep(TOP_UP)
    return time.monotonic() - began
