"""The claim of Idempotency-Keys, in the transaction that accepts their workflows; who has a key already.

One statement claims the keys of a batch and reads what accepting them needs to know, so that a submission costs two
round trips. Keys are claimed in one order, so that two batches wait for each other one way only.

    claim   key by key: ours now, or somebody's; with the clock, and whether what was assumed still holds
    owners  who has them
    tools   the tenant's registered tools, with the fingerprint that `claim` compares
    clock   the database's
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import psycopg

from app.domain.outcomes import JSON

Connection = psycopg.AsyncConnection[dict[str, Any]]

ROUTE: Final = "POST /v1/workflows"
"""The route under which submissions keep their keys."""
ACCEPTED: Final = 202
"""What is answered, and answered again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """One submission that wants its key."""

    workflow_id: UUID
    tenant_id: UUID
    key: str
    fingerprint: str
    field_hashes: Mapping[str, str]
    definition: str
    """Digest of the document."""
    plan: str
    """Digest of the plan."""
    input: JSON
    labels: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    ours: bool
    """False: somebody has the key, perhaps an earlier one of the same batch."""
    tools: str
    """Fingerprint of the tenant's registered tools, now."""
    stored: bool
    """Document and plan are in the database."""
    input: JSON
    labels: Mapping[str, str]
    """Both as they will be read back: jsonb has an order of keys and spellings of numbers of its own."""
    now: datetime
    worker: bool
    """Some worker lives."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    fingerprint: str
    field_hashes: Mapping[str, str]
    workflow_id: UUID


# Everything a registration writes changes it, a repeated one of the same declaration, too.
_TOOLS: Final = """coalesce(encode(sha256(convert_to(string_agg(
    t.name || ' ' || t.digest || ' ' || t.updated_at, ',' ORDER BY t.name COLLATE "C"), 'UTF8')), 'hex'), '')"""

# `patience` is read before the first key is inserted, because the sort takes all of its input first; it ends with the
# transaction. The keys are compared with those of other tenants nowhere: the primary key begins with the tenant.
_CLAIM: Final = f"""
WITH asked AS MATERIALIZED (
  SELECT * FROM json_to_recordset(%(rows)s::json) AS x(n int, workflow_id uuid, tenant_id uuid, key text,
    fingerprint text, field_hashes jsonb, definition text, plan text, input jsonb, labels jsonb)
), patience AS MATERIALIZED (
  SELECT set_config('lock_timeout', %(wait)s, true) AS wait
), claimed AS (
  INSERT INTO idempotency_keys (tenant_id, route, key, fingerprint, field_hashes, workflow_id, response_status)
  SELECT tenant_id, %(route)s, key, fingerprint, field_hashes, workflow_id, {ACCEPTED} FROM asked, patience
  ORDER BY tenant_id, key COLLATE "C", n
  ON CONFLICT (tenant_id, route, key) DO NOTHING
  RETURNING workflow_id
)
SELECT c.workflow_id IS NOT NULL AS ours, registered.tools, a.input, a.labels, clock_timestamp() AS now,
  EXISTS (SELECT FROM definitions d WHERE d.tenant_id = a.tenant_id AND d.digest = a.definition)
  AND EXISTS (SELECT FROM plans p WHERE p.tenant_id = a.tenant_id AND p.digest = a.plan) AS stored,
  living.worker
FROM asked a
LEFT JOIN claimed c ON c.workflow_id = a.workflow_id
JOIN (
  SELECT of.tenant_id, (SELECT {_TOOLS} FROM tools t WHERE t.tenant_id = of.tenant_id) AS tools
  FROM (SELECT DISTINCT tenant_id FROM asked) AS of
) AS registered ON registered.tenant_id = a.tenant_id
CROSS JOIN (
  SELECT EXISTS (SELECT FROM workers w
    WHERE w.lost_at IS NULL AND w.stopped_at IS NULL AND w.lease_until > clock_timestamp()) AS worker
) AS living
ORDER BY a.n"""

_OWNERS: Final = """
SELECT a.n, k.fingerprint, k.field_hashes, k.workflow_id
FROM unnest(%(tenants)s::uuid[], %(keys)s::text[]) WITH ORDINALITY AS a(tenant_id, key, n)
JOIN idempotency_keys k ON k.tenant_id = a.tenant_id AND k.route = %(route)s AND k.key = a.key"""


async def claim(connection: Connection, asked: Sequence[Asked], *, wait: float) -> list[Claim]:
    """One answer for each, in their order. Waits for twins in flight up to `wait` seconds, then psycopg's
    LockNotAvailable; whatever else the transaction locks is waited for as long, until `patient`."""
    rows = [
        {
            "n": n,
            "workflow_id": str(one.workflow_id),
            "tenant_id": str(one.tenant_id),
            "key": one.key,
            "fingerprint": one.fingerprint,
            "field_hashes": one.field_hashes,
            "definition": one.definition,
            "plan": one.plan,
            "input": one.input,
            "labels": one.labels,
        }
        for n, one in enumerate(asked)
    ]
    wanted = {"rows": json.dumps(rows, separators=(",", ":")), "wait": f"{int(wait * 1000)}ms", "route": ROUTE}
    return [Claim(**row) for row in await (await connection.execute(_CLAIM, wanted)).fetchall()]


async def patient(connection: Connection) -> None:
    """From here on locks are waited for as long as it takes."""
    await connection.execute("SET LOCAL lock_timeout = 0")


async def owners(connection: Connection, places: Sequence[tuple[UUID, str]]) -> dict[tuple[UUID, str], Owner]:
    """(tenant, key) → who has it."""
    wanted = {"tenants": [tenant for tenant, _ in places], "keys": [key for _, key in places], "route": ROUTE}
    cursor = await connection.execute(_OWNERS, wanted)
    return {places[row.pop("n") - 1]: Owner(**row) for row in await cursor.fetchall()}


async def tools(connection: Connection, tenant_id: UUID) -> tuple[dict[str, JSON], str]:
    """The tenant's registered tools, name → declaration, and their fingerprint: of one instant."""
    cursor = await connection.execute(
        f"""SELECT coalesce(json_object_agg(t.name, t.declaration), '{{}}'::json) AS declarations,
            {_TOOLS} AS fingerprint FROM tools t WHERE t.tenant_id = %s""",
        (tenant_id,),
    )
    row = await cursor.fetchone()
    if row is None:
        raise LookupError("an aggregate returns its row")
    return row["declarations"], row["fingerprint"]


async def clock(connection: Connection) -> datetime:
    row = await (await connection.execute("SELECT clock_timestamp() AS now")).fetchone()
    if row is None:
        raise LookupError("the clock has a reading")
    now: datetime = row["now"]
    return now
