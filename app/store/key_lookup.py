"""Who owns an Idempotency-Key: looked up before anything is parsed as a definition or paid.

The claim itself is written by `engine/submit` in the workflow's own transaction, so a row found here has a workflow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.tables import idempotency_keys

SUBMIT_ROUTE = "POST /v1/workflows"
"""The route under which submissions keep their keys; batch items share it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyOwner:
    fingerprint: str
    field_hashes: Mapping[str, str]
    workflow_id: UUID | None
    response_status: int


async def find(connection: AsyncConnection, *, tenant_id: UUID, route: str, key: str) -> KeyOwner | None:
    found = await connection.execute(
        select(
            idempotency_keys.c.fingerprint,
            idempotency_keys.c.field_hashes,
            idempotency_keys.c.workflow_id,
            idempotency_keys.c.response_status,
        ).where(
            idempotency_keys.c.tenant_id == tenant_id,
            idempotency_keys.c.route == route,
            idempotency_keys.c.key == key,
        )
    )
    row = found.one_or_none()
    if row is None:
        return None
    return KeyOwner(
        fingerprint=row.fingerprint,
        field_hashes=row.field_hashes,
        workflow_id=row.workflow_id,
        response_status=row.response_status,
    )
