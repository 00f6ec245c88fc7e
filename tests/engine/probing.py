"""Effects that are probed: how a test comes to one."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from app.store.claims import Claimed
from tests.engine.world import Answer, Worker, World, probed, unknown

THERE = {"found": True, "id": 7}
ABSENT = {"found": False}
FAR = "10m"
"""A settle_time that no test lives to see the end of."""


async def probing(world: World, *answers: Answer, definition: dict[str, Any] | None = None) -> tuple[UUID, Worker]:
    """A workflow whose effect went out and is unknown: its first probe is due, and gets these answers."""
    world.tools.script |= {"do": [unknown()], "look": list(answers)}
    worker = await world.worker()
    workflow_id = await world.submit(definition or probed(settle_time=FAR))
    await world.once(worker)
    return workflow_id, worker


async def state(world: World, workflow_id: UUID) -> str:
    return str((await world.call(workflow_id, "s"))["state"])


async def next_probe(world: World) -> dict[str, Any]:
    return await world.row("SELECT * FROM calls WHERE kind = 'probe' AND ended_at IS NULL")


async def pause_of(world: World) -> float:
    """How long until the next probe, from the decision on."""
    row = await world.row(
        "SELECT extract(epoch FROM d.due_at - c.created_at) AS s FROM dues d JOIN calls c ON c.id = d.ref "
        "WHERE d.kind = 'call' AND c.kind = 'probe'"
    )
    return float(row["s"])


async def lost_effect(world: World, *, proof: bool = False, **more: Any) -> tuple[UUID, Claimed, Worker]:
    """A worker claims the effect and is gone; another one looks."""
    doomed, survivor = await world.worker("doomed"), await world.worker("survivor")
    workflow_id = await world.submit(probed(**{"settle_time": FAR, **more}))
    [call_id] = await world.due_calls()
    claimed = await doomed.claim(call_id)
    await world.lose(doomed, proof=proof)
    await world.sweep(survivor)
    return workflow_id, claimed, survivor


async def lost_and_probing(world: World, **more: Any) -> tuple[UUID, Claimed, Worker]:
    workflow_id, claimed, survivor = await lost_effect(world, proof=True, **more)
    assert await state(world, workflow_id) == "probing"
    return workflow_id, claimed, survivor
