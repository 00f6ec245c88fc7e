"""CPU seconds of processes and all their descendants, from the kernel's own counters.

On a machine that does other things at the same time the throughput of a peer is noise; what a step costs it is less so.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_TICKS: Final = os.sysconf("SC_CLK_TCK")

_PARENT, _USER, _SYSTEM, _ENDED_USER, _ENDED_SYSTEM = 1, 11, 12, 13, 14
"""Places in /proc/<pid>/stat, counted after the name in brackets; of children, those that have ended."""


def seconds(roots: Sequence[int]) -> float:
    """Used until now by these processes, their living descendants, and those of them that have ended."""
    table = {int(place.name): fields for place in Path("/proc").glob("[0-9]*") if (fields := _fields(place))}
    wanted = set(roots)
    grown = True
    while grown:
        more = {pid for pid, fields in table.items() if int(fields[_PARENT]) in wanted} - wanted
        wanted |= more
        grown = bool(more)
    counted = (_USER, _SYSTEM, _ENDED_USER, _ENDED_SYSTEM)
    return sum(int(table[pid][place]) for pid in wanted if pid in table for place in counted) / _TICKS


def _fields(place: Path) -> list[bytes]:
    try:
        return (place / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return []  # it ended while the list was read
