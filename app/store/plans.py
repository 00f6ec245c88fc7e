"""Definitions, plans and registered tools: documents by digest, written once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import psycopg

from app.domain.outcomes import JSON

Connection = psycopg.AsyncConnection[dict[str, Any]]


async def body(connection: Connection, tenant_id: UUID, digest: str) -> JSON:
    """The plan's body. Raises LookupError: a workflow's plan is written in the transaction that accepts it."""
    cursor = await connection.execute(
        "SELECT body FROM plans WHERE tenant_id = %s AND digest = %s", (tenant_id, digest)
    )
    row = await cursor.fetchone()
    if row is None:
        raise LookupError(f"no plan {digest}")
    return row["body"]


async def put_definition(connection: Connection, tenant_id: UUID, digest: str, document: JSON) -> None:
    await connection.execute(
        "INSERT INTO definitions (tenant_id, digest, document) VALUES (%s, %s, %s::json) ON CONFLICT DO NOTHING",
        (tenant_id, digest, json.dumps(document)),
    )


async def put_plan(connection: Connection, tenant_id: UUID, digest: str, plan: JSON) -> None:
    await connection.execute(
        "INSERT INTO plans (tenant_id, digest, body) VALUES (%s, %s, %s::json) ON CONFLICT DO NOTHING",
        (tenant_id, digest, json.dumps(plan)),
    )


async def put_tools(connection: Connection, tenant_id: UUID, declarations: Mapping[str, tuple[str, JSON]]) -> None:
    """Register or replace: name → (digest, declaration). Workflows that run have pinned what they use."""
    for name, (digest, declaration) in sorted(declarations.items()):
        await connection.execute(
            """
            INSERT INTO tools (tenant_id, name, digest, declaration) VALUES (%s, %s, %s, %s::json)
            ON CONFLICT (tenant_id, name) DO UPDATE
            SET digest = excluded.digest, declaration = excluded.declaration, updated_at = clock_timestamp()""",
            (tenant_id, name, digest, json.dumps(declaration)),
        )
