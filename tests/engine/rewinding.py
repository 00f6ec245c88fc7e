"""Worlds whose database was set back: the identity on record is another one's. `tests/e2e` rewinds a real one."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from app.engine import recover
from app.engine.recover import Recovered
from tests.engine.world import Worker, World, one, tool

MINUTE = timedelta(minutes=1)


async def restored(world: World) -> None:
    """As if these rows had come out of a backup: the identity that worked with them was another one."""
    await world.rows("DELETE FROM system WHERE name = 'identity'")
    await world.rows("INSERT INTO system (name, value) VALUES ('identity', 'before')")


async def recovered(world: World, **how: Any) -> Recovered:
    return await recover.recover(world.api, **{"since": MINUTE, "by": "kim", **how})


async def restored_with(world: World, effect: str, **more: Any) -> tuple[Worker, UUID]:
    worker = await world.worker()
    workflow_id = await world.submit(one(effect, **more))
    await restored(world)
    return worker, workflow_id


def steps(*names: str, tools: dict[str, str]) -> dict[str, Any]:
    """These tools one after the other."""
    chain: dict[str, Any] = {}
    for before, name in zip(["", *names], names, strict=False):
        chain[name] = {"tool": name, "with": {"n": 1}} | ({"needs": [before]} if before else {})
    return {
        "name": "chain",
        "tools": {name: tool(effect) for name, effect in tools.items()},
        "steps": chain,
    }
