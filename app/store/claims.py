"""Claim: calls that are due become `intended`, each by one attempt whose id the worker made. One statement for many.

The intent is committed before any byte leaves. The call's due stays as it is: most calls end before it would ring, and
the sweep makes that of a longer one its attempt's (`app/store/dues.py`). Only `due` can be claimed; a lapsed lease
never is. Never locks the workflow: rows that somebody else holds are skipped and asked for again. A claim whose COMMIT
reply was lost runs again with the same attempt ids: a row intended with my attempt id counts as claimed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import psycopg

from app.domain import rewound
from app.domain.dependencies import ADMITTED, SHARED
from app.domain.outcomes import JSON
from app.store import identity, numbered

Connection = psycopg.AsyncConnection[dict[str, Any]]
Cursor = psycopg.AsyncCursor[dict[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Claimed:
    """A claimed call and what performing it needs. Times are the database's."""

    workflow_id: UUID
    tenant_id: UUID
    call_id: UUID
    attempt_id: UUID
    step: str
    kind: str
    tool: str | None
    effect: str
    request: Mapping[str, JSON]
    key: str | None
    n: int
    timeout_ms: int
    intended_at: datetime
    send_deadline: datetime
    plan_digest: str
    traceparent: str | None
    key_expired: bool
    """Not claimed: the tool may have forgotten the key by the send deadline."""
    lost_past: bool
    """Not claimed: it may have been sent in the time that a restore of the database has lost."""
    switched_off: str | None
    """Not claimed: an operator's switch stands before it; its scope."""
    stands: Sequence[str] | None = None
    """Not claimed: scopes of breakers that are open, and whose canary it is not."""
    short: str | None = None
    """Not claimed: the scope whose rate limit has nothing left for it."""
    canary_of: Sequence[str] | None = None
    """Scopes of breakers that let it through, to see whether they may close."""

    @property
    def granted(self) -> bool:
        """Whether nothing stood before it: then it is claimed."""
        stands = self.switched_off is not None or self.stands is not None or self.short is not None
        return not (self.key_expired or self.lost_past or stands)


_MODEL: Final = "'model:' || %(credential)s || '/' || (c.request->>'model')"
"""The dependency that a model call has under this worker's credential (`app/domain/dependencies.py`)."""

