"""What a bench says at its end: one table of values with their targets, what was lost or done twice, the context.

    verdicts.report("Surefoot, …", [Line("…", 9.1, most=10), Line("…", 3.0)], faults=[…], context=[…])  -> exit code

A line with a target is judged; one without is shown. The exit code is 1 if a target was missed or anything is wrong
with what was done: a fast engine that loses or repeats a step has no speed.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Final

import psycopg
from rich.console import Console
from rich.table import Table

PACKAGES: Final = ("celery", "kombu", "redis", "psycopg", "sqlalchemy", "fastapi", "httpcore", "anthropic")
WIDTH: Final = 118


@dataclass(frozen=True, slots=True)
class Line:
    name: str
    value: float | str
    most: float | None = None
    least: float | None = None

    @property
    def judged(self) -> bool:
        return self.most is not None or self.least is not None

    @property
    def kept(self) -> bool:
        if isinstance(self.value, str):
            return not self.judged
        return (self.most is None or self.value <= self.most) and (self.least is None or self.value >= self.least)

    @property
    def target(self) -> str:
        if self.most is not None:
            return f"≤ {self.most:g}"
        return "" if self.least is None else f"≥ {self.least:g}"


def say(text: str) -> None:
    """Progress, for whoever watches: on stderr, so that stdout is the record."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def report(title: str, lines: Sequence[Line], *, faults: Sequence[str], context: Sequence[str]) -> int:
    """Prints everything; the exit code."""
    table = Table(title=title, title_justify="left")
    for column in ("measure", "value", "target", ""):
        table.add_column(column, justify="left" if column in ("measure", "") else "right")
    for line in (one for one in lines if one.judged):
        table.add_row(line.name, number(line.value), line.target, "[green]ok[/]" if line.kept else "[red]MISSED[/]")
    table.add_section()
    for line in (one for one in lines if not one.judged):
        table.add_row(f"  {line.name}", number(line.value), "", "")
    console = Console(width=WIDTH)
    console.print(table)
    console.print("\n".join((*_machine(), *context, _command())), highlight=False)
    for fault in faults:
        console.print(f"[red]WRONG[/]  {fault}", highlight=False)
    return 1 if faults or not all(line.kept for line in lines) else 0


def number(value: float | str) -> str:
    if isinstance(value, str):
        return value
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def durability(connection: psycopg.Connection[Any]) -> str:
    names = ("server_version", "fsync", "synchronous_commit", "full_page_writes", "shared_buffers")
    rows = [connection.execute(f"SHOW {name}").fetchone() for name in names]
    values = dict(zip(names, (str(row[0]) if row else "?" for row in rows), strict=True))
    return f"Postgres {values.pop('server_version')}, " + ", ".join(f"{name} {value}" for name, value in values.items())


def _machine() -> tuple[str, str]:
    with open("/proc/cpuinfo") as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    processor = names[0] if names else "unknown processor"
    cores = f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}"
    machine = f"{processor} ({platform.machine()}, {cores}) · {platform.system()} {platform.release()}"
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC · {machine}", f"Python {platform.python_version()}, {packages}"


def _command() -> str:
    module = sys.modules["__main__"].__spec__
    name = module.name if module is not None else "bench"
    return f"command: python -m {name} {' '.join(sys.argv[1:])}".rstrip()
