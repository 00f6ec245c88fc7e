"""Registered tools: what a tenant's definitions may name without declaring it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg

from app.domain.outcomes import JSON

Connection = psycopg.AsyncConnection[dict[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Registered:
    name: str
    digest: str
    declaration: JSON
    updated_at: datetime


async def listed(connection: Connection, tenant_id: UUID) -> list[Registered]:
    cursor = await connection.execute(
        "SELECT name, digest, declaration, updated_at FROM tools WHERE tenant_id = %s ORDER BY name", (tenant_id,)
    )
    return [Registered(**row) for row in await cursor.fetchall()]


async def remove(connection: Connection, *, tenant_id: UUID, name: str, by: str, audit_id: UUID) -> bool:
    """False: there was none. Workflows that run have pinned what they use."""
    cursor = await connection.execute(
        "DELETE FROM tools WHERE tenant_id = %s AND name = %s RETURNING name", (tenant_id, name)
    )
    if await cursor.fetchone() is None:
        return False
    await audit(connection, tenant_id=tenant_id, action="tool.remove", name=name, by=by, data={}, audit_id=audit_id)
    return True


async def audit(
    connection: Connection, *, tenant_id: UUID, action: str, name: str, by: str, data: JSON, audit_id: UUID
) -> None:
    await connection.execute(
        "INSERT INTO audit (id, tenant_id, actor, action, object, data) VALUES (%s, %s, %s, %s, %s, %s::jsonb)",
        (audit_id, tenant_id, by, action, f"tool:{name}", json.dumps(data)),
    )
