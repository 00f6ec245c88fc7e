"""The bytes the world sent, by (workflow, sha256): erasable without touching the skeleton."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import psycopg

from app.domain.outcomes import JSON

Connection = psycopg.AsyncConnection[dict[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Undecided:
    """The outcome of an attempt that was recorded without a decision, with its bytes."""

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
JOIN attempts a ON a.workflow_id = c.workflow_id AND a.call_id = c.id AND a.id = ANY(%(attempts)s)
LEFT JOIN payloads p ON p.workflow_id = a.workflow_id AND p.sha256 = a.evidence
WHERE c.workflow_id = %(workflow)s AND c.id = %(call)s AND a.outcome IS NOT NULL
ORDER BY a.n"""


async def undecided(
    connection: Connection, *, workflow_id: UUID, call_id: UUID, attempts: Sequence[UUID]
) -> list[Undecided]:
    cursor = await connection.execute(
        _UNDECIDED, {"workflow": workflow_id, "call": call_id, "attempts": list(attempts)}
    )
    return [Undecided(**row) for row in await cursor.fetchall()]
