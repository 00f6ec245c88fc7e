"""A thousand workflows in the same state for the price of one: a workflow's rows, copied under other ids.

For races, which want the same moment again and again. A copy is what submitting and claiming again would have left,
but for its ids: `new id = md5(old id / number)`, the same for every row that refers to it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from app.store.claims import Claimed
from tests.engine.world import World

IDS: Final = {
    "workflows": ("id",),
    "steps": ("workflow_id",),
    "calls": ("workflow_id", "id", "attempt_id", "retry_of", "target", "probe_id"),
    "attempts": ("workflow_id", "call_id", "id"),
    "approvals": ("workflow_id", "id", "call_id"),
    "events": ("workflow_id", "id", "call_id", "attempt_id"),
    "payloads": ("workflow_id",),
    "dues": ("workflow_id", "ref"),
    "effect_keys": ("workflow_id", "call_id"),
}
"""Table → its columns that hold ids; in the order of their foreign keys."""

KEY: Final = "the-key"
"""A business key in the input of a workflow, which each copy has as a key of its own."""


@dataclass(frozen=True, kw_only=True)
class Clone:
    n: int
    workflow_id: UUID
    tenant_id: UUID | None = None
    """Its own, if each copy was to have one."""

    def of(self, original: UUID) -> UUID:
        """This copy's row of that of the original."""
        return _copied(original, self.n)

    def claimed(self, original: Claimed) -> Claimed:
        return replace(
            original,
            workflow_id=self.workflow_id,
            call_id=self.of(original.call_id),
            attempt_id=self.of(original.attempt_id),
        )


async def clones(world: World, workflow_id: UUID, count: int, *, tenants: bool = False) -> list[Clone]:
    """Copies 1 to `count`; with `tenants` each belongs to another tenant."""
    for table, columns in IDS.items():
        changed = {column: f"md5(t.{column}::text || '/' || g.copy)::uuid" for column in columns}
        if tenants:
            changed["tenant_id"] = "md5(t.tenant_id::text || '/' || g.copy)::uuid"
        if table == "workflows":
            changed["input"] = f"replace(t.input::text, '{KEY}', '{KEY}/' || g.copy)::jsonb"
        if table == "calls":
            changed["request"] = f"replace(t.request::text, '{KEY}', '{KEY}/' || g.copy)::json"
            changed["key"] = f"replace(t.key, '{KEY}', '{KEY}/' || g.copy)"
        if table == "effect_keys":
            changed["key"] = f"replace(t.key, '{KEY}', '{KEY}/' || g.copy)"
        pairs = ", ".join(f"'{column}', {value}" for column, value in changed.items())
        whose = "id" if table == "workflows" else "workflow_id"
        await world.rows(
            f"INSERT INTO {table} SELECT (jsonb_populate_record(t, jsonb_build_object({pairs}))).* "
            f"FROM {table} t, generate_series(1, %s) AS g(copy) WHERE t.{whose} = %s",
            count,
            workflow_id,
        )
    if tenants:
        await world.rows(
            "INSERT INTO plans SELECT md5(p.tenant_id::text || '/' || g.copy)::uuid, p.digest, p.body, p.created_at "
            "FROM plans p, generate_series(1, %s) AS g(copy)",
            count,
        )
    tenant = (await world.workflow(workflow_id))["tenant_id"]
    return [
        Clone(n=n, workflow_id=_copied(workflow_id, n), tenant_id=_copied(tenant, n) if tenants else None)
        for n in range(1, count + 1)
    ]


def _copied(original: UUID, n: int) -> UUID:
    # The same id in Python and in SQL, not a secret.
    return UUID(hex=hashlib.md5(f"{original}/{n}".encode(), usedforsecurity=False).hexdigest())
