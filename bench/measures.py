"""What is measured, and where it is read: the database's own timestamps and counters, and the kernel's of each process.

Nothing is timed by the client but what only a client can see. CPU time per step is the number to compare on a shared
machine: throughput falls when somebody else computes, the work per step does not.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import psycopg

from bench.stack import Stack

Connection = psycopg.Connection[Any]

_TICKS: Final = os.sysconf("SC_CLK_TCK")

STEP_DONE: Final = "agent.step.succeeded"


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """The counters at one instant."""

    at: datetime
    wal: int
    """Bytes written to the log since the cluster was made."""
    cpu: Mapping[str, float]
    """Seconds of CPU by process group: api, workers, postgres, tools, valkey, client."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Statement:
    role: str
    calls: int
    seconds: float
    rows: int
    text: str


def mark(connection: Connection, stack: Stack) -> Mark:
    row = connection.execute("SELECT clock_timestamp(), pg_current_wal_lsn() - '0/0'::pg_lsn").fetchone()
    if row is None:
        raise RuntimeError("Postgres did not say what time it is")
    return Mark(at=row[0], wal=int(row[1]), cpu=_cpu(stack))


_COMMITS: Final = """
SELECT coalesce(sum(count), 0) FROM pg_get_wal_stats('0/0'::pg_lsn + %s::numeric, '0/0'::pg_lsn + %s::numeric, true)
WHERE "resource_manager/record_type" = 'Transaction/COMMIT'"""


def commits(connection: Connection, start: Mark, end: Mark) -> int:
    """Transactions between the two that wrote anything, by the log itself: of everybody, heartbeats and sweeps too."""
    connection.execute("CREATE EXTENSION IF NOT EXISTS pg_walinspect")
    row = connection.execute(_COMMITS, [start.wal, end.wal]).fetchone()
    return 0 if row is None else int(row[0])


def forget_statements(connection: Connection) -> None:
    connection.execute("SELECT pg_stat_statements_reset()")


def statements(connection: Connection) -> list[Statement]:
    """What API and workers have sent since `forget_statements`, the most expensive first."""
    rows = connection.execute(
        """SELECT r.rolname, sum(s.calls)::bigint, sum(s.total_exec_time) / 1000, sum(s.rows)::bigint, s.query
           FROM pg_stat_statements s JOIN pg_roles r ON r.oid = s.userid
           WHERE r.rolname IN ('api', 'worker') GROUP BY 1, 5 ORDER BY 3 DESC"""
    ).fetchall()
    return [Statement(role=r[0], calls=r[1], seconds=r[2], rows=r[3], text=" ".join(r[4].split())) for r in rows]


def steps_between(connection: Connection, start: datetime, end: datetime, *, slices: int) -> list[int]:
    """Steps that ended in each of `slices` equal parts of the window."""
    rows = connection.execute(
        """SELECT width_bucket(extract(epoch FROM at)::float8, extract(epoch FROM %(start)s::timestamptz)::float8,
                               extract(epoch FROM %(end)s::timestamptz)::float8, %(slices)s) AS slice, count(*)
           FROM events WHERE type = %(type)s AND at >= %(start)s AND at < %(end)s GROUP BY 1""",
        {"start": start, "end": end, "slices": slices, "type": STEP_DONE},
    ).fetchall()
    found = {int(slice_): int(count) for slice_, count in rows}
    return [found.get(n, 0) for n in range(1, slices + 1)]


def durations(connection: Connection, since: datetime) -> list[float]:
    """Milliseconds from the first event to the last of every workflow accepted since, by the database's clock."""
    rows = connection.execute(
        """SELECT extract(epoch FROM ended.at - accepted.at) * 1000 FROM events accepted
           JOIN events ended ON ended.workflow_id = accepted.workflow_id AND ended.type = 'workflow.succeeded'
           WHERE accepted.type = 'workflow.accepted' AND accepted.at >= %s""",
        [since],
    ).fetchall()
    return [float(row[0]) for row in rows]


_PAYLOADS: Final = """
SELECT (SELECT coalesce(sum(octet_length(input::text)), 0) FROM workflows)
  + (SELECT coalesce(sum(octet_length(request::text) + coalesce(octet_length(result::text), 0)), 0) FROM calls)
  + (SELECT coalesce(sum(coalesce(octet_length(input::text), 0) + coalesce(octet_length(output::text), 0)), 0)
     FROM steps)
  + (SELECT coalesce(sum(size), 0) FROM payloads)"""


def payload_bytes(connection: Connection) -> int:
    """What is stored of inputs, requests, answers, results and outputs, as text: bytes that are not ours to save."""
    row = connection.execute(_PAYLOADS).fetchone()
    return 0 if row is None else int(row[0])


def first_calls(connection: Connection, since: datetime) -> list[float]:
    """Milliseconds from `workflow.accepted` (its transaction's clock) to the moment the first call was sent."""
    rows = connection.execute(
        """SELECT extract(epoch FROM min(a.sent_at) - e.at) * 1000 FROM events e
           JOIN attempts a ON a.workflow_id = e.workflow_id
           WHERE e.type = 'workflow.accepted' AND e.at >= %s GROUP BY e.workflow_id, e.at""",
        [since],
    ).fetchall()
    return [float(row[0]) for row in rows]


def faults(connection: Connection, *, workflows: int, steps: int) -> list[str]:
    """What is wrong with what was done: a fast engine that loses or repeats a step has no speed."""
    row = connection.execute(
        """SELECT (SELECT count(*) FROM workflows WHERE status = 'succeeded'),
                  (SELECT count(*) FROM events WHERE type = %s),
                  (SELECT count(*) FROM attempts WHERE outcome = 'succeeded'),
                  (SELECT count(*) FROM attempts WHERE outcome IS DISTINCT FROM 'succeeded')""",
        [STEP_DONE],
    ).fetchone()
    expected = (workflows, workflows * steps, workflows * steps, 0)
    names = ("workflows succeeded", "steps succeeded", "attempts succeeded", "attempts that came to nothing")
    return [
        f"{name}: {found}, expected {wanted}"
        for name, found, wanted in zip(names, row or (), expected, strict=True)
        if found != wanted
    ]


def percentile(values: Sequence[float], share: float) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[round(share * 100) - 1]


def _cpu(stack: Stack) -> dict[str, float]:
    """Of the postmaster its children, too: those that live and those that have ended."""
    found: dict[str, float] = {"client": sum(os.times()[:2])}
    for name, pid in stack.pids.items():
        group = name.partition(".")[0]
        found[group] = found.get(group, 0.0) + _seconds(Path(f"/proc/{pid}/stat"), reaped=name == "postgres")
    postmaster = stack.pids["postgres"]
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            if _fields(path)[1] == str(postmaster):
                found["postgres"] += _seconds(path)
        except FileNotFoundError:
            continue  # ended while we looked; the postmaster has its time
    return found


def _seconds(path: Path, *, reaped: bool = False) -> float:
    fields = _fields(path)
    return sum(int(ticks) for ticks in fields[11 : 15 if reaped else 13]) / _TICKS


def _fields(path: Path) -> list[str]:
    """proc(5) from field 3 (the state) on: the name before it may contain anything."""
    return path.read_text().rpartition(")")[2].split()
