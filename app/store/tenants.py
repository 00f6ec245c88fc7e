"""Tenants, their keys and signing secrets: written when a database is made ready."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import psycopg

Connection = psycopg.AsyncConnection[dict[str, Any]]


async def ensure(connection: Connection, *, tenant_id: UUID, name: str, signing_secret: str) -> str:
    """The tenant's newest signing secret; `signing_secret` becomes it if the tenant is new."""
    await connection.execute(
        "INSERT INTO tenants (id, name, signing_secrets) VALUES (%s, %s, %s) ON CONFLICT (id) DO NOTHING",
        (tenant_id, name, [signing_secret]),
    )
    row = await (
        await connection.execute("SELECT signing_secrets[1] AS secret FROM tenants WHERE id = %s", (tenant_id,))
    ).fetchone()
    if row is None:
        raise LookupError("the tenant was just made")
    return str(row["secret"])


async def add_key(
    connection: Connection,
    *,
    key_id: UUID,
    tenant_id: UUID,
    public_id: str,
    sha256: bytes,
    name: str,
    scopes: Sequence[str],
) -> None:
    await connection.execute(
        """
        INSERT INTO api_keys (id, tenant_id, public_id, sha256, name, scopes) VALUES (%s, %s, %s, %s, %s, %s)""",
        (key_id, tenant_id, public_id, sha256, name, list(scopes)),
    )


async def has_key(connection: Connection, tenant_id: UUID) -> bool:
    """Whether the tenant has a key that works."""
    row = await (
        await connection.execute(
            "SELECT EXISTS (SELECT FROM api_keys WHERE tenant_id = %s AND revoked_at IS NULL) AS found", (tenant_id,)
        )
    ).fetchone()
    return row is not None and bool(row["found"])
