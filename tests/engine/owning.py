"""Owners of business keys and who is attached to them: how a test comes to both."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from app.domain import ids
from app.engine import cancel
from tests.engine.world import Answer, Worker, World, one, tool

KEY = "meeting:7"
UNDO = {"tool": "undo", "with": {"id": "${{ output.id }}"}}


def keyed(*, step: dict[str, Any] | None = None, n: int = 1, **more: Any) -> dict[str, Any]:
    definition = one("keyed", key=KEY, **more)
    definition["steps"]["s"] |= {"with": {"n": n}, **(step or {})}
    return definition


def undoable(*, fails: bool, **step: Any) -> dict[str, Any]:
    """Its effect can be undone; a second step fails if it is to."""
    definition = keyed(step={"compensate": UNDO, **step})
    definition["tools"] |= {"undo": tool("idempotent"), "fail": tool("read_only")}
    if fails:
        definition["steps"]["later"] = {"needs": ["s"], "tool": "fail", "with": {}}
    return definition


async def submit(world: World, name: str, definition: dict[str, Any] | None = None) -> UUID:
    return await world.submit(definition or keyed(), key=name)


async def owned(world: World, *answers: Answer) -> tuple[UUID, UUID, Worker]:
    """An owner that is due, and somebody attached to it."""
    world.tools.script["do"] = list(answers)
    worker = await world.worker()
    owner = await submit(world, "owner")
    waiter = await submit(world, "waiter")
    assert await held(world, waiter) == "attached"
    return owner, waiter, worker


async def held(world: World, workflow_id: UUID) -> str | None:
    reason = (await world.call(workflow_id, "s"))["held_reason"]
    return None if reason is None else str(reason)


async def statuses(world: World, *workflows: UUID) -> list[str]:
    return [(await world.workflow(each))["status"] for each in workflows]


async def go(world: World, worker: Worker) -> None:
    """Calls are made, and the sweep finds whoever was told: until nothing follows."""
    for _ in range(6):
        await world.run(worker)
        await world.sweep(worker)
    await world.run(worker)


def keys(world: World) -> list[str | None]:
    return [request.key for request in world.tools.sent("do")]


async def stop(world: World, workflow_id: UUID) -> None:
    await cancel.cancel(world.api, ids.DEFAULT_TENANT, workflow_id, reason=None, by="kim")
