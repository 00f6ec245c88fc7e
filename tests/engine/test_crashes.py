"""A crash is a call not made: at each boundary of claim, perform and record, for each class, witnessed or not.

Nothing is mocked away: the process is made to stop at that line, what it has committed stays, and another worker's
sweep has to heal it. The tool's ledger says what really left.
"""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest

from app.domain.states import EARLY_CLASSES, EffectClass
from tests.engine.world import Answer, Worker, World, settle, tool

CLASSES = ["read_only", "idempotent", "keyed", "at_most_once"]
BOUNDARIES = ["before the claim", "after the claim", "after the request left", "after the record"]


def two_steps(effect: str) -> dict[str, Any]:
    return {
        "name": "two",
        "tools": {"do": tool(effect), "then": tool("idempotent")},
        "steps": {"s": {"tool": "do", "with": {"n": 1}}, "t": {"needs": ["s"], "tool": "then", "with": {}}},
    }


async def die(world: World, doomed: Worker, call_id: UUID, boundary: str) -> None:
    """Run the call up to that line, and not one further."""
    match boundary:
        case "before the claim":
            return
        case "after the claim":
            await doomed.claim(call_id)
        case "after the request left":
            left = asyncio.Event()

            async def never() -> Answer:
                left.set()
                await asyncio.Event().wait()

            world.tools.script["do"] = [lambda _: never()]
            running = asyncio.create_task(doomed.run(call_id))
            await left.wait()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        case "after the record":
            await doomed.run(call_id)  # nobody hears this world's bell: the next call's doorbell is lost with it


async def heal(world: World, survivor: Worker, doomed: Worker, *, witnessed: bool) -> None:
    await world.lose(doomed, proof=witnessed)
    await world.sweep(survivor)
    if not witnessed:
        await world.silence()
        await world.sweep(survivor)
    await world.run(survivor)


@pytest.mark.parametrize("witnessed", [True, False], ids=["witnessed", "by its lease"])
@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("effect", CLASSES)
async def test_worker_that_dies_costs_no_call_and_repeats_none_that_may_not_be(
    small_world: World, effect: str, boundary: str, witnessed: bool
) -> None:
    doomed, survivor = await small_world.worker("doomed"), await small_world.worker("survivor")
    workflow_id = await small_world.submit(two_steps(effect))
    [call_id] = await small_world.due_calls()

    await die(small_world, doomed, call_id, boundary)
    await heal(small_world, survivor, doomed, witnessed=witnessed)

    sent = small_world.tools.sent("do")
    may_have_left = boundary in ("after the claim", "after the request left")
    if EffectClass(effect) in EARLY_CLASSES or not may_have_left:
        assert (await small_world.workflow(workflow_id))["status"] == "succeeded"
        assert len(sent) == (2 if boundary == "after the request left" else 1)
        assert len({(request.key, str(request.arguments)) for request in sent}) == 1
    else:
        assert (await small_world.call(workflow_id, "s"))["state"] == "in_doubt"
        happened = boundary == "after the request left"
        assert len(sent) == happened
        await small_world.end_quarantines()
        await settle(small_world, workflow_id, "happened" if happened else "did_not_happen")
        await small_world.run(survivor)
        assert (await small_world.workflow(workflow_id))["status"] == "succeeded"
        assert len(small_world.tools.sent("do")) == 1
    assert await small_world.rows("SELECT * FROM dues") == []


async def test_api_that_dies_after_the_commit_leaves_a_workflow_that_runs(small_world: World) -> None:
    survivor = await small_world.worker("survivor")

    workflow_id = await small_world.submit(two_steps("idempotent"))
    small_world.bell.rung.clear()
    await small_world.rows("UPDATE dues SET ring_at = clock_timestamp() WHERE kind = 'call'")
    swept = await small_world.sweep(survivor)
    await small_world.run(survivor)

    assert len(swept.calls) == 1
    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"
