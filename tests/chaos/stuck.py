"""What one wants to look at when nothing goes on any more: rows, locks and stacks, in files of the run's folder.

stories/wf_….txt    everything about a workflow of which something did not hold
stuck/rows.txt      workflows that have not ended with their steps, calls, attempts and dues; workers
stuck/database.txt  pg_stat_activity and pg_locks
stuck/stacks.txt    what every worker's threads were doing (SIGUSR1 makes them say it in their log), and what the
                    kernel says of every process of ours (state, waiting in)
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg.rows import dict_row

from app.domain import ids
from app.embedded import process
from tests.chaos.installation import Installation
from tests.chaos.waiting import moment

FEW: Final = 40
"""Workflows whose rows are written out."""

_ROWS: Final[Mapping[str, str]] = {
    "open workflows": """
        SELECT status, count(*), min(updated_at) AS oldest FROM workflows WHERE ended_at IS NULL GROUP BY status""",
    "workflows": f"""SELECT id, name, status, saga, attention, open_calls, held, doubts, waits, undos, updated_at,
        input->>'tag' AS tag FROM workflows WHERE ended_at IS NULL ORDER BY updated_at LIMIT {FEW}""",
    "calls": f"""SELECT c.* FROM (SELECT id FROM workflows WHERE ended_at IS NULL ORDER BY updated_at LIMIT {FEW}) w
        JOIN calls c ON c.workflow_id = w.id WHERE c.ended_at IS NULL""",
    "attempts": f"""SELECT a.* FROM (SELECT id FROM workflows WHERE ended_at IS NULL ORDER BY updated_at LIMIT {FEW}) w
        JOIN calls c ON c.workflow_id = w.id AND c.ended_at IS NULL
        JOIN attempts a ON a.workflow_id = c.workflow_id AND a.call_id = c.id""",
    "dues": """SELECT d.*, clock_timestamp() - d.due_at AS overdue, clock_timestamp() - d.ring_at AS unrung
        FROM dues d ORDER BY d.due_at LIMIT 300""",
    "open deliveries": "SELECT workflow_id, stream, seq, type, attempts FROM deliveries WHERE state = 'open' LIMIT 50",
    "workers": "SELECT *, clock_timestamp() AS now FROM workers ORDER BY started_at DESC LIMIT 30",
}
_DATABASE: Final[Mapping[str, str]] = {
    "activity": """SELECT pid, application_name, state, wait_event_type, wait_event, xact_start, query_start,
        pg_blocking_pids(pid) AS blocked_by, left(query, 300) AS query
        FROM pg_stat_activity WHERE datname = current_database() ORDER BY xact_start""",
    "locks": """SELECT l.pid, l.locktype, l.relation::regclass, l.mode, l.granted, l.transactionid
        FROM pg_locks l WHERE NOT l.granted OR l.locktype = 'transactionid'""",
}


_STORY: Final[Mapping[str, str]] = {
    "workflow": "SELECT * FROM workflows WHERE id = %(workflow)s",
    "steps": "SELECT path, kind, state, failure, started_at, ended_at FROM steps WHERE workflow_id = %(workflow)s",
    "calls": "SELECT * FROM calls WHERE workflow_id = %(workflow)s ORDER BY created_at",
    "attempts": """SELECT a.*, k.name AS worker_name, k.pid, k.reaped_at, k.lost_at AS worker_lost_at FROM attempts a
        LEFT JOIN workers k ON k.id = a.worker WHERE workflow_id = %(workflow)s ORDER BY a.intended_at""",
    "events": """SELECT seq, at, type, step, call_id, attempt_id, from_state, to_state, data FROM events
        WHERE workflow_id = %(workflow)s ORDER BY seq""",
    "dues": "SELECT * FROM dues WHERE workflow_id = %(workflow)s",
    "deliveries": "SELECT seq, type, state, attempts, ended_at FROM deliveries WHERE workflow_id = %(workflow)s",
}


def tell(installation: Installation, workflows: Sequence[str]) -> None:
    """Everything the rows say of these workflows, a file for each in `stories/`: the data are gone after a run."""
    folder = installation.folder / "stories"
    folder.mkdir(exist_ok=True)
    for name in workflows[:FEW]:
        told = "\n".join(_answers(installation.database_url, _STORY, workflow=ids.decode("wf", name)))
        (folder / f"{name}.txt").write_text(told, encoding="utf-8")


async def dump(installation: Installation) -> Path:
    """Write it all; the folder."""
    folder = installation.folder / "stuck"
    folder.mkdir(exist_ok=True)
    for name, queries in (("rows", _ROWS), ("database", _DATABASE)):
        (folder / f"{name}.txt").write_text("\n".join(_answers(installation.database_url, queries)), encoding="utf-8")
    before = installation.log.stat().st_size
    for name, pid in installation.pids.items():
        if name.startswith("worker"):  # only workers have a handler for it
            process.send(pid, signal.SIGUSR1)
    await moment(2.0)
    with installation.log.open("rb") as log:
        log.seek(before)
        said = log.read().decode(errors="replace")
    kernel = "\n".join(_kernel(name, pid) for name, pid in installation.pids.items())
    (folder / "stacks.txt").write_text(f"{kernel}\n\n{said}", encoding="utf-8")
    return folder


def _answers(url: str, queries: Mapping[str, str], **parameters: Any) -> Iterator[str]:
    try:
        with psycopg.connect(
            url, autocommit=True, row_factory=dict_row, connect_timeout=5, application_name="stuck"
        ) as connection:
            for what, sql in queries.items():
                rows: list[dict[str, Any]] = connection.execute(sql, parameters).fetchall()
                yield f"--- {what}: {len(rows)} rows"
                yield from (str(row) for row in rows)
    except psycopg.Error as error:
        yield f"the database does not answer: {error}"


def _kernel(name: str, pid: int) -> str:
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return f"{name} {pid}: gone"
    wanted = ("State", "Threads", "VmRSS", "voluntary_ctxt_switches")
    told = [line for line in status.read_text().splitlines() if line.startswith(wanted)]
    return f"{name} {pid}: " + ", ".join(" ".join(line.split()) for line in told)
