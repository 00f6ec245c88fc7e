"""Who owns a business key: (tenant, tool, key) → the call that does the effect, and the key's generation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import psycopg

from app.domain.transition import KeyWanted

Connection = psycopg.AsyncConnection[dict[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    owner: UUID | None
    """The call that owns it; None if the asking step may have it."""
    generation: int


# A released key is taken over with the generation its release left. The update of an owned row changes nothing and
# locks it, so that two workflows that ask at once are answered one after the other.
_ACQUIRE: Final = """
INSERT INTO effect_keys AS k (tenant_id, tool, key, workflow_id, step, args_sha256)
VALUES (%(tenant)s, %(tool)s, %(key)s, %(workflow)s, %(step)s, %(args)s)
ON CONFLICT (tenant_id, tool, key) DO UPDATE SET
  workflow_id = CASE WHEN k.released_at IS NULL THEN k.workflow_id ELSE excluded.workflow_id END,
  step = CASE WHEN k.released_at IS NULL THEN k.step ELSE excluded.step END,
  call_id = CASE WHEN k.released_at IS NULL THEN k.call_id ELSE NULL END,
  args_sha256 = CASE WHEN k.released_at IS NULL THEN k.args_sha256 ELSE excluded.args_sha256 END,
  released_at = NULL
RETURNING workflow_id, step, call_id, generation"""


async def acquire(connection: Connection, *, tenant_id: UUID, workflow_id: UUID, wanted: KeyWanted) -> Answer:
    cursor = await connection.execute(
        _ACQUIRE,
        {
            "tenant": tenant_id,
            "tool": wanted.tool,
            "key": wanted.key,
            "workflow": workflow_id,
            "step": wanted.step,
            "args": wanted.args_sha256,
        },
    )
    row = await cursor.fetchone()
    if row is None:
        raise LookupError("an upsert returns its row")
    ours = row["workflow_id"] == workflow_id and row["step"] == wanted.step
    # A key whose owner has not made its call yet belongs to a step of this same transaction: named by its workflow.
    return Answer(owner=None if ours else row["call_id"] or row["workflow_id"], generation=row["generation"])
