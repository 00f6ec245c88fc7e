"""The bench of submissions: how many workflows a second one API process accepts, how long a client waits for its 202,
and what one costs in CPU, statements and transactions; the same for the polls that follow.

    python -m bench.submissions [--quick] [--statements 15]

The real API over a loopback socket, a Postgres of its own with fsync and synchronous_commit on, no worker: what is
measured is acceptance alone. Every submission is the ten-step chain of `bench/load.py` with the same definition text,
an input and an Idempotency-Key of its own, on 1, 8 and 32 kept connections; the clients share the cores with what is
measured, and the report says what they cost. CPU is the kernel's count of each process over the whole window.

Afterwards every 202 must have exactly one workflow, with its key, its steps and its first call due. Exits 1 if a target
is missed or anything was lost or doubled. Rates of machines that do other things at the same time are not comparable;
CPU per submission nearly is.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import psycopg
from rich.console import Console
from rich.table import Table

from app.domain import ids
from bench import measures, stack, verdicts
from bench.load import STEPS, definition
from bench.measures import Mark, Statement
from bench.stack import Stack
from bench.verdicts import Line

CONNECTIONS: Final = (1, 8, 32)

API_CPU_MS: Final = 2.5
"""Milliseconds of CPU of the API process per submission, everything from the socket to the socket."""
STATEMENTS: Final = 2.05
"""Statements per submission: two, and every five seconds the API key is read. BEGIN and COMMIT travel with them."""
SHARED: Final = 0.3
"""Transactions per submission when many come at once: they share them."""

_BOUNDARIES: Final = ("BEGIN", "COMMIT", "ROLLBACK")


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    warm_up: int
    window: int
    """Submissions on each number of connections."""
    polls: int


FULL: Final = Plan(warm_up=300, window=3000, polls=3000)
QUICK: Final = Plan(warm_up=100, window=600, polls=600)


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """So many requests on so many connections, and what they cost."""

    name: str
    connections: int
    start: Mark
    end: Mark
    waited: list[float]
    """Milliseconds each client waited."""
    statements: list[Statement]

    @property
    def rate(self) -> float:
        return len(self.waited) / (self.end.at - self.start.at).total_seconds()

    def cpu(self, group: str) -> float:
        """Milliseconds a request."""
        return (self.end.cpu[group] - self.start.cpu[group]) * 1000 / len(self.waited)

    @property
    def sent(self) -> float:
        return self._calls(lambda text: text.partition(" ")[0] not in _BOUNDARIES)

    @property
    def transactions(self) -> float:
        """Explicit ones; a read outside of them is a statement and no transaction."""
        return self._calls(lambda text: text == "COMMIT")

    def _calls(self, counts: Callable[[str], bool]) -> float:
        return sum(s.calls for s in self.statements if s.role == "api" and counts(s.text)) / len(self.waited)


class Connection:
    """One kept HTTP/1.1 connection that costs its process next to nothing."""

    def __init__(self, running: Stack) -> None:
        parts = urlsplit(running.url)
        self._address = parts.hostname or "127.0.0.1", parts.port or 80
        self._shared = f"Host: {parts.netloc}\r\nAuthorization: Bearer {running.key}\r\n"
        self._definition = json.dumps(definition())
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def submit(self, n: int) -> dict[str, Any]:
        body = f'{{"definition": {self._definition}, "input": {{"n": {n}}}}}'
        head = f"Idempotency-Key: submission-{n}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        return await self._ask("POST /v1/workflows", head, body)

    async def read(self, path: str) -> dict[str, Any]:
        return await self._ask(f"GET {path}", "", "")

    async def _ask(self, line: str, head: str, body: str) -> dict[str, Any]:
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._address)
        reader, writer = self._streams
        writer.write(f"{line} HTTP/1.1\r\n{self._shared}{head}\r\n{body}".encode("ascii"))
        status, *headers = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").splitlines()
        length = next(int(h.partition(":")[2]) for h in headers if h.lower().startswith("content-length:"))
        told = json.loads(await reader.readexactly(length))
        if status.split(" ")[1] not in ("200", "202"):
            raise SystemExit(f"bench: {line}: {status} {told}")
        return dict(told)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.submissions", description="Measure what a submission costs.")
    parser.add_argument("--quick", action="store_true", help="about 15 seconds; for a look, not for a record")
    parser.add_argument("--statements", type=int, default=0, help="also show the N most expensive statements")
    options = parser.parse_args()
    plan = QUICK if options.quick else FULL
    numbers = itertools.count(1)
    with stack.running(processes=0) as running:
        sys.stderr.write("pids: " + " ".join(f"{name}={pid}" for name, pid in running.pids.items()) + "\n")
        with psycopg.connect(running.database_url, autocommit=True) as connection:
            windows = [_submissions(connection, running, plan, numbers, connections=n) for n in CONNECTIONS]
            reads = [_polls(connection, running, plan, connections=n) for n in CONNECTIONS[:2]]
            faults = wrong(connection, accepted=next(numbers) - 1)
            durability = verdicts.durability(connection)
    if options.statements:
        _print_statements([windows[-1], reads[-1]], options.statements)
    return _report(windows, reads, faults=faults, durability=durability)


def _submissions(
    database: psycopg.Connection[Any], running: Stack, plan: Plan, numbers: Iterator[int], *, connections: int
) -> Window:
    async def submit(client: Connection) -> None:
        told = await client.submit(next(numbers))
        if told["status"] != "running":
            raise SystemExit(f"bench: a submission was answered with {told['status']}")

    return asyncio.run(_window(database, running, "POST", submit, plan.warm_up, plan.window, connections=connections))


def _polls(database: psycopg.Connection[Any], running: Stack, plan: Plan, *, connections: int) -> Window:
    """Of one running workflow, as a client polls what it submitted."""
    row = database.execute("SELECT id FROM workflows ORDER BY id DESC LIMIT 1").fetchone()
    path = f"/v1/workflows/{ids.encode('wf', row[0])}" if row else ""

    async def poll(client: Connection) -> None:
        await client.read(path)

    return asyncio.run(_window(database, running, "GET", poll, plan.warm_up, plan.polls, connections=connections))


async def _window(
    database: psycopg.Connection[Any],
    running: Stack,
    name: str,
    ask: Callable[[Connection], Awaitable[None]],
    warm_up: int,
    count: int,
    *,
    connections: int,
) -> Window:
    clients = [Connection(running) for _ in range(connections)]
    try:
        await _work(clients, ask, warm_up)
        measures.forget_statements(database)
        start = measures.mark(database, running)
        waited = await _work(clients, ask, count)
        end = measures.mark(database, running)
        statements = measures.statements(database)
    finally:
        for client in clients:
            client.close()
    return Window(name=name, connections=connections, start=start, end=end, waited=waited, statements=statements)


async def _work(clients: list[Connection], ask: Callable[[Connection], Awaitable[None]], count: int) -> list[float]:
    """Every connection asks again as soon as it was answered, until there were `count` requests."""
    left, waited = itertools.repeat(None, count), []

    async def one(client: Connection) -> None:
        for _ in left:
            began = time.perf_counter()
            await ask(client)
            waited.append((time.perf_counter() - began) * 1000)

    await asyncio.gather(*(one(client) for client in clients))
    return waited


def wrong(connection: psycopg.Connection[Any], *, accepted: int) -> list[str]:
    """What is lost or doubled: acceptance that is not complete has no speed."""
    row = connection.execute(
        """SELECT (SELECT count(*) FROM workflows WHERE status = 'running' AND open_calls = 1),
                  (SELECT count(*) FROM idempotency_keys k JOIN workflows w ON w.id = k.workflow_id),
                  (SELECT count(*) FROM steps), (SELECT count(*) FROM dues WHERE kind = 'call'),
                  (SELECT count(*) FROM events WHERE type = 'workflow.accepted' AND seq = 1)"""
    ).fetchone()
    expected = (accepted, accepted, accepted * STEPS, accepted, accepted)
    names = ("workflows", "keys", "steps", "calls that are due", "first events")
    return [
        f"{name}: {found}, expected {wanted}"
        for name, found, wanted in zip(names, row or (), expected, strict=True)
        if found != wanted
    ]


def _report(windows: list[Window], reads: list[Window], *, faults: list[str], durability: str) -> int:
    """Prints the tables; the exit code."""
    table = Table(title="Requests", title_justify="left")
    table.add_column("request")
    for column in (
        "connections", "a second", "p50 ms", "p99 ms", "CPU ms: API", "Postgres", "client", "statements",
        "transactions",
    ):  # fmt: skip
        table.add_column(column, justify="right")
    for window in (*windows, *reads):
        cpu = [f"{window.cpu(group):.2f}" for group in ("api", "postgres", "client")]
        p50, p99 = (f"{measures.percentile(window.waited, share):.1f}" for share in (0.5, 0.99))
        sent = f"{window.sent:.2f}", f"{window.transactions:.2f}"
        table.add_row(window.name, str(window.connections), f"{window.rate:.0f}", p50, p99, *cpu, *sent)
    Console(width=118).print(table)
    lines = [
        Line("CPU of the API per submission, one connection, ms", windows[0].cpu("api"), most=API_CPU_MS),
        Line("CPU of the API per submission, many connections, ms", windows[-1].cpu("api"), most=API_CPU_MS),
        Line("statements per submission, one connection", windows[0].sent, most=STATEMENTS),
        Line("transactions per submission, many connections", windows[-1].transactions, most=SHARED),
        Line("CPU of the API per poll, ms", reads[-1].cpu("api")),
    ]
    return verdicts.report("Surefoot, submissions", lines, faults=faults, context=[durability])


def _print_statements(windows: list[Window], count: int) -> None:
    table = Table(title="The most expensive statements (of pg_stat_statements)", title_justify="left")
    for column in ("request", "a request", "ms a call", "statement"):
        table.add_column(column, justify="left" if column in ("request", "statement") else "right", no_wrap=True)
    for window in windows:
        for s in [s for s in window.statements if s.role == "api"][:count]:
            per = f"{s.calls / len(window.waited):.2f}"
            table.add_row(window.name, per, f"{s.seconds * 1000 / s.calls:.3f}", s.text[:80])
    Console(width=140).print(table)


if __name__ == "__main__":
    sys.exit(main())
