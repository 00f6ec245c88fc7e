"""The narrow table of what wants attention, as the sweep reads it. History never makes it hot.

Every query takes rows with SKIP LOCKED and lets them go before anybody locks a workflow. What is ripe is found with
`statement_timestamp()`: the planner uses an index for a bound that is stable, and would walk every timer to the last
for one that is volatile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import psycopg

from app.domain.states import DueKind

Connection = psycopg.AsyncConnection[dict[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rung:
    kind: str
    ref: UUID


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A due whose time has come and that means a fact."""

    kind: str
    ref: UUID
    tenant_id: UUID
    workflow_id: UUID
    note: str | None
    step: str | None
    attempt_id: UUID | None
    call_id: UUID | None


# Round-robin between tenants by priority, so that one tenant's 100,000 calls do not stand before another's one. The
# window is over what the index on ring_at finds first, so the sweep's cost does not grow with the queue.
_RING: Final = """
WITH ripe AS (
  SELECT kind, ref, tenant_id, priority, due_at, rung FROM dues
  WHERE ring_at <= statement_timestamp() + CASE WHEN %(unrung)s THEN interval '2 seconds' ELSE interval '0' END
    AND (ring_at <= statement_timestamp() OR rung = 0 AND due_at <= statement_timestamp())
    AND kind IN ('call', 'delivery')
  ORDER BY ring_at LIMIT %(look)s
  FOR UPDATE SKIP LOCKED
), fair AS (
  SELECT *, row_number() OVER (PARTITION BY tenant_id ORDER BY priority, due_at) AS turn FROM ripe
), chosen AS (
  SELECT * FROM fair ORDER BY priority, turn, due_at LIMIT %(limit)s
)
UPDATE dues d SET rung = least(d.rung + 1, 3),
  ring_at = clock_timestamp() + interval '1 second' * (2 ^ least(d.rung + 1, 3))
FROM chosen c WHERE d.kind = c.kind AND d.ref = c.ref
RETURNING d.kind, d.ref"""


async def ring(connection: Connection, *, limit: int, unrung: bool = False) -> list[Rung]:
    """What is due and not rung, at most `limit`, its next ring pushed: 2, 4, then every 8 seconds. `unrung`: nobody
    can ring directly now, so what is due is not given the two seconds first."""
    cursor = await connection.execute(_RING, {"limit": limit, "look": limit * 4, "unrung": unrung})
    return [Rung(**row) for row in await cursor.fetchall()]


_RING_AGAIN: Final = """
WITH due AS (
  SELECT kind, ref FROM dues WHERE kind IN ('call', 'delivery') AND due_at <= statement_timestamp()
  FOR UPDATE SKIP LOCKED
)
UPDATE dues d SET ring_at = clock_timestamp() FROM due x WHERE d.kind = x.kind AND d.ref = x.ref"""


async def ring_again(connection: Connection) -> None:
    """Redis was emptied: every doorbell in it is gone. What somebody holds is not waited for: who holds it may stand
    still, and this sweep is what would end its lease. It has its own ring in seconds."""
    await connection.execute(_RING_AGAIN)


_LAPSED: Final = """
UPDATE workers SET lost_at = clock_timestamp()
WHERE lost_at IS NULL AND stopped_at IS NULL AND lease_until < clock_timestamp()
  AND clock_timestamp() > pg_postmaster_start_time() + interval '1 second' * %(lease)s
RETURNING id"""


async def lapse_workers(connection: Connection, *, lease: float) -> list[UUID]:
    """End the leases that are over, once Postgres has been up for one lease: after an outage everybody looks dead."""
    cursor = await connection.execute(_LAPSED, {"lease": lease})
    return [row["id"] for row in await cursor.fetchall()]


# A claim does not touch the call's due: an update of it writes to four indexes, for nothing if the call ends at once
# (half a kilobyte of WAL a step). So what the sweep finds ripe is either not claimed yet, then it is rung; or in
# flight, then it becomes the due of its attempt here. The workflow's lock keeps a record away meanwhile: in one
# statement it deletes the dues it sees, and would leave the one that is just being made of another. Whom a record holds
# is left for the next sweep; the call's lock is against a repeat that was decided since the statement began.
_IN_FLIGHT: Final = """
WITH late AS (
  SELECT kind, ref, workflow_id FROM dues
  WHERE kind = 'call' AND ring_at <= statement_timestamp() ORDER BY ring_at LIMIT %(limit)s
), bereft AS (
  SELECT d.kind, d.ref, d.workflow_id
  FROM dues d JOIN calls c ON c.workflow_id = d.workflow_id AND c.id = d.ref AND c.state = 'intended'
  JOIN attempts a ON a.workflow_id = c.workflow_id AND a.call_id = c.id AND a.id = c.attempt_id
  WHERE EXISTS (SELECT FROM workers WHERE lost_at > clock_timestamp() - interval '1 second' * %(recent)s)
    AND d.kind = 'call' AND d.due_at <= clock_timestamp()
    AND a.worker IN (SELECT id FROM workers WHERE lost_at > clock_timestamp() - interval '1 second' * %(recent)s)
  LIMIT %(limit)s
), open AS (
  SELECT d.kind, d.ref, a.worker, a.send_deadline
  FROM (SELECT * FROM late UNION SELECT * FROM bereft) x
  JOIN dues d ON d.kind = x.kind AND d.ref = x.ref
  JOIN calls c ON c.workflow_id = x.workflow_id AND c.id = x.ref AND c.state = 'intended'
  JOIN attempts a ON a.workflow_id = c.workflow_id AND a.call_id = c.id AND a.id = c.attempt_id
  JOIN workflows w ON w.id = x.workflow_id
  FOR NO KEY UPDATE OF w, c, d SKIP LOCKED
)
UPDATE dues d SET kind = 'attempt', worker = o.worker, rung = 0,
  due_at = o.send_deadline + (%(lease)s * interval '1 second'),
  ring_at = o.send_deadline + (%(lease)s * interval '1 second')
FROM open o WHERE d.kind = o.kind AND d.ref = o.ref"""

