"""The bench of the hot path: how many durable steps a second, how long one idle workflow takes, what a step costs.

    python -m bench.hot_path [--quick] [--processes 2] [--statements 15]

1. Load: ten-step chains of an idempotent HTTP tool that answers at once, 400 open at any moment, submitted through the
   real API; after a warm-up, what ended in a steady window, by the events' own timestamps in Postgres.
2. Idle: single chains one after another; from the `workflow.accepted` event to `workflow.succeeded`, and as a client
   sees it that waits for the answer (`Prefer: wait`).
3. Afterwards every workflow must have succeeded with each step done exactly once.

fsync and synchronous_commit are on. Exits 1 if a target is missed or anything was lost or done twice. Numbers of
machines that do other things at the same time are not comparable; CPU per step nearly is.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Final

import psycopg
from rich.console import Console
from rich.table import Table

from bench import measures, stack
from bench.load import IN_FLIGHT, STEPS, Client, Load
from bench.measures import Mark, Statement

STEPS_PER_SECOND: Final = 500
IDLE_P50_MS: Final = 60.0
STATEMENTS_PER_STEP: Final = 2.0
"""Statements the workers send per step under load, all of them: claims, records, sweeps, heartbeats. Batches share."""
TRANSACTIONS_PER_STEP: Final = 1.0
"""One claim and one record alone would be 2; under load every one of them is shared by a batch."""

CLAIM: Final = "WITH asked AS"
"""How a claim begins: it is a transaction by itself, without a COMMIT to count."""

SLICES: Final = 5
"""Parts of the window whose rates are shown: a steady state has equal ones."""

DRAIN_WITHIN: Final = 60.0
WAIT: Final = 30
"""Seconds a client waits for an idle workflow: long enough to be a failure and not a number."""

PACKAGES: Final = ("celery", "kombu", "redis", "psycopg", "sqlalchemy", "fastapi", "httpcore")


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

    @property
    def steps(self) -> int:
        return sum(self.slices)

    @property
    def seconds(self) -> float:
        return (self.end.at - self.start.at).total_seconds()

    @property
    def rate(self) -> float:
        return self.steps / self.seconds

    def cpu(self, group: str) -> float:
        """Milliseconds of CPU per step."""
        return (self.end.cpu[group] - self.start.cpu[group]) * 1000 / self.steps

    def sent(self, role: str) -> float:
        """Statements per step, without those that begin and end transactions."""
        return sum(s.calls for s in self.statements if s.role == role and not _boundary(s)) / self.steps

    def transactions(self, role: str) -> float:
        """COMMITs and claims per step; single reads, and the sweep's single statements, are not among them."""
        return sum(s.calls for s in self.statements if s.role == role and _ends_one(s)) / self.steps


