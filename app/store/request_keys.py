"""Idempotency keys of requests that change something once and are not submissions: claimed in the same transaction.

claim   ours now (None), or whose it was before
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

import psycopg

from app.store.submissions import Owner

Connection = psycopg.AsyncConnection[dict[str, Any]]

# A twin in flight is waited for: the insert waits for its transaction, and then finds what it did.
_CLAIM: Final = """
INSERT INTO idempotency_keys (tenant_id, route, key, fingerprint, field_hashes, workflow_id, response_status)
VALUES (%(tenant)s, %(route)s, %(key)s, %(fingerprint)s, %(hashes)s::jsonb, %(workflow)s, %(status)s)
ON CONFLICT (tenant_id, route, key) DO NOTHING
RETURNING workflow_id"""

_OWNER: Final = """
SELECT fingerprint, field_hashes, workflow_id FROM idempotency_keys
WHERE tenant_id = %(tenant)s AND route = %(route)s AND key = %(key)s"""


async def claim(
    connection: Connection,
    *,
    tenant_id: UUID,
    route: str,
    key: str,
    fingerprint: str,
    field_hashes: Mapping[str, str],
    workflow_id: UUID,
    status: int,
) -> Owner | None:
    """None: the key is ours, with this transaction. Else what it was used for."""
    place = {"tenant": tenant_id, "route": route, "key": key}
    asked = {
        **place,
        "fingerprint": fingerprint,
        "hashes": json.dumps(dict(field_hashes)),
        "workflow": workflow_id,
        "status": status,
    }
    if await (await connection.execute(_CLAIM, asked)).fetchone() is not None:
        return None
    row = await (await connection.execute(_OWNER, place)).fetchone()
    if row is None:
        raise LookupError("who has the key has its row")
    return Owner(**row)
