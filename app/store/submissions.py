"""The claim of an Idempotency-Key, in the transaction that accepts its workflow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import psycopg

Connection = psycopg.AsyncConnection[dict[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    fingerprint: str
    field_hashes: Mapping[str, str]
    workflow_id: UUID


_CLAIM: Final = """
INSERT INTO idempotency_keys (tenant_id, route, key, fingerprint, field_hashes, workflow_id, response_status)
VALUES (%(tenant)s, %(route)s, %(key)s, %(fingerprint)s, %(hashes)s::jsonb, %(workflow)s, %(status)s)
ON CONFLICT (tenant_id, route, key) DO NOTHING"""

_OWNER: Final = """
SELECT fingerprint, field_hashes, workflow_id FROM idempotency_keys
WHERE tenant_id = %(tenant)s AND route = %(route)s AND key = %(key)s"""


async def claim_key(
    connection: Connection,
    *,
    tenant_id: UUID,
    route: str,
    key: str,
    fingerprint: str,
    field_hashes: Mapping[str, str],
    workflow_id: UUID,
    status: int,
    wait: float,
) -> Owner | None:
    """None if the key is ours now, else who has it. Waits for a twin in flight up to `wait` seconds, then
    psycopg's LockNotAvailable."""
    place = {"tenant": tenant_id, "route": route, "key": key}
    await connection.execute(f"SET LOCAL lock_timeout = {int(wait * 1000)}")
    cursor = await connection.execute(
        _CLAIM,
        {
            **place,
            "fingerprint": fingerprint,
            "hashes": json.dumps(field_hashes),
            "workflow": workflow_id,
            "status": status,
        },
    )
    await connection.execute("SET LOCAL lock_timeout = 0")
    found = await connection.execute(_OWNER, place)
    row = await found.fetchone()
    if cursor.rowcount == 1 or row is None:
        return None
    return Owner(**row)


async def clock(connection: Connection) -> datetime:
    row = await (await connection.execute("SELECT clock_timestamp() AS now")).fetchone()
    if row is None:
        raise LookupError("the clock has a reading")
    now: datetime = row["now"]
    return now
