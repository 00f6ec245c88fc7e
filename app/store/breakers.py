"""The rows of `breakers`: read, locked, written, granted to a canary, and the dues of the calls that they hold.

Set-based, on a driver connection inside the engine's transaction. What follows from an outcome is decided in
`app/domain/breakers.py`; here is only who may be the canary, because that is a race. Who waits for a scope has a due
of kind `dependency` whose note is the scope; `ring_at` says when they are looked at, `due_at` since when they wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import psycopg

from app.domain.breakers import Breaker

Connection = psycopg.AsyncConnection[dict[str, Any]]
Place = tuple[UUID, str]
"""Tenant and scope."""

CLAIM_WITHIN: Final = timedelta(seconds=10)
"""A canary that is not claimed by then gives its place up; one that was has it while it is in flight."""
KEPT_FOR: Final = timedelta(minutes=10)
"""A row that closed and had nothing to count since is gone then."""
A_SECOND: Final = 50
"""Calls that are let go a second once a breaker has closed: a herd would knock over what has just got up."""

_NAMES: Final = tuple(name for name in Breaker.__slots__ if name not in ("tenant_id", "scope"))
_COLUMNS: Final = ", ".join(("tenant_id", "scope", *_NAMES))

_CLOCK: Final = "SELECT clock_timestamp() AS now"
_OPEN_ROWS: Final = """
INSERT INTO breakers (tenant_id, scope, state, window_began, tokens, refilled_at, updated_at)
SELECT x.tenant, x.scope, 'closed', now, %(burst)s, now, now
FROM unnest(%(tenants)s::uuid[], %(scopes)s::text[]) AS x(tenant, scope), (SELECT clock_timestamp() AS now) AS clock
ORDER BY x.tenant, x.scope ON CONFLICT DO NOTHING"""
_READ: Final = f"""
SELECT {_COLUMNS} FROM breakers
WHERE (tenant_id, scope) IN (SELECT * FROM unnest(%(tenants)s::uuid[], %(scopes)s::text[]))
ORDER BY tenant_id, scope"""
_WRITE: Final = f"""
UPDATE breakers SET {", ".join(f"{name} = %({name})s" for name in _NAMES)}
WHERE tenant_id = %(tenant_id)s AND scope = %(scope)s"""


async def clock(connection: Connection) -> datetime:
    row = await (await connection.execute(_CLOCK)).fetchone()
    if row is None:
        raise LookupError("the database has no clock")
    now: datetime = row["now"]
    return now


async def opened(connection: Connection, places: Sequence[Place], *, burst: int) -> None:
    """A row for each that has none yet."""
    await connection.execute(_OPEN_ROWS, {**_places(places), "burst": burst})


async def locked(connection: Connection, places: Sequence[Place]) -> dict[Place, Breaker]:
    """To be written, in one order, so that two batches wait for each other one way only."""
    return await _read(connection, places, " FOR UPDATE")


async def standing(connection: Connection, places: Sequence[Place]) -> dict[Place, Breaker]:
    """To be relied on until this transaction ends: who closes one waits, and then sees who was held because of it."""
    return await _read(connection, places, " FOR SHARE")


async def read(connection: Connection, places: Sequence[Place]) -> dict[Place, Breaker]:
    return await _read(connection, places, "")


async def _read(connection: Connection, places: Sequence[Place], lock: str) -> dict[Place, Breaker]:
    if not places:
        return {}
    rows = await (await connection.execute(_READ + lock, _places(places))).fetchall()
    return {(row["tenant_id"], row["scope"]): Breaker(**row) for row in rows}


async def write(connection: Connection, rows: Sequence[Breaker]) -> None:
    for row in rows:
        await connection.execute(_WRITE, asdict(row))


def _places(places: Sequence[Place]) -> dict[str, Any]:
    return {"tenants": [tenant for tenant, _ in places], "scopes": [scope for _, scope in places]}


# In flight: claimed, by a worker that is not lost, and within its time.
_GRANT: Final = """
UPDATE breakers b SET canary = %(call)s, canary_until = clock_timestamp() + %(within)s, updated_at = clock_timestamp(),
  state = CASE b.state WHEN 'open' THEN 'half_open' ELSE b.state END
WHERE b.tenant_id = %(tenant)s AND b.scope = %(scope)s AND b.state <> 'closed' AND b.until <= clock_timestamp()
  AND (b.canary IS NULL OR b.canary_until < clock_timestamp() AND NOT EXISTS (
    SELECT FROM calls c
    JOIN attempts a ON a.workflow_id = c.workflow_id AND a.call_id = c.id AND a.id = c.attempt_id
    JOIN workers w ON w.id = a.worker
    WHERE c.id = b.canary AND c.state = 'intended' AND w.lost_at IS NULL AND a.send_deadline > clock_timestamp()))
