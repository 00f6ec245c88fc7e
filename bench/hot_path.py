"""The bench of the hot path: how many durable steps a second, how long one idle workflow takes, what a step costs.

    python -m bench.hot_path [--quick] [--http] [--processes 2] [--statements 15]

1. Load: ten-step chains of an idempotent Python tool that does nothing (with --http: of an HTTP tool that answers at
   once), 400 open at any moment, submitted through the real API; after a warm-up, what ended in a steady window, by the
   events' own timestamps in Postgres.
2. Idle: single chains one after another; from the `workflow.accepted` event to `workflow.succeeded`, and as a client
   sees it that waits for the answer (`Prefer: wait`).
3. Afterwards every workflow must have succeeded with each step done exactly once.

fsync and synchronous_commit are on. Exits 1 if a target is missed or anything was lost or done twice. Numbers of
machines that do other things at the same time are not comparable; CPU per step nearly is.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from rich.console import Console
from rich.table import Table

from bench import measures, stack, verdicts
from bench.load import IN_FLIGHT, STEPS, Client, Load
from bench.measures import Mark, Statement
from bench.verdicts import Line

STEPS_PER_SECOND: Final = 1_400
HTTP_STEPS_PER_SECOND: Final = 600
IDLE_P50_MS: Final = 40.0
IDLE_P99_MS: Final = 80.0
WAL_PER_STEP: Final = 3_072

SLICES: Final = 5
"""Parts of the window whose rates are shown: a steady state has equal ones."""

DRAIN_WITHIN: Final = 60.0
WARM: Final = 5
"""Single workflows before those that count."""
WAIT: Final = 30
"""Seconds a client waits for an idle workflow: long enough to be a failure and not a number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Seconds, and how many single workflows."""

    warm_up: float
    window: float
    singles: int


FULL: Final = Plan(warm_up=10, window=30, singles=60)
QUICK: Final = Plan(warm_up=4, window=8, singles=20)


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """The window under load."""

    start: Mark
    end: Mark
    slices: list[int]
    statements: list[Statement]
    commits: int
    """Transactions that wrote anything, of everybody."""
    payloads: int
    """Bytes of what definitions, tools and clients said, written in the window."""

    @property
    def steps(self) -> int:
        return sum(self.slices)

    @property
    def seconds(self) -> float:
        return (self.end.at - self.start.at).total_seconds()

    @property
    def rate(self) -> float:
        return self.steps / self.seconds

    @property
    def rates(self) -> list[float]:
        return [n * SLICES / self.seconds for n in self.slices]

    @property
    def wal(self) -> float:
        """Bytes per step, everything: the submission's part, full pages after a checkpoint, vacuum."""
        return (self.end.wal - self.start.wal) / self.steps

    @property
    def payload(self) -> float:
        return self.payloads / self.steps

    def cpu(self, group: str) -> float:
        """Milliseconds of CPU per step."""
        return (self.end.cpu[group] - self.start.cpu[group]) * 1000 / self.steps

    def sent(self, role: str) -> float:
        """Statements per step, without those that begin and end transactions."""
        return sum(s.calls for s in self.statements if s.role == role and not _boundary(s)) / self.steps

    @property
    def transactions(self) -> float:
        """Per step, without those of the API."""
        return self.commits / self.steps - self.api_transactions / self.steps

    @property
    def api_transactions(self) -> int:
        return sum(s.calls for s in self.statements if s.role == "api" and s.text == "COMMIT")


