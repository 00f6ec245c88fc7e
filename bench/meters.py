"""CPU time, memory and log bytes of what is measured, from the kernel and from Postgres.

CPU is read thread by thread in nanoseconds (`/proc/<pid>/task/*/schedstat`): what one agent turn costs is less than
a tick of the clock. Threads that have ended are forgotten by this; `whole` has them, in ticks.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import psycopg

Connection = psycopg.Connection[Any]

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_KIB: Final = 1024


def cpu(pids: Iterable[int]) -> float:
    """Seconds that the living threads of these processes have run."""
    total = 0
    for pid in pids:
        for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            try:
                total += int(path.read_text().split()[0])
            except (FileNotFoundError, ProcessLookupError):
                continue  # ended while we looked
    return total / 1e9


def whole(pid: int) -> float:
    """Seconds of CPU of one process since its start, ended threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(ticks) for ticks in fields[11:13]) / _TICKS


def peak(pid: int) -> float:
    """MB (10^6 bytes) that were resident at most (VmHWM)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * _KIB / 1e6
    raise LookupError(f"process {pid} has no VmHWM")


def resident(pid: int) -> float:
    """MB that are resident now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def sessions(connection: Connection, role: str) -> list[int]:
    """Pids of the Postgres sessions of that role in this database."""
    rows = connection.execute(
        "SELECT pid FROM pg_stat_activity WHERE usename = %s AND datname = current_database()", [role]
    ).fetchall()
    return [int(row[0]) for row in rows]


def wal(connection: Connection) -> int:
    """Bytes ever written to the log."""
    row = connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn").fetchone()
    return 0 if row is None else int(row[0])
