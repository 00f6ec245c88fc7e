"""The numbered events of one workflow, as dicts, in order. Reads only."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.tables import events

Row = dict[str, Any]


async def page(connection: AsyncConnection, *, workflow_id: UUID, after: int, limit: int) -> list[Row]:
    columns = [column for column in events.c if column.name != "tx"]
    found = await connection.execute(
        select(*columns)
        .where(events.c.workflow_id == workflow_id, events.c.seq > after)
        .order_by(events.c.seq)
        .limit(limit)
    )
    return [dict(row) for row in found.mappings()]
