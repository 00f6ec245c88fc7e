"""The messages of an agent, as they were stored: append-only, byte-stable.

conversation    the first messages of a conversation
rest            those after the ones that a process knows, and the digest of what it knows as it stands in the rows
"""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

import psycopg

Connection = psycopg.AsyncConnection[dict[str, Any]]

BETWEEN: Final = b","
"""Stands between two messages of a request, and of the text whose digest is taken: it is the digest of what is sent."""

_OF: Final = "workflow_id = %(workflow)s AND step = %(step)s AND conversation = %(conversation)s"

_CONVERSATION: Final = f"SELECT body FROM messages WHERE {_OF} AND ordinal < %(count)s ORDER BY ordinal"

# One statement, so both halves are of one moment. No message has the ordinal -1.
_REST: Final = f"""
SELECT -1 AS ordinal, sha256(string_agg(body, '{BETWEEN.decode()}'::bytea ORDER BY ordinal)) AS body
FROM messages WHERE {_OF} AND ordinal < %(known)s
UNION ALL
SELECT ordinal, body FROM messages WHERE {_OF} AND ordinal >= %(known)s AND ordinal < %(count)s
ORDER BY ordinal"""


async def conversation(
    connection: Connection, *, workflow_id: UUID, step: str, conversation: int, count: int
) -> list[bytes]:
    """The first `count` messages of a conversation: what a request frozen then is rendered from, now and later."""
    asked = {"workflow": workflow_id, "step": step, "conversation": conversation, "count": count}
    cursor = await connection.execute(_CONVERSATION, asked, binary=True)
    bodies = [bytes(row["body"]) for row in await cursor.fetchall()]
    if len(bodies) != count:
        raise LookupError(f"{count} messages were expected, {len(bodies)} are there")
    return bodies


async def rest(
    connection: Connection, *, workflow_id: UUID, step: str, conversation: int, known: int, count: int
) -> tuple[bytes | None, list[bytes]]:
    """(SHA-256 of the first `known` messages with commas between them, those from there up to `count`). None, and fewer
    messages than asked for, if the rows are not there: whoever asks looks for itself then."""
    asked = {"workflow": workflow_id, "step": step, "conversation": conversation, "known": known, "count": count}
    cursor = await connection.execute(_REST, asked, binary=True)
    digest, *new = [row["body"] for row in await cursor.fetchall()]
    return (None if digest is None else bytes(digest)), [bytes(body) for body in new]
