"""What people have said about one call: read at the last moment before it is sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import psycopg

Connection = psycopg.AsyncConnection[dict[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Word:
    asked: bool
    """Somebody was asked about this call, whatever came of it."""
    approved: list[str]
    """The hashes that were approved for it."""


# An approval is about its own call; one that was edited, or given for a tool that had changed, is about the call that
# was made for it.
_WORD: Final = """
SELECT count(*) > 0 AS asked, coalesce(array_agg(a.arguments_sha256) FILTER (
    WHERE a.decision = CASE WHEN a.call_id <> c.id AND c.change ->> 'change' = 'edited' THEN 'edit' ELSE 'approve' END
  ), '{}') AS approved
FROM calls c JOIN approvals a ON a.workflow_id = c.workflow_id
  AND (a.call_id = c.id OR a.call_id = c.retry_of AND c.change ->> 'change' IN ('edited', 'definition'))
WHERE c.workflow_id = %(workflow)s AND c.id = %(call)s"""


async def word(connection: Connection, *, workflow_id: UUID, call_id: UUID) -> Word:
    cursor = await connection.execute(_WORD, {"workflow": workflow_id, "call": call_id})
    row = await cursor.fetchone()
    return Word(asked=bool(row and row["asked"]), approved=[] if row is None else row["approved"])
