"""The rows of `budgets`: read under their workflow's lock, only for workflows that have any.

    load(connection, snapshots)     into `Snapshot.accounts`
    of(connection, ids)             for people: scope by scope, as plain rows

They are written by `app/store/workflows.py::apply`, with everything else that a decision changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final
from uuid import UUID

import psycopg
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.accounts import Account
from app.domain.aggregate import Snapshot
from app.store import columns
from app.store.tables import budgets

Connection = psycopg.AsyncConnection[dict[str, Any]]

_LOAD: Final = f"""
SELECT {columns.listed("b", columns.ACCOUNT)}
FROM budgets b WHERE b.workflow_id = ANY(%(workflows)s) ORDER BY b.workflow_id, b.scope FOR NO KEY UPDATE"""


async def load(connection: Connection, snapshots: Iterable[Snapshot]) -> None:
    """Once for each decision: what a snapshot holds is as the decision left it."""
    wanted = {s.workflow.id: s for s in snapshots if s.workflow.budgeted and not s.accounts}
    if not wanted:
        return
    cursor = await connection.execute(_LOAD, {"workflows": sorted(wanted)})
    for row in await cursor.fetchall():
        wanted[row["workflow_id"]].accounts[row["scope"]] = Account(**row)


async def of(connection: AsyncConnection, workflow_ids: Sequence[UUID]) -> dict[UUID, list[dict[str, Any]]]:
    """Workflow → its budgets, its own before those of its steps."""
    found: dict[UUID, list[dict[str, Any]]] = {}
    if not workflow_ids:
        return found
    rows = await connection.execute(
        select(budgets).where(budgets.c.workflow_id.in_(workflow_ids)).order_by(budgets.c.workflow_id, budgets.c.scope)
    )
    for row in rows.mappings():
        found.setdefault(row["workflow_id"], []).append(dict(row))
    return found
