"""The doubts a filter means, for whoever settles many of them with one word. By way of workflows that have any: the
history of calls has no index on their state."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import psycopg

Connection = psycopg.AsyncConnection[dict[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Filter:
    """None: any. `since` and `until` are about when the doubt began."""

    tool: str | None = None
    workflow_id: UUID | None = None
    step: str | None = None
    """A step's id, its items included, or one item's path."""
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Doubt:
    workflow_id: UUID
    call_id: UUID
    step: str


_LISTED: Final = """
SELECT c.workflow_id, c.id AS call_id, c.step
FROM workflows w JOIN calls c ON c.workflow_id = w.id AND c.ended_at IS NULL
WHERE w.tenant_id = %(tenant)s AND w.ended_at IS NULL AND w.doubts > 0 AND c.state = 'in_doubt'
  AND (%(workflow)s::uuid IS NULL OR w.id = %(workflow)s)
  AND (%(tool)s::text IS NULL OR c.tool = %(tool)s)
  AND (%(step)s::text IS NULL OR c.step = %(step)s OR split_part(c.step, '.', 1) = %(step)s)
  AND (%(since)s::timestamptz IS NULL OR c.doubt_since >= %(since)s)
  AND (%(until)s::timestamptz IS NULL OR c.doubt_since < %(until)s)
ORDER BY c.doubt_since, c.id LIMIT %(limit)s"""


async def listed(connection: Connection, *, tenant_id: UUID, filter: Filter, limit: int) -> list[Doubt]:
    """Oldest first."""
    cursor = await connection.execute(
        _LISTED,
        {
            "tenant": tenant_id,
            "workflow": filter.workflow_id,
            "tool": filter.tool,
            "step": filter.step,
            "since": filter.since,
            "until": filter.until,
            "limit": limit,
        },
    )
    return [Doubt(**row) for row in await cursor.fetchall()]
