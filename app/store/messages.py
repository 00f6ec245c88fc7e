"""The messages of an agent, as they were stored: append-only, byte-stable."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

import psycopg

Connection = psycopg.AsyncConnection[dict[str, Any]]

_CONVERSATION: Final = """
SELECT body FROM messages
WHERE workflow_id = %(workflow)s AND step = %(step)s AND conversation = %(conversation)s AND ordinal < %(count)s
ORDER BY ordinal"""


async def conversation(
    connection: Connection, *, workflow_id: UUID, step: str, conversation: int, count: int
) -> list[bytes]:
    """The first `count` messages of a conversation: what a request frozen then is rendered from, now and later."""
    cursor = await connection.execute(
        _CONVERSATION, {"workflow": workflow_id, "step": step, "conversation": conversation, "count": count}
    )
    bodies = [bytes(row["body"]) for row in await cursor.fetchall()]
    if len(bodies) != count:
        raise LookupError(f"{count} messages were expected, {len(bodies)} are there")
    return bodies
