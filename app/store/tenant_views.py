"""What the edge asks about a tenant: the key it presents, its signing secrets, its workers. Reads only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.tables import api_keys, tenants, workers

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownKey:
    tenant_id: UUID
    public_id: str
    sha256: bytes
    scopes: frozenset[str]
    valid_for: timedelta | None
    """Until it expires, by the database's clock; None if it never does."""


async def api_key(connection: AsyncConnection, *, public_id: str) -> KnownKey | None:
    """A key that is neither revoked nor expired."""
    found = await connection.execute(
        select(api_keys, (api_keys.c.expires_at - func.clock_timestamp()).label("valid_for")).where(
            api_keys.c.public_id == public_id,
            or_(api_keys.c.revoked_at.is_(None), api_keys.c.revoked_at > func.clock_timestamp()),
            or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > func.clock_timestamp()),
        )
    )
    row = found.one_or_none()
    if row is None:
        return None
    return KnownKey(
        tenant_id=row.tenant_id,
        public_id=row.public_id,
        sha256=bytes(row.sha256),
        scopes=frozenset(row.scopes),
        valid_for=row.valid_for,
    )


async def signing_secrets(connection: AsyncConnection, *, tenant_id: UUID) -> list[str]:
    """One, or two while rotating, newest first."""
    found = await connection.execute(select(tenants.c.signing_secrets).where(tenants.c.id == tenant_id))
    return list(found.scalar_one())


async def worker_page(connection: AsyncConnection, *, before: UUID | None, limit: int) -> list[Row]:
    """Incarnations of worker processes, newest first; `alive` by the database's clock."""
    alive = (
        (workers.c.lost_at.is_(None))
        & (workers.c.stopped_at.is_(None))
        & (workers.c.lease_until > func.clock_timestamp())
    )
    query = select(workers, alive.label("alive"))
    if before is not None:
        query = query.where(workers.c.id < before)
    found = await connection.execute(query.order_by(workers.c.id.desc()).limit(limit))
    return [dict(row) for row in found.mappings()]
