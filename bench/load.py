"""The load: ten-step chains over the real API, hundreds of them open at any moment, from a client that costs little.

Every call's arguments are distinct (the workflow's number, the step's, the output before it), so that nothing can be
answered from a record. The clients are threads with one kept connection each: what they cost is taken from the same
cores as what is measured, and the report says how much it was.
"""

from __future__ import annotations

import http.client
import itertools
import json
import queue
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import psycopg

from bench.stack import IN_PROCESS, Stack

STEPS: Final = 10

IN_FLIGHT: Final = 400
"""Open workflows: as many calls as two workers perform at once."""

CLIENTS: Final = 4
"""Connections that submit: enough to keep the API process busy, few enough not to queue in it."""

TOP_UP: Final = 0.05
"""Seconds between two looks at how many are open."""

_OPEN: Final = "SELECT count(*) FROM dues WHERE kind = 'deadline'"
"""Every open workflow has exactly one such row, and the table is narrow."""


def definition(tool: str = IN_PROCESS) -> dict[str, Any]:
    """A chain: each step takes the output of the one before it."""
    steps: dict[str, Any] = {}
    for n in range(1, STEPS + 1):
        arguments: dict[str, Any] = {"workflow": "${{ input.n }}", "step": n}
        if n > 1:
            arguments["before"] = f"${{{{ steps.s{n - 1}.output }}}}"
        steps[f"s{n}"] = {"tool": tool, "with": arguments}
    return {"name": "bench-chain", "input": {"n": {"type": "integer"}}, "steps": steps}


class Client:
    """One kept connection to the API."""

    def __init__(self, stack: Stack, *, tool: str = IN_PROCESS) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(stack.url).netloc, timeout=70)
        self._headers = {"Authorization": f"Bearer {stack.key}", "Content-Type": "application/json"}
        self._definition = definition(tool)

    def submit(self, n: int, *, wait: int | None = None) -> dict[str, Any]:
        """Submit chain number `n`; with `wait`, hold the answer until it ended or so many seconds are over."""
        headers = self._headers | {"Idempotency-Key": f"bench-{n}"}
        if wait is not None:
            headers["Prefer"] = f"wait={wait}"
        body = json.dumps({"definition": self._definition, "input": {"n": n}})
        self._connection.request("POST", "/v1/workflows", body, headers)
        answer = self._connection.getresponse()
        told = json.loads(answer.read())
        if answer.status not in (200, 202):
            raise SystemExit(f"bench: the API refused a workflow: {answer.status} {told}")
        return dict(told)

    def close(self) -> None:
        self._connection.close()


@dataclass(kw_only=True)
class Load:
    """Keeps `IN_FLIGHT` workflows open until told to stop."""

    stack: Stack
    tool: str = IN_PROCESS
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    submitted: int = 0
    _orders: queue.SimpleQueue[int | None] = field(default_factory=queue.SimpleQueue)
    _threads: list[threading.Thread] = field(default_factory=list)
    _failed: list[BaseException] = field(default_factory=list)

    def start(self) -> None:
        for _ in range(CLIENTS):
            thread = threading.Thread(target=self._submit_forever, daemon=True)
            thread.start()
            self._threads.append(thread)

    def keep(self, connection: psycopg.Connection[Any], *, seconds: float) -> None:
        """Keep them open for that long."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            waiting = self._orders.qsize()
            for _ in range(IN_FLIGHT - self.open(connection) - waiting):
                self._orders.put(next(self.numbers))
                self.submitted += 1
            self._raise_failure()
            time.sleep(TOP_UP)

    def stop(self) -> None:
        for _ in self._threads:
            self._orders.put(None)
        for thread in self._threads:
            thread.join()
        self._raise_failure()

    def drain(self, connection: psycopg.Connection[Any], *, seconds: float) -> None:
        """Wait until every workflow has ended."""
        until = time.monotonic() + seconds
        while (left := self.open(connection)) > 0:
            if time.monotonic() > until:
                raise SystemExit(f"bench: {left} workflows have not ended within {seconds:.0f} s")
            time.sleep(TOP_UP)

    def open(self, connection: psycopg.Connection[Any]) -> int:
        row = connection.execute(_OPEN).fetchone()
        return 0 if row is None else int(row[0])

    def _submit_forever(self) -> None:
        client = Client(self.stack, tool=self.tool)
        try:
            while (n := self._orders.get()) is not None:
                client.submit(n)
        except BaseException as error:  # shown by the main thread, which would otherwise wait for ever
            self._failed.append(error)
        finally:
            client.close()

    def _raise_failure(self) -> None:
        if self._failed:
            raise SystemExit(f"bench: a client failed: {self._failed[0]!r}")
