"""Where a call, or an approval, belongs: its workflow and step, by its id alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg

Connection = psycopg.AsyncConnection[dict[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    workflow_id: UUID
    step: str
    call_id: UUID | None


async def place(connection: Connection, *, tenant_id: UUID, call_id: UUID) -> Place | None:
    cursor = await connection.execute(
        "SELECT workflow_id, step, id AS call_id FROM calls WHERE id = %s AND tenant_id = %s", (call_id, tenant_id)
    )
    row = await cursor.fetchone()
    return None if row is None else Place(**row)


async def place_anywhere(connection: Connection, *, call_id: UUID) -> Place | None:
    """For whoever has a token for exactly that call, and is of no tenant."""
    cursor = await connection.execute("SELECT workflow_id, step, id AS call_id FROM calls WHERE id = %s", (call_id,))
    row = await cursor.fetchone()
    return None if row is None else Place(**row)


async def place_of_approval(connection: Connection, *, tenant_id: UUID, approval_id: UUID) -> Place | None:
    cursor = await connection.execute(
        "SELECT workflow_id, step, call_id FROM approvals WHERE id = %s AND tenant_id = %s", (approval_id, tenant_id)
    )
    row = await cursor.fetchone()
    return None if row is None else Place(**row)
