"""Whether a workflow of that tenant has a step of that path."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import psycopg

Connection = psycopg.AsyncConnection[dict[str, Any]]


async def exists(connection: Connection, *, tenant_id: UUID, workflow_id: UUID, path: str) -> bool:
    cursor = await connection.execute(
        "SELECT FROM steps WHERE workflow_id = %s AND path = %s AND tenant_id = %s", (workflow_id, path, tenant_id)
    )
    return await cursor.fetchone() is not None
