"""The table of the peers: numbers, settings, promises, versions, machine; a peer without numbers says why."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.peers.measuring import PeerResult

WIDTH: Final = 118

_COLUMNS: Final = ("peer", "steps/s", "each fifth", "in flight", "CPU ms/step", "idle p50 ms", "idle p99 ms")


def show(results: Sequence[PeerResult], *, command: str) -> None:
    console = Console(width=WIDTH)
    table = Table(title="Ten-step workflow, no-op steps, 2 processes", title_justify="left")
    for column in _COLUMNS:
        table.add_column(column, justify="left" if column in ("peer", "each fifth") else "right")
    for result in results:
        table.add_row(*_row(result))
    console.print(table)
    for result in results:
        console.print(f"[bold]{escape(result.title)}[/]: {escape(' '.join(_notes(result)))}", highlight=False)
    console.print(f"\n{datetime.now(UTC):%Y-%m-%d %H:%M} UTC · {_machine()}\ncommand: {command}", highlight=False)


def _row(result: PeerResult) -> tuple[str, ...]:
    if result.not_run is not None:
        return (result.title, "[red]not run[/]", "see below", "", "", "", "")
    wrong = " [red]WRONG[/]" if result.faults else ""
    return (
        result.title,
        f"{_number(result.steps_per_second, 0)}{wrong}",
        " ".join(f"{rate:.0f}" for rate in result.slices),
        str(result.in_flight),
        _number(result.cpu_ms_per_step, 2),
        _number(result.idle_p50_ms, 1),
        _number(result.idle_p99_ms, 1),
    )


def _notes(result: PeerResult) -> tuple[str, ...]:
    if result.not_run is not None:
        return (f"not run: {result.not_run}",)
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    return (
        *result.notes,
        f"{result.workflows} workflows, each step exactly once." if not result.faults else "",
        versions,
    )


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _machine() -> str:
    with open("/proc/cpuinfo") as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    name = names[0] if names else "unknown processor"
    cores = len(os.sched_getaffinity(0))
    return f"{name} ({platform.machine()}, {cores} cores) · {platform.system()} {platform.release()}"
