"""The rows of `switches`, and the dues of the calls they hold."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import psycopg

Connection = psycopg.AsyncConnection[dict[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Switch:
    scope: str
    reason: str | None
    by: str
    created_at: datetime


_HOLD: Final = """
INSERT INTO switches AS s (tenant_id, scope, reason, by) VALUES (%(tenant)s, %(scope)s, %(reason)s, %(by)s)
ON CONFLICT (tenant_id, scope) DO UPDATE SET scope = s.scope
RETURNING created_at, xmax = 0 AS fresh"""

_RELEASE: Final = "DELETE FROM switches WHERE tenant_id = %(tenant)s AND scope = %(scope)s RETURNING scope"

# After the delete, which waits for whoever is just holding a call because of this switch (`stands`): its due is seen.
_WAKE: Final = """
WITH woken AS (
  UPDATE dues SET due_at = clock_timestamp(), ring_at = clock_timestamp(), rung = 0
  WHERE kind = 'switch' AND tenant_id = %(tenant)s AND note = %(scope)s RETURNING ref
) SELECT count(*) AS calls FROM woken"""

_STANDS: Final = "SELECT FROM switches WHERE tenant_id = %(tenant)s AND scope = %(scope)s FOR KEY SHARE"

_AUDIT: Final = """
INSERT INTO audit (id, tenant_id, actor, action, object, data)
VALUES (%(id)s, %(tenant)s, %(by)s, %(action)s, %(scope)s, %(data)s::jsonb)"""


async def hold(
    connection: Connection, *, tenant_id: UUID, scope: str, reason: str | None, by: str, audit_id: UUID
) -> datetime:
    place = {"tenant": tenant_id, "scope": scope, "reason": reason, "by": by}
    row = await (await connection.execute(_HOLD, place)).fetchone()
    if row is None:
        raise LookupError("an upsert returns its row")
    if row["fresh"]:
        data = json.dumps({"reason": reason})
        await connection.execute(_AUDIT, {**place, "id": audit_id, "action": "switch.hold", "data": data})
    since: datetime = row["created_at"]
    return since


async def release(connection: Connection, *, tenant_id: UUID, scope: str, by: str, audit_id: UUID) -> int:
    place = {"tenant": tenant_id, "scope": scope, "by": by}
    gone = await (await connection.execute(_RELEASE, place)).fetchone()
    woken = await (await connection.execute(_WAKE, place)).fetchone()
    calls = 0 if woken is None else int(woken["calls"])
    if gone is None:
        return 0  # released already; what it held may still be on its way back
    data = json.dumps({"calls": calls})
    await connection.execute(_AUDIT, {**place, "id": audit_id, "action": "switch.release", "data": data})
    return calls


async def stands(connection: Connection, *, tenant_id: UUID, scope: str) -> bool:
    """Whether the switch is still off. It stays so until this transaction ends: a release waits for it."""
    asked = {"tenant": tenant_id, "scope": scope}
    return await (await connection.execute(_STANDS, asked)).fetchone() is not None


async def listed(connection: Connection, *, tenant_id: UUID) -> list[Switch]:
    cursor = await connection.execute(
        "SELECT scope, reason, by, created_at FROM switches WHERE tenant_id = %s ORDER BY created_at, scope",
        (tenant_id,),
    )
    return [Switch(**row) for row in await cursor.fetchall()]
