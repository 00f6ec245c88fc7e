"""The messages of an agent, as they were stored: append-only, byte-stable.

conversation    the first messages of a conversation
rest            those after the ones that a process knows, and the digest of the marks of those as they stand now
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import psycopg

Connection = psycopg.AsyncConnection[dict[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    body: bytes
    mark: bytes
    """Tells this version of the row from every other: who wrote it (the transaction) and when, to the microsecond. A
    row that is changed by hand is another transaction's; one that is written anew after a restore may have the same
    number of a transaction, but a later time. 12 bytes, read without touching the body, which may be long."""


_OF: Final = "workflow_id = %(workflow)s AND step = %(step)s AND conversation = %(conversation)s"
_MARK: Final = "timestamptz_send(created_at) || xidsend(xmin)"

_CONVERSATION: Final = f"""
SELECT body, {_MARK} AS mark FROM messages WHERE {_OF} AND ordinal < %(count)s ORDER BY ordinal"""

# One statement, so both halves are of one moment. No message has the ordinal -1.
_REST: Final = f"""
SELECT -1 AS ordinal, NULL::bytea AS body, sha256(string_agg({_MARK}, ''::bytea ORDER BY ordinal)) AS mark
FROM messages WHERE {_OF} AND ordinal < %(known)s
UNION ALL
SELECT ordinal, body, {_MARK} FROM messages WHERE {_OF} AND ordinal >= %(known)s AND ordinal < %(count)s
ORDER BY ordinal"""


async def conversation(
    connection: Connection, *, workflow_id: UUID, step: str, conversation: int, count: int
) -> list[Stored]:
    """The first `count` messages of a conversation: what a request frozen then is rendered from, now and later."""
    asked = {"workflow": workflow_id, "step": step, "conversation": conversation, "count": count}
    cursor = await connection.execute(_CONVERSATION, asked, binary=True)
    found = [Stored(**row) for row in await cursor.fetchall()]
    if len(found) != count:
        raise LookupError(f"{count} messages were expected, {len(found)} are there")
    return found


async def rest(
    connection: Connection, *, workflow_id: UUID, step: str, conversation: int, known: int, count: int
) -> tuple[bytes | None, list[Stored]]:
    """(SHA-256 of the marks of the first `known` messages, the messages from there up to `count`). None, and fewer
    messages than asked for, if the rows are not there: whoever asks looks for itself then."""
    asked = {"workflow": workflow_id, "step": step, "conversation": conversation, "known": known, "count": count}
    cursor = await connection.execute(_REST, asked, binary=True)
    digest, *new = await cursor.fetchall()
    return digest["mark"], [Stored(body=row["body"], mark=row["mark"]) for row in new]