@dataclass(frozen=True, kw_only=True, slots=True)
class Idle:
    inside: list[float]
    """Milliseconds, accepted → succeeded by the database's clock."""
    outside: list[float]
    """Milliseconds, as the client saw it."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.hot_path", description="Measure the hot path.")
    parser.add_argument("--quick", action="store_true", help="about 20 seconds; for a look, not for a record")
    parser.add_argument("--processes", type=int, default=2, help="worker processes (2)")
    parser.add_argument("--statements", type=int, default=0, help="also show the N most expensive statements")
    options = parser.parse_args()
    plan = QUICK if options.quick else FULL
    with stack.running(processes=options.processes) as running:
        sys.stderr.write("pids: " + " ".join(f"{name}={pid}" for name, pid in running.pids.items()) + "\n")
        with psycopg.connect(running.database_url, autocommit=True) as connection:
            load = Load(stack=running)
            loaded = _under_load(connection, load, plan)
            idle = _idle(connection, load, plan)
            faults = measures.faults(connection, workflows=load.submitted + plan.singles, steps=STEPS)
            durability = _durability(connection)
    missed = _report(loaded, idle, processes=options.processes, durability=durability)
    if options.statements:
        _print_statements(loaded, options.statements)
    for fault in faults:
        print(f"WRONG  {fault}")
    return 1 if missed or faults else 0


def _under_load(connection: psycopg.Connection[Any], load: Load, plan: Plan) -> Loaded:
    load.start()
    load.keep(connection, seconds=plan.warm_up)
    measures.forget_statements(connection)
    start = measures.mark(connection, load.stack)
    load.keep(connection, seconds=plan.window)
    end = measures.mark(connection, load.stack)
    statements = measures.statements(connection)
    load.stop()
    load.drain(connection, seconds=DRAIN_WITHIN)
    slices = measures.steps_between(connection, start.at, end.at, slices=SLICES)
    return Loaded(start=start, end=end, slices=slices, statements=statements)


def _idle(connection: psycopg.Connection[Any], load: Load, plan: Plan) -> Idle:
    since = measures.mark(connection, load.stack).at
    client, outside = Client(load.stack), []
    for _ in range(plan.singles):
        began = time.monotonic()
        told = client.submit(next(load.numbers), wait=WAIT)
        outside.append((time.monotonic() - began) * 1000)
        if told["status"] != "succeeded":
            raise SystemExit(f"bench: a single workflow ended {told['status']}")
    client.close()
    return Idle(inside=measures.durations(connection, since), outside=outside)


def _durability(connection: psycopg.Connection[Any]) -> str:
    names = ("server_version", "fsync", "synchronous_commit", "full_page_writes")
    rows = [connection.execute(f"SHOW {name}").fetchone() for name in names]
    values = dict(zip(names, (str(row[0]) if row else "?" for row in rows), strict=True))
    return f"Postgres {values.pop('server_version')}, " + ", ".join(f"{n} {v}" for n, v in values.items())


def _report(loaded: Loaded, idle: Idle, *, processes: int, durability: str) -> bool:
    """Prints the table; whether a target was missed."""
    table = Table(title="Surefoot, hot path", title_justify="left", caption_justify="left")
    for column in ("measure", "value", "target", ""):
        table.add_column(column, justify="left" if column in ("measure", "") else "right")
    inside = {share: measures.percentile(idle.inside, share) for share in (0.5, 0.99)}
    outside = {share: measures.percentile(idle.outside, share) for share in (0.5, 0.99)}
    judged = [
        ("durable steps a second", loaded.rate, STEPS_PER_SECOND, loaded.rate >= STEPS_PER_SECOND),
        ("one idle workflow, accepted → succeeded, p50 ms", inside[0.5], IDLE_P50_MS, inside[0.5] <= IDLE_P50_MS),
        *(
            (name, value, limit, value <= limit)
            for name, value, limit in (
                ("statements of the workers per step", loaded.sent("worker"), STATEMENTS_PER_STEP),
                ("transactions of the workers per step", loaded.transactions("worker"), TRANSACTIONS_PER_STEP),
            )
        ),
    ]
    for name, value, target, kept in judged:
        sign = "≥" if target == STEPS_PER_SECOND else "≤"
        table.add_row(name, _number(value), f"{sign} {target:g}", "[green]ok[/]" if kept else "[red]MISSED[/]")
    table.add_section()
    wal = (loaded.end.wal - loaded.start.wal) / loaded.steps
    rates = " ".join(f"{n * SLICES / loaded.seconds:.0f}" for n in loaded.slices)
    table.add_row("  steps a second in each fifth of the window", rates, "", "")
    table.add_row("  one idle workflow, accepted → succeeded, p99 ms", _number(inside[0.99]), "", "")
    table.add_row("  one idle workflow, as a waiting client sees it, p50 ms", _number(outside[0.5]), "", "")
    table.add_row("  one idle workflow, as a waiting client sees it, p99 ms", _number(outside[0.99]), "", "")
    table.add_row("  WAL per step, bytes", f"{wal:,.0f}", "", "")
    for group in ("worker", "postgres", "api", "tools", "valkey", "client"):
        table.add_row(f"  CPU per step: {group}, ms", f"{loaded.cpu(group):.2f}", "", "")
    api = loaded.transactions("api") * STEPS, loaded.sent("api") * STEPS
    table.add_row("  API per submission: transactions, statements", f"{api[0]:.1f}, {api[1]:.1f}", "", "")
    console = Console(width=110)
    console.print(table)
    console.print(_context(processes=processes, durability=durability), highlight=False)
    return not all(kept for *_, kept in judged)


def _context(*, processes: int, durability: str) -> str:
    machine = f"{_processor()} ({platform.machine()}, {_cores()} cores) · {platform.system()} {platform.release()}"
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return "\n".join(
        (
            f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC · {machine}",
            f"Python {platform.python_version()}, {versions}",
            f"{durability} · {processes} worker processes, {IN_FLIGHT} workflows of {STEPS} steps open",
            f"command: python -m bench.hot_path {' '.join(sys.argv[1:])}".rstrip(),
        )
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _processor() -> str:
    with open("/proc/cpuinfo") as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return names[0] if names else "unknown processor"


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


def _ends_one(statement: Statement) -> bool:
    return statement.text == "COMMIT" or statement.text.startswith(CLAIM)


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


if __name__ == "__main__":
    sys.exit(main())
