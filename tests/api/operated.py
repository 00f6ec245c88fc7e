"""Workflows brought where an operator is needed, by a worker with scripted tools on the API's own database."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from app.domain import ids
from tests.engine import world as engine
from tests.engine.world import World

UNDOABLE: dict[str, Any] = {"compensate": {"tool": "undo", "with": {"id": "${{ output.id }}"}}}


def two(**more: Any) -> dict[str, Any]:
    """An effect that can be undone, then a step that may fail."""
    return {
        "name": "two",
        "tools": {
            "do": engine.tool("keyed", **UNDOABLE),
            "undo": engine.tool("idempotent"),
            "last": engine.tool("idempotent"),
        },
        "steps": {"s": {"tool": "do", "with": {"n": 1}}, "t": {"tool": "last", "needs": ["s"]}},
        **more,
    }


async def failed(world: World, **more: Any) -> UUID:
    """`s` was done, `t` failed, and what follows has followed."""
    world.tools.script["do"] = [{"id": 7}]
    world.tools.script["last"] = [engine.refused()]
    workflow_id = await world.submit(two(**more))
    await world.run(await world.worker())
    return workflow_id


async def effect_of(world: World, workflow_id: UUID, step: str = "s") -> str:
    return "/v1/effects/" + ids.encode("call", (await world.call(workflow_id, step))["id"])


async def audited(world: World) -> list[str]:
    return [row["action"] for row in await world.rows("SELECT action FROM audit ORDER BY at, id")]


async def doubts(world: World, count: int, **more: Any) -> list[UUID]:
    world.tools.script["do"] = [engine.unknown() for _ in range(count)]
    submitted = [await world.submit(engine.one("at_most_once", **more), key=f"k-{n}") for n in range(count)]
    await world.run(await world.worker())
    return submitted