# No effect is claimed on a database that is not the one on record (`app/store/identity.py`).
_CLAIM: Final = f"""
WITH asked AS (
  SELECT * FROM unnest(%(calls)s::uuid[], %(attempts)s::uuid[]) AS a(call_id, attempt_id)
), alive AS (
  SELECT id FROM workers WHERE id = %(worker)s AND lost_at IS NULL AND stopped_at IS NULL
), open AS (
  SELECT c.workflow_id, c.id, a.attempt_id, c.timeout_ms, c.state,
    c.attempt_id = a.attempt_id AND c.state = 'intended' AS mine,
    coalesce(c.key_deadline < clock_timestamp() + c.timeout_ms * interval '1 ms', false) AS key_expired,
    c.state = 'due' AND coalesce((c.tries ->> 'restored')::int, 0) = {rewound.PARKED}
      AND c.resolved ->> 'outcome' IS DISTINCT FROM 'did_not_happen' AS lost_past,
    CASE WHEN c.state = 'due' THEN (
      SELECT s.scope FROM switches s WHERE s.tenant_id = c.tenant_id AND (s.scope = 'tenant' OR CASE c.kind
        WHEN 'model' THEN s.scope IN ('model:' || (c.request->>'model'), 'model:' || (c.request->>'alias'))
        ELSE s.scope = 'tool:' || c.tool END) LIMIT 1) END AS switched_off,
    b.stands, b.canary_of,
    CASE WHEN c.state = 'due' AND c.kind = 'model' THEN (
      SELECT l.scope FROM limits l WHERE l.scope = {_MODEL} AND (l.blocked_until > clock_timestamp()
        OR l.armed_until > clock_timestamp() AND NOT EXISTS (
          SELECT FROM dues d WHERE d.kind = 'call' AND d.ref = c.id AND d.note = '{ADMITTED}'))) END AS short
  FROM asked a JOIN calls c ON c.id = a.call_id
  CROSS JOIN LATERAL (
    SELECT array_agg(b.scope) FILTER (WHERE c.state = 'due' AND b.state <> 'closed'
        AND b.canary IS DISTINCT FROM c.id) AS stands,
      array_agg(b.scope) FILTER (WHERE b.canary = c.id) AS canary_of
    FROM breakers b
    WHERE b.tenant_id = CASE c.kind WHEN 'model' THEN '{SHARED}' ELSE c.tenant_id END
      AND b.scope = ANY(CASE c.kind WHEN 'model' THEN ARRAY[{_MODEL}, 'model:' || %(credential)s || '/*']
        ELSE ARRAY['tool:' || c.tool] END)) b, alive
  WHERE c.engine_version = ANY(%(versions)s)
    AND (c.state = 'due' AND EXISTS (
           SELECT FROM dues d WHERE d.kind = 'call' AND d.ref = c.id AND d.due_at <= clock_timestamp())
         OR c.state = 'intended' AND c.attempt_id = a.attempt_id)
    AND (c.effect = 'read_only' OR {identity.SAME})
  ORDER BY c.id
  FOR NO KEY UPDATE OF c SKIP LOCKED
), claimed AS (
  UPDATE calls c SET
    state = 'intended', attempt_id = o.attempt_id, attempts = c.attempts + 1,
    key_deadline = coalesce(c.key_deadline,
      clock_timestamp() + (c.key_ttl_ms * interval '1 ms')
        - greatest(%(key_margin)s * interval '1 second', c.settle_ms * interval '1 ms'))
  FROM open o
  WHERE c.workflow_id = o.workflow_id AND c.id = o.id AND o.state = 'due' AND NOT o.key_expired AND NOT o.lost_past
    AND o.switched_off IS NULL
    AND o.stands IS NULL AND o.short IS NULL
  RETURNING c.workflow_id, c.id, c.tenant_id, c.attempt_id, c.attempts, c.timeout_ms, clock_timestamp() AS now
), tried AS (
  INSERT INTO attempts (workflow_id, call_id, id, tenant_id, n, worker, intended_at, send_deadline)
  SELECT workflow_id, id, attempt_id, tenant_id, attempts, %(worker)s, now, now + timeout_ms * interval '1 ms'
  FROM claimed
  RETURNING call_id, intended_at, send_deadline
)
SELECT c.workflow_id, c.tenant_id, c.id AS call_id, o.attempt_id, c.step, c.kind, c.tool, c.effect, c.request, c.key,
  coalesce(cl.attempts, c.attempts) AS n, c.timeout_ms,
  coalesce(t.intended_at, a.intended_at) AS intended_at, coalesce(t.send_deadline, a.send_deadline) AS send_deadline,
  w.plan_digest, w.traceparent, o.key_expired AND NOT o.mine AS key_expired, o.lost_past,
  o.switched_off, o.stands, o.short, o.canary_of
FROM open o
JOIN calls c ON c.workflow_id = o.workflow_id AND c.id = o.id
JOIN workflows w ON w.id = o.workflow_id
LEFT JOIN claimed cl ON cl.id = o.id
LEFT JOIN tried t ON t.call_id = o.id
LEFT JOIN attempts a ON o.mine AND a.workflow_id = o.workflow_id AND a.call_id = o.id AND a.id = o.attempt_id
WHERE cl.id IS NOT NULL OR o.key_expired OR o.lost_past OR o.switched_off IS NOT NULL
  OR o.stands IS NOT NULL OR o.short IS NOT NULL OR (o.mine AND a.lost_at IS NULL AND a.outcome IS NULL)"""


async def ask(
    connection: Connection,
    asked: Sequence[tuple[UUID, UUID]],
    *,
    worker: UUID,
    versions: Sequence[int],
    key_margin: float,
    credential: str,
) -> Cursor:
    """`asked`: (call id, attempt id). The answer is read by `told`: in a pipeline it is not waited for here."""
    return await numbered.execute(
        connection,
        _CLAIM,
        {
            "calls": [call for call, _ in asked],
            "attempts": [attempt for _, attempt in asked],
            "worker": worker,
            "versions": list(versions),
            "key_margin": key_margin,
            "credential": credential,
        },
    )


async def told(cursor: Cursor) -> list[Claimed]:
    """What is not in it was not due, is held by somebody, or is locked."""
    return [Claimed(**row) for row in await cursor.fetchall()]


_STILL_DUE: Final = """
SELECT d.ref FROM dues d WHERE d.kind = 'call' AND d.ref = ANY(%(calls)s) AND d.due_at <= clock_timestamp()"""


async def still_due(connection: Connection, calls: Sequence[UUID]) -> set[UUID]:
    """Which of the calls that a claim did not get are due nevertheless: somebody held their rows for a moment."""
    cursor = await connection.execute(_STILL_DUE, {"calls": list(calls)})
    return {row["ref"] for row in await cursor.fetchall()}
