"""Who owns a business key: (tenant, tool, key) → the call that does the effect, and the key's generation.

    acquire  a call asks for a key: it is its now, or somebody's, whose state and result are told
    owner    what became of the owner a call is attached to

The row of the key is locked by whoever asks for it and by the owner's end until they are committed, so that nobody
attaches to an owner whose end was told already.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import psycopg

from app.domain.outcomes import JSON
from app.domain.transition import KeyWanted

Connection = psycopg.AsyncConnection[dict[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    owner: UUID | None
    """The call that owns it; None if the asking call may have it."""
    generation: int
    same_arguments: bool = True
    owner_state: str | None = None
    """None while its owner is not committed."""
    owner_undo: str = "none"
    owner_result: JSON = None


# A released key is taken over with the generation its release left. The update of an owned row changes nothing and
# locks it, so that two workflows that ask at once are answered one after the other.
_ACQUIRE: Final = """
INSERT INTO effect_keys AS k (tenant_id, tool, key, workflow_id, step, call_id, args_sha256)
VALUES (%(tenant)s, %(tool)s, %(key)s, %(workflow)s, %(step)s, %(call)s, %(args)s)
ON CONFLICT (tenant_id, tool, key) DO UPDATE SET
  workflow_id = CASE WHEN k.released_at IS NULL THEN k.workflow_id ELSE excluded.workflow_id END,
  step = CASE WHEN k.released_at IS NULL THEN k.step ELSE excluded.step END,
  call_id = CASE WHEN k.released_at IS NULL THEN k.call_id ELSE excluded.call_id END,
  args_sha256 = CASE WHEN k.released_at IS NULL THEN k.args_sha256 ELSE excluded.args_sha256 END,
  released_at = NULL
RETURNING call_id, args_sha256, generation"""

# What a workflow that is ending has recorded to undo may be gone in a moment: it is told as being undone.
_OWNER: Final = """
SELECT c.state, c.result, s.output,
  CASE WHEN c.undo = 'recorded' AND w.status IN ('failing', 'cancelling', 'compensating') THEN 'running' ELSE c.undo END
    AS undo
FROM calls c JOIN steps s ON s.workflow_id = c.workflow_id AND s.path = c.step JOIN workflows w ON w.id = c.workflow_id
WHERE c.id = %(call)s"""


async def acquire(connection: Connection, *, tenant_id: UUID, workflow_id: UUID, wanted: KeyWanted) -> Answer:
    cursor = await connection.execute(
        _ACQUIRE,
        {
            "tenant": tenant_id,
            "tool": wanted.tool,
            "key": wanted.key,
            "workflow": workflow_id,
            "step": wanted.step,
            "call": wanted.call_id,
            "args": wanted.args_sha256,
        },
    )
    row = await cursor.fetchone()
    if row is None:
        raise LookupError("an upsert returns its row")
    if row["call_id"] == wanted.call_id:
        return Answer(owner=None, generation=row["generation"])
    found = await owner(connection, call_id=row["call_id"])
    return Answer(
        owner=row["call_id"],
        generation=row["generation"],
        same_arguments=row["args_sha256"] == wanted.args_sha256,
        owner_state=None if found is None else found.state,
        owner_undo="none" if found is None else found.undo,
        owner_result=None if found is None else found.result,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    state: str
    undo: str
    result: JSON


async def owner(connection: Connection, *, call_id: UUID) -> Owner | None:
    """None: that call is not committed. A tool step's result is its step's output."""
    row = await (await connection.execute(_OWNER, {"call": call_id})).fetchone()
    if row is None:
        return None
    return Owner(state=row["state"], undo=row["undo"], result=row["output"] if row["result"] is None else row["result"])


_ATTACHED_TO: Final = """
SELECT c.target AS owner, k.call_id FROM calls c
LEFT JOIN effect_keys k ON k.tenant_id = c.tenant_id AND k.tool = c.tool AND k.key = c.request->>'business_key'
  AND k.released_at IS NULL
WHERE c.workflow_id = %(workflow)s AND c.id = %(call)s"""


async def attached_to(connection: Connection, *, workflow_id: UUID, call_id: UUID) -> UUID | None:
    """The owner that call is attached to, if the key is still that one's."""
    row = await (await connection.execute(_ATTACHED_TO, {"workflow": workflow_id, "call": call_id})).fetchone()
    return None if row is None or row["owner"] != row["call_id"] else row["owner"]