@dataclass(frozen=True, kw_only=True, slots=True)
class Idle:
    inside: list[float]
    """Milliseconds, accepted → succeeded by the database's clock."""
    outside: list[float]
    """Milliseconds, as the client saw it."""
    transactions: float
    """That wrote anything, per step, without those of the submissions."""
    first_call: list[float]
    """Milliseconds from the commit of a submission to the start of its first call."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    tool: str
    loaded: Loaded
    idle: Idle
    faults: list[str]
    context: list[str]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.hot_path", description="Measure the hot path.")
    parser.add_argument("--quick", action="store_true", help="about 20 seconds; for a look, not for a record")
    parser.add_argument("--processes", type=int, default=2, help="worker processes (2)")
    parser.add_argument(
        "--http", action="store_true", help="each step an HTTP call to a local server that answers at once"
    )
    parser.add_argument("--statements", type=int, default=0, help="also show the N most expensive statements")
    options = parser.parse_args()
    tool = stack.OVER_HTTP if options.http else stack.IN_PROCESS
    measured = measure(tool, QUICK if options.quick else FULL, processes=options.processes)
    least = HTTP_STEPS_PER_SECOND if options.http else STEPS_PER_SECOND
    code = verdicts.report(
        f"Surefoot, hot path, {tool}", lines(measured, least=least), faults=measured.faults, context=measured.context
    )
    if options.statements:
        _print_statements(measured.loaded, options.statements)
    return code


def measure(tool: str, plan: Plan, *, processes: int = 2) -> Measured:
    """Load, then idle, on a fresh stack of its own."""
    with stack.running(processes=processes) as running:
        verdicts.say("pids: " + " ".join(f"{name}={pid}" for name, pid in running.pids.items()))
        with psycopg.connect(running.database_url, autocommit=True) as connection:
            load = Load(stack=running, tool=tool)
            loaded = _under_load(connection, load, plan)
            idle = _idle(connection, load, plan)
            faults = measures.faults(connection, workflows=load.submitted + WARM + plan.singles, steps=STEPS)
            durability = verdicts.durability(connection)
    load_is = f"{processes} worker processes, {IN_FLIGHT} workflows of {STEPS} steps open"
    return Measured(tool=tool, loaded=loaded, idle=idle, faults=faults, context=[durability, load_is])


def _under_load(connection: psycopg.Connection[Any], load: Load, plan: Plan) -> Loaded:
    load.start()
    load.keep(connection, seconds=plan.warm_up)
    measures.forget_statements(connection)
    payloads = measures.payload_bytes(connection)
    start = measures.mark(connection, load.stack)
    load.keep(connection, seconds=plan.window)
    end = measures.mark(connection, load.stack)
    statements = measures.statements(connection)
    payloads = measures.payload_bytes(connection) - payloads
    load.stop()
    load.drain(connection, seconds=DRAIN_WITHIN)
    slices = measures.steps_between(connection, start.at, end.at, slices=SLICES)
    commits = measures.commits(connection, start, end)
    return Loaded(start=start, end=end, slices=slices, statements=statements, commits=commits, payloads=payloads)


def _idle(connection: psycopg.Connection[Any], load: Load, plan: Plan) -> Idle:
    """A few first, after the load has drained: what it left behind (a checkpoint, a vacuum) is not an idle system."""
    client, outside = Client(load.stack, tool=load.tool), []
    for _ in range(WARM):
        client.submit(next(load.numbers), wait=WAIT)
    start = measures.mark(connection, load.stack)
    for _ in range(plan.singles):
        began = time.monotonic()
        told = client.submit(next(load.numbers), wait=WAIT)
        outside.append((time.monotonic() - began) * 1000)
        if told["status"] != "succeeded":
            raise SystemExit(f"bench: a single workflow ended {told['status']}")
    client.close()
    commits = measures.commits(connection, start, measures.mark(connection, load.stack))
    return Idle(
        inside=measures.durations(connection, start.at),
        outside=outside,
        transactions=(commits - plan.singles) / (plan.singles * STEPS),
        first_call=measures.first_calls(connection, start.at),
    )


def lines(measured: Measured, *, least: float) -> list[Line]:
    loaded, idle = measured.loaded, measured.idle
    inside = {share: measures.percentile(idle.inside, share) for share in (0.5, 0.99)}
    outside = {share: measures.percentile(idle.outside, share) for share in (0.5, 0.99)}
    return [
        Line("durable steps a second", loaded.rate, least=least),
        Line("one idle workflow, accepted → succeeded, p50 ms", inside[0.5], most=IDLE_P50_MS),
        Line("one idle workflow, accepted → succeeded, p99 ms", inside[0.99], most=IDLE_P99_MS),
        Line("idle: commit of the submission → first call, p50 ms", measures.percentile(idle.first_call, 0.5), most=10),
        Line("transactions of the workers per step, alone", idle.transactions, most=2),
        Line("transactions of the workers per step, under load", loaded.transactions, most=0.3),
        Line("WAL per step beyond the payloads, bytes", loaded.wal - loaded.payload, most=WAL_PER_STEP),
        Line("payload per step, bytes", loaded.payload),
        Line("steps a second in each fifth of the window", " ".join(f"{rate:.0f}" for rate in loaded.rates)),
        Line("one idle workflow, as a waiting client sees it, p50 ms", outside[0.5]),
        Line("one idle workflow, as a waiting client sees it, p99 ms", outside[0.99]),
        *(
            Line(f"CPU per step: {group}, ms", loaded.cpu(group))
            for group in ("worker", "postgres", "api", "tools", "valkey", "client")
        ),
        Line("statements of the workers per step, under load", loaded.sent("worker")),
        Line("API: transactions per submission", loaded.api_transactions / loaded.steps * STEPS),
        Line("API: statements per submission", loaded.sent("api") * STEPS),
    ]


def _print_statements(loaded: Loaded, count: int) -> None:
    table = Table(title="The most expensive statements (of pg_stat_statements)", title_justify="left")
    for column in ("role", "calls", "per step", "ms a call", "ms a step", "rows a call", "statement"):
        table.add_column(column, justify="left" if column in ("role", "statement") else "right", no_wrap=True)
    for s in loaded.statements[:count]:
        table.add_row(
            s.role,
            str(s.calls),
            f"{s.calls / loaded.steps:.3f}",
            f"{s.seconds * 1000 / s.calls:.3f}",
            f"{s.seconds * 1000 / loaded.steps:.3f}",
            f"{s.rows / s.calls:.1f}",
            s.text[:60],
        )
    Console(width=140).print(table)


def _boundary(statement: Statement) -> bool:
    return statement.text.partition(" ")[0] in ("BEGIN", "COMMIT", "ROLLBACK")


if __name__ == "__main__":
    sys.exit(main())
