"""The bytes the world sent, by (workflow, sha256): erasable without touching the skeleton."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import psycopg

from app.domain.outcomes import JSON

Connection = psycopg.AsyncConnection[dict[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Undecided:
    """The outcome of the attempt that stands at the fence of a call, with its bytes."""

    attempt_id: UUID
    step: str
    outcome: str
    failure: JSON
    status_code: int | None
    request_id: str | None
    media_type: str | None
    truncated: bool
    body: bytes | None


_UNDECIDED: Final = """
SELECT a.id AS attempt_id, c.step, a.outcome, a.failure, a.status_code, a.request_id, a.media_type, a.truncated, p.body
FROM calls c
JOIN attempts a ON a.workflow_id = c.workflow_id AND a.call_id = c.id AND a.id = c.attempt_id
LEFT JOIN payloads p ON p.workflow_id = a.workflow_id AND p.sha256 = a.evidence
WHERE c.workflow_id = %(workflow)s AND c.id = %(call)s AND c.state = 'intended' AND a.outcome IS NOT NULL"""


async def undecided(connection: Connection, *, workflow_id: UUID, call_id: UUID) -> list[Undecided]:
    cursor = await connection.execute(_UNDECIDED, {"workflow": workflow_id, "call": call_id})
    return [Undecided(**row) for row in await cursor.fetchall()]
