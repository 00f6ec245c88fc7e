"""The workflows of a decision, locked: what is decided about them, nobody else decides meanwhile.

    lock(…)         their rows, FOR NO KEY UPDATE in the order of their ids, and the database's clock
    snapshots(…)    the same as snapshots, with what will surely be read of them in the same round trip

On a driver connection inside the engine's transaction. Never writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from app.domain.aggregate import Snapshot, Workflow
from app.domain.reads import Reads
from app.store import columns, loading
from app.store.loading import Connection, Cursor

_LOCK: Final = f"""
SELECT {columns.listed("w", columns.WORKFLOW)}, clock_timestamp() AS now
FROM workflows w WHERE w.id = ANY(%(ids)s) ORDER BY w.id FOR NO KEY UPDATE"""


async def lock(
    connection: Connection, ids: Sequence[UUID], *, skip_locked: bool = False
) -> tuple[dict[UUID, Workflow], datetime | None]:
    """Lock the workflows, sorted by id. With `skip_locked` those that somebody else holds are left out."""
    return await _locked(await _ask_lock(connection, ids, skip_locked=skip_locked))


async def _ask_lock(connection: Connection, ids: Sequence[UUID], *, skip_locked: bool) -> Cursor:
    return await connection.execute(_LOCK + (" SKIP LOCKED" if skip_locked else ""), {"ids": sorted(ids)})


async def _locked(cursor: Cursor) -> tuple[dict[UUID, Workflow], datetime | None]:
    found, now = {}, None
    for row in await cursor.fetchall():
        now = row.pop("now")
        found[row["id"]] = Workflow(**row)
    return found, now


async def snapshots(
    connection: Connection, ids: Sequence[UUID], *, skip_locked: bool, ahead: Mapping[UUID, Reads]
) -> tuple[dict[UUID, Snapshot], datetime | None]:
    """As `lock`. In a pipeline the steps and calls of `ahead` come with it; what is missing then is not there, or is
    read by `load` as ever."""
    asked = await _ask_lock(connection, ids, skip_locked=skip_locked)
    steps = [(workflow, path, False) for workflow, reads in ahead.items() for path in sorted(reads.steps)]
    calls = [(workflow, call) for workflow, reads in ahead.items() for call in sorted(reads.calls)]
    cursors = (
        await loading.ask_steps(connection, steps),
        await loading.ask_calls(connection, calls, sql=loading.CALLS_AHEAD),
    )
    found, now = await _locked(asked)
    made = {workflow: (Snapshot(workflow=row), Reads()) for workflow, row in found.items()}
    for cursor, keep in zip(cursors, (loading.keep_steps, loading.keep_calls), strict=True):
        if cursor is not None:
            keep((row for row in await cursor.fetchall() if row["workflow_id"] in made), made)
    return {workflow: snapshot for workflow, (snapshot, _) in made.items()}, now