RECENT: Final = 30
"""Seconds for which a worker's loss is news: calls it had just claimed are looked for before their dues are ripe."""


async def in_flight(connection: Connection, *, limit: int, lease: float) -> None:
    """Calls that were claimed and are still open when they would be rung, or whose worker was lost meanwhile."""
    await connection.execute(_IN_FLIGHT, {"limit": limit, "lease": lease, "recent": RECENT})


# Once taken an attempt comes back by its ring_at: two seconds on if its workflow was locked, or when its sender is
# known to be silent if the decision put it off until then.
_ATTEMPTS: Final = """
WITH lost AS (
  SELECT d.kind, d.ref FROM dues d JOIN workers w ON w.id = d.worker
  WHERE d.worker IS NOT NULL AND d.kind = 'attempt' AND w.lost_at IS NOT NULL
    AND (d.rung = 0 OR w.reaped_at IS NOT NULL)
  LIMIT %(limit)s FOR UPDATE OF d SKIP LOCKED
), late AS (
  SELECT kind, ref FROM dues WHERE kind = 'attempt' AND ring_at <= statement_timestamp()
  ORDER BY ring_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), taken AS (
  UPDATE dues d SET rung = 1, ring_at = clock_timestamp() + interval '2 seconds'
  FROM (SELECT * FROM lost UNION SELECT * FROM late) x WHERE d.kind = x.kind AND d.ref = x.ref
  RETURNING d.kind, d.ref, d.tenant_id, d.workflow_id, d.note
)
SELECT t.*, c.step, c.attempt_id, c.id AS call_id
FROM taken t JOIN calls c ON c.workflow_id = t.workflow_id AND c.id = t.ref
WHERE c.state = 'intended'"""


async def lost_attempts(connection: Connection, *, limit: int) -> list[Found]:
    """Attempts whose worker is lost, or that are past their send deadline and a lease without an outcome."""
    cursor = await connection.execute(_ATTEMPTS, {"limit": limit})
    return [Found(**row) for row in await cursor.fetchall()]


_TIMERS: Final = """
WITH ripe AS (
  SELECT kind, ref FROM dues
  WHERE ring_at <= statement_timestamp() AND kind = ANY(%(kinds)s)
  ORDER BY ring_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), taken AS (
  UPDATE dues d SET rung = least(d.rung + 1, 3),
    ring_at = clock_timestamp() + interval '1 second' * (2 ^ least(d.rung + 1, 3))
  FROM ripe r WHERE d.kind = r.kind AND d.ref = r.ref
  RETURNING d.kind, d.ref, d.tenant_id, d.workflow_id, d.note
)
SELECT t.*, coalesce(a.step, c.step, t.note) AS step, c.attempt_id, coalesce(c.id, a.call_id) AS call_id
FROM taken t
LEFT JOIN approvals a ON t.kind = 'expiry' AND a.workflow_id = t.workflow_id AND a.id = t.ref
LEFT JOIN calls c ON t.kind IN ('apply', 'result', 'attached', 'switch', 'budget')
  AND c.workflow_id = t.workflow_id AND c.id = t.ref"""


TIMERS: Final = tuple(set(DueKind) - {DueKind.CALL, DueKind.DELIVERY, DueKind.ATTEMPT, DueKind.DEPENDENCY})
"""What means a fact when its time has come. (Calls that wait for what they call are let go by `engine/depend.py`.)"""


async def timers(connection: Connection, *, limit: int) -> list[Found]:
    """Deadlines, timeouts, expiries, awaited results and owners, switches, undecided evidence: whose time has come."""
    cursor = await connection.execute(_TIMERS, {"limit": limit, "kinds": sorted(TIMERS)})
    return [Found(**row) for row in await cursor.fetchall()]


_APPLY_LATER: Final = """
INSERT INTO dues (kind, ref, tenant_id, workflow_id, note, lane, due_at, ring_at)
SELECT 'apply', c.id, c.tenant_id, c.workflow_id, string_agg(a.attempt::text, ','), 'calls', clock_timestamp(),
  clock_timestamp() + interval '2 seconds'
FROM unnest(%(calls)s::uuid[], %(attempts)s::uuid[]) AS a(call, attempt)
JOIN calls c ON c.workflow_id = %(workflow)s AND c.id = a.call
GROUP BY c.id, c.tenant_id, c.workflow_id
ON CONFLICT (kind, ref) DO UPDATE SET note = dues.note || ',' || excluded.note"""


async def apply_later(connection: Connection, *, workflow: UUID, kept: Sequence[tuple[UUID, UUID]]) -> None:
    """Evidence of these (call, attempt) was committed without its decision: the sweep brings it to the door again."""
    calls, attempts = [call for call, _ in kept], [attempt for _, attempt in kept]
    await connection.execute(_APPLY_LATER, {"workflow": workflow, "calls": calls, "attempts": attempts})


_OVERDUE: Final = """
SELECT count(*) AS n FROM dues d JOIN calls c ON c.workflow_id = d.workflow_id AND c.id = d.ref AND c.state = 'due'
WHERE d.kind = 'call' AND d.due_at <= clock_timestamp()"""


async def backlog(connection: Connection) -> int:
    """Calls that wait to be claimed."""
    row = await (await connection.execute(_OVERDUE)).fetchone()
    return 0 if row is None else int(row["n"])