RETURNING b.scope"""


async def grant(connection: Connection, place: Place, *, call_id: UUID) -> bool:
    """Let this call through as the canary, if it is time for one and there is none. Of any number that ask one is."""
    tenant, scope = place
    asked = {"tenant": tenant, "scope": scope, "call": call_id, "within": CLAIM_WITHIN}
    return await (await connection.execute(_GRANT, asked)).fetchone() is not None


# Round-robin by tenant, oldest first; whoever is just being held or let go is not waited for, and has its own time.
_WAKE: Final = """
WITH waiting AS (
  SELECT kind, ref, tenant_id, due_at FROM dues
  WHERE kind = 'dependency' AND note = %(scope)s AND (%(tenant)s::uuid IS NULL OR tenant_id = %(tenant)s)
  FOR UPDATE SKIP LOCKED
), fair AS (
  SELECT *, row_number() OVER (PARTITION BY tenant_id ORDER BY due_at, ref) AS turn FROM waiting
), queue AS (
  SELECT *, row_number() OVER (ORDER BY turn, due_at, ref) - 1 AS place FROM fair
), woken AS (
  UPDATE dues d SET rung = 0, ring_at = clock_timestamp() + (q.place / %(a_second)s) * interval '1 second'
  FROM queue q WHERE d.kind = q.kind AND d.ref = q.ref RETURNING d.ref
)
SELECT count(*) AS calls FROM woken"""


async def wake(connection: Connection, place: Place, *, shared: UUID) -> int:
    """Its breaker closed: who waits for it goes on, not all at once. How many."""
    tenant, scope = place
    asked = {"scope": scope, "tenant": None if tenant == shared else tenant, "a_second": A_SECOND}
    row = await (await connection.execute(_WAKE, asked)).fetchone()
    return 0 if row is None else int(row["calls"])


_WAKE_STRANGERS: Final = """
WITH waiting AS (
  SELECT kind, ref FROM dues WHERE kind = 'dependency' AND note LIKE 'model:%%' AND NOT starts_with(note, %(mine)s)
  FOR UPDATE SKIP LOCKED
), queue AS (
  SELECT *, row_number() OVER (ORDER BY ref) - 1 AS place FROM waiting
)
UPDATE dues d SET rung = 0, ring_at = least(d.ring_at,
  clock_timestamp() + (q.place / %(a_second)s) * interval '1 second')
FROM queue q WHERE d.kind = q.kind AND d.ref = q.ref"""


async def wake_of_others(connection: Connection, *, credential: str) -> None:
    """A worker with this credential is there: calls that wait because of another one may be its to make."""
    await connection.execute(_WAKE_STRANGERS, {"mine": f"model:{credential}/", "a_second": A_SECOND})


# --- the sweep ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiting:
    """A held call whose time to be looked at has come."""

    ref: UUID
    tenant_id: UUID
    workflow_id: UUID
    scope: str
    since: datetime
    step: str
    quota: bool


_RIPE: Final = """
SELECT d.ref, d.tenant_id, d.workflow_id, d.note AS scope, d.due_at AS since, c.step,
  coalesce(c.held_reason = 'quota', false) AS quota
FROM dues d JOIN calls c ON c.workflow_id = d.workflow_id AND c.id = d.ref
WHERE d.kind = 'dependency' AND d.ring_at <= statement_timestamp()
ORDER BY d.ring_at LIMIT %(limit)s
FOR UPDATE OF d SKIP LOCKED"""

_PUT_OFF: Final = """
UPDATE dues d SET ring_at = x.at, rung = 1 FROM unnest(%(refs)s::uuid[], %(at)s::timestamptz[]) AS x(ref, at)
WHERE d.kind = 'dependency' AND d.ref = x.ref"""

_TIDY: Final = "DELETE FROM breakers WHERE state = 'closed' AND updated_at < clock_timestamp() - %(kept)s"


async def ripe(connection: Connection, *, limit: int) -> list[Waiting]:
    rows = await (await connection.execute(_RIPE, {"limit": limit})).fetchall()
    return [Waiting(**row) for row in rows]


async def put_off(connection: Connection, until: Sequence[tuple[UUID, datetime]]) -> None:
    if until:
        await connection.execute(_PUT_OFF, {"refs": [ref for ref, _ in until], "at": [at for _, at in until]})


async def tidy(connection: Connection) -> None:
    await connection.execute(_TIDY, {"kept": KEPT_FOR})


# --- operators ------------------------------------------------------------------------------------------------------

_LISTED: Final = f"""
SELECT {_COLUMNS} FROM breakers WHERE tenant_id IN (%(tenant)s, %(shared)s) ORDER BY state = 'closed', scope"""
_HELD: Final = """
SELECT note, count(*) AS held FROM dues WHERE kind = 'dependency' AND tenant_id = %(tenant)s GROUP BY note"""
_RESET: Final = "DELETE FROM breakers WHERE tenant_id = %(tenant)s AND scope = %(scope)s RETURNING scope"
_UNBLOCK: Final = "DELETE FROM limits WHERE scope = %(scope)s RETURNING scope"
_AUDIT: Final = """
INSERT INTO audit (id, tenant_id, actor, action, object, data)
VALUES (%(id)s, %(tenant)s, %(by)s, 'breaker.reset', %(scope)s,
  jsonb_build_object('calls', %(calls)s::int, 'note', %(note)s::text))"""


async def listed(connection: Connection, *, tenant_id: UUID, shared: UUID) -> list[Breaker]:
    rows = await (await connection.execute(_LISTED, {"tenant": tenant_id, "shared": shared})).fetchall()
    return [Breaker(**row) for row in rows]


async def held(connection: Connection, *, tenant_id: UUID) -> dict[str, int]:
    """Scope → how many of the tenant's calls wait for it."""
    rows = await (await connection.execute(_HELD, {"tenant": tenant_id})).fetchall()
    return {row["note"]: int(row["held"]) for row in rows}


async def reset(
    connection: Connection, place: Place, *, shared: UUID, tenant_id: UUID, by: str, note: str | None, audit_id: UUID
) -> int | None:
    """Nothing is known of it any more. How many calls waited; None: there was nothing."""
    tenant, scope = place
    gone = await (await connection.execute(_RESET, {"tenant": tenant, "scope": scope})).fetchone()
    if tenant == shared:
        gone = await (await connection.execute(_UNBLOCK, {"scope": scope})).fetchone() or gone
    calls = await wake(connection, place, shared=shared)
    if gone is None and not calls:
        return None
    asked = {"id": audit_id, "tenant": tenant_id, "by": by, "scope": scope, "calls": calls, "note": note}
    await connection.execute(_AUDIT, asked)
    return calls
