"""What a GET says about approvals. Rows as dicts, reads only, newest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.tables import approvals

Row = dict[str, Any]


async def one(connection: AsyncConnection, *, tenant_id: UUID, approval_id: UUID) -> Row | None:
    found = await connection.execute(
        select(approvals).where(approvals.c.id == approval_id, approvals.c.tenant_id == tenant_id)
    )
    row = found.mappings().one_or_none()
    return None if row is None else dict(row)


async def page(
    connection: AsyncConnection,
    *,
    tenant_id: UUID,
    statuses: Sequence[str],
    workflow_id: UUID | None,
    before: UUID | None,
    limit: int,
) -> list[Row]:
    query = select(approvals).where(approvals.c.tenant_id == tenant_id)
    if statuses:
        query = query.where(approvals.c.status.in_(statuses))
    if workflow_id is not None:
        query = query.where(approvals.c.workflow_id == workflow_id)
    if before is not None:
        query = query.where(approvals.c.id < before)
    found = await connection.execute(query.order_by(approvals.c.id.desc()).limit(limit))
    return [dict(row) for row in found.mappings()]
