"""Webhook deliveries: a stream per (workflow, receiver), sent in the order of its events, one at a time.

The stream's due is the lock: whoever moves its time into the future owns the head until then.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import psycopg

from app.domain.outcomes import JSON

Connection = psycopg.AsyncConnection[dict[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """The first delivery of a stream that is still open, and what its body is made of."""

    id: UUID
    workflow_id: UUID
    url: str
    event_id: UUID
    seq: int
    body: bytes | None
    attempts: list[JSON]
    gap: bool
    now: datetime
    secrets: list[str]
    event: Mapping[str, Any]
    workflow: Mapping[str, Any]


_TAKE: Final = """
UPDATE dues SET due_at = clock_timestamp() + interval '1 second' * %(lease)s,
  ring_at = clock_timestamp() + interval '1 second' * %(lease)s
WHERE (kind, ref) IN (
  SELECT kind, ref FROM dues WHERE kind = 'delivery' AND ref = %(stream)s AND due_at <= clock_timestamp()
  FOR UPDATE SKIP LOCKED)
RETURNING workflow_id"""

_HEAD: Final = """
SELECT d.id, d.workflow_id, d.url, d.event_id, d.seq, d.body, d.attempts, d.gap, clock_timestamp() AS now,
  t.signing_secrets AS secrets
FROM deliveries d JOIN tenants t ON t.id = d.tenant_id
WHERE d.stream = %(stream)s AND d.state = 'open' ORDER BY d.seq LIMIT 1"""

_EVENT: Final = "SELECT * FROM events WHERE workflow_id = %(workflow)s AND seq = %(seq)s"
_WORKFLOW: Final = "SELECT * FROM workflows WHERE id = %(workflow)s"
_FREEZE: Final = """
UPDATE deliveries SET body = %(body)s WHERE workflow_id = %(workflow)s AND id = %(id)s AND body IS NULL"""
_STILL_GONE: Final = """
UPDATE deliveries d SET state = 'disabled', ended_at = clock_timestamp()
WHERE d.workflow_id = %(workflow)s AND d.stream = %(stream)s AND d.state = 'open' AND EXISTS (
  SELECT FROM deliveries gone WHERE gone.stream = %(stream)s AND gone.state = 'disabled')"""
_PROLONG: Final = """
UPDATE dues SET due_at = clock_timestamp() + interval '1 second' * %(lease)s,
  ring_at = clock_timestamp() + interval '1 second' * %(lease)s, rung = 0
WHERE kind = 'delivery' AND ref = %(stream)s"""
_NOTHING_LEFT: Final = "DELETE FROM dues WHERE kind = 'delivery' AND ref = %(stream)s"


async def take(connection: Connection, stream: UUID, *, lease: float) -> Head | None:
    """Own the stream for `lease` seconds and read its head. None: nothing is due, or somebody else has it."""
    taken = await (await connection.execute(_TAKE, {"stream": stream, "lease": lease})).fetchone()
    if taken is None:
        return None
    # Events go on after a receiver said that it is gone: theirs are not sent either.
    await connection.execute(_STILL_GONE, {"workflow": taken["workflow_id"], "stream": stream})
    return await _head(connection, stream)


async def take_next(connection: Connection, stream: UUID, *, lease: float) -> Head | None:
    """The next of a stream that is locked and ours, for `lease` seconds more. None: nothing is left."""
    head = await _head(connection, stream)
    if head is not None:
        await connection.execute(_PROLONG, {"stream": stream, "lease": lease})
    return head


async def _head(connection: Connection, stream: UUID) -> Head | None:
    """The first that is open; if none is, the stream ends."""
    head = await (await connection.execute(_HEAD, {"stream": stream})).fetchone()
    if head is None:
        await connection.execute(_NOTHING_LEFT, {"stream": stream})
        return None
    place = {"workflow": head["workflow_id"], "seq": head["seq"]}
    event = await (await connection.execute(_EVENT, place)).fetchone()
    workflow = await (await connection.execute(_WORKFLOW, place)).fetchone()
    if event is None or workflow is None:
        raise LookupError("a delivery has its event and its workflow")
    return Head(**head, event=event, workflow=workflow)


async def freeze(connection: Connection, head: Head, body: bytes) -> None:
    """The bytes of every attempt, from the first on."""
    await connection.execute(_FREEZE, {"body": body, "workflow": head.workflow_id, "id": head.id})


_LOCK: Final = """
SELECT clock_timestamp() AS now FROM dues WHERE kind = 'delivery' AND ref = %(stream)s FOR UPDATE"""

_RECORD: Final = """
UPDATE deliveries SET attempts = attempts || %(attempt)s::jsonb, state = %(state)s,
  ended_at = CASE WHEN %(state)s = 'open' THEN NULL ELSE clock_timestamp() END
WHERE workflow_id = %(workflow)s AND id = %(id)s AND state = 'open' AND jsonb_array_length(attempts) = %(known)s
RETURNING id"""

_DISABLE: Final = """
UPDATE deliveries SET state = 'disabled', ended_at = clock_timestamp()
WHERE workflow_id = %(workflow)s AND stream = %(stream)s AND state = 'open'"""

_GAP: Final = """
UPDATE deliveries SET gap = true WHERE workflow_id = %(workflow)s AND stream = %(stream)s AND id = (
  SELECT id FROM deliveries WHERE workflow_id = %(workflow)s AND stream = %(stream)s AND state = 'open'
  ORDER BY seq LIMIT 1)"""

_OPEN: Final = """
SELECT EXISTS (SELECT FROM deliveries
  WHERE workflow_id = %(workflow)s AND stream = %(stream)s AND state = 'open') AS more"""

_NEXT: Final = """
UPDATE dues SET due_at = %(at)s, ring_at = %(at)s, rung = 0 WHERE kind = 'delivery' AND ref = %(stream)s"""


async def lock(connection: Connection, stream: UUID) -> datetime | None:
    """Lock the stream; the database's clock. Taken before anything is read, so that a delivery that is just being
    added is seen, or waits and finds its due gone."""
    row = await (await connection.execute(_LOCK, {"stream": stream})).fetchone()
    return None if row is None else row["now"]


async def record(connection: Connection, head: Head, *, attempt: JSON, state: str) -> bool:
    """Add the attempt. False if another one was recorded meanwhile."""
    cursor = await connection.execute(
        _RECORD,
        {
            "attempt": json.dumps([attempt]),
            "state": state,
            "workflow": head.workflow_id,
            "id": head.id,
            "known": len(head.attempts),
        },
    )
    return await cursor.fetchone() is not None


async def disable(connection: Connection, head: Head, stream: UUID) -> None:
    await connection.execute(_DISABLE, {"workflow": head.workflow_id, "stream": stream})


async def mark_gap(connection: Connection, head: Head, stream: UUID) -> None:
    await connection.execute(_GAP, {"workflow": head.workflow_id, "stream": stream})


async def go_on(connection: Connection, head: Head, stream: UUID, *, at: datetime) -> bool:
    """Make the stream due at `at` if something of it is open, else end it. True if something is open."""
    row = await (await connection.execute(_OPEN, {"workflow": head.workflow_id, "stream": stream})).fetchone()
    if row is not None and row["more"]:
        await connection.execute(_NEXT, {"stream": stream, "at": at})
        return True
    await connection.execute(_NOTHING_LEFT, {"stream": stream})
    return False
