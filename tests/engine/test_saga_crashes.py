"""A worker that dies while it undoes, at every boundary of claim, perform and record, judged by the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from app.domain import ids
from app.engine import resolve
from tests.engine.sagas import (
    compensations,
    ended,
    fails,
    made,
    play,
    probed,
    script,
    submitted,
    undoable,
)
from tests.engine.walking import keeps_its_laws
from tests.engine.world import Answer, Worker, World, unknown


@pytest.fixture
async def small_world(small_world: World) -> AsyncIterator[World]:
    """Whatever a test does: its rows are judged in the end."""
    yield small_world
    await keeps_its_laws(small_world)


async def resolved(world: World, call_id: UUID, outcome: str) -> None:
    await resolve.resolve(world.api, ids.DEFAULT_TENANT, call_id, outcome=outcome, result=None, note="looked", by="kim")


async def states(world: World, workflow_id: UUID) -> list[str]:
    return [call["state"] for call in await compensations(world, workflow_id)]


# --- crashes -------------------------------------------------------------------------------------------------------

BOUNDARIES = ["before the claim", "after the claim", "after the request left", "after the record"]


async def die(world: World, doomed: Worker, call_id: UUID, name: str, boundary: str) -> None:
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

            world.tools.script[name] = [lambda _: never(), *world.tools.script.get(name, [])]
            running = asyncio.create_task(doomed.run(call_id))
            await left.wait()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        case "after the record":
            await doomed.run(call_id)


async def heal(world: World, survivor: Worker, doomed: Worker, *, witnessed: bool) -> None:
    await world.lose(doomed, proof=witnessed)
    await world.sweep(survivor)
    if not witnessed:
        await world.silence()
        await world.sweep(survivor)
    await play(world, survivor)


@pytest.mark.parametrize("witnessed", [True, False], ids=["witnessed", "by its lease"])
@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("by", ["idempotent", "keyed", "checkable", "at_most_once"])
async def test_worker_that_dies_undoing_costs_no_undo_and_repeats_none_that_may_not_be(
    small_world: World, by: str, boundary: str, witnessed: bool
) -> None:
    script(small_world)
    doomed, survivor = await small_world.worker("doomed"), await small_world.worker("survivor")
    happened = boundary == "after the request left"
    small_world.tools.script["look"] = [{"gone": happened}] * 50
    definition = probed(by) if by == "checkable" else undoable({"a": made(1), "b": fails("a")}, effect="keyed", by=by)
    workflow_id = await submitted(small_world, definition)
    for step in ("a", "b"):
        await survivor.run((await small_world.call(workflow_id, step))["id"])
    [undo] = await compensations(small_world, workflow_id)

    await die(small_world, doomed, undo["id"], "undo", boundary)
    if by == "checkable" and boundary == "after the claim":
        await small_world.lose(doomed, proof=witnessed)
        await small_world.silence()
        await small_world.sweep(survivor)
        await small_world.end_quarantines()
    await heal(small_world, survivor, doomed, witnessed=witnessed)

    if by == "at_most_once" and boundary in ("after the claim", "after the request left"):
        assert await states(small_world, workflow_id) == ["in_doubt"]
        await small_world.end_quarantines()
        await resolved(small_world, undo["id"], "happened" if happened else "did_not_happen")
        await play(small_world, survivor)
    assert await ended(small_world, workflow_id) == ("failed", "done")
    sent = small_world.tools.sent("undo")
    assert len(sent) == (2 if happened and by in ("idempotent", "keyed") else 1)
    assert len({(request.key, str(request.arguments)) for request in sent}) == 1
    assert {request.key for request in sent} & {request.key for request in small_world.tools.sent("make")} <= {None}
    assert await small_world.rows("SELECT * FROM dues") == []


@pytest.mark.parametrize("boundary", BOUNDARIES)
async def test_worker_that_dies_probing_an_undo_costs_neither_the_answer_nor_a_second_undo(
    small_world: World, boundary: str
) -> None:
    script(small_world)
    doomed, survivor = await small_world.worker("doomed"), await small_world.worker("survivor")
    small_world.tools.script |= {"undo": [unknown()], "look": [{"gone": True}] * 3}
    workflow_id = await submitted(small_world, probed())
    for step in ("a", "b"):
        await survivor.run((await small_world.call(workflow_id, step))["id"])
    [undo] = await compensations(small_world, workflow_id)
    await survivor.run(undo["id"])
    probe = await small_world.row("SELECT id FROM calls WHERE kind = 'probe'")

    await die(small_world, doomed, probe["id"], "look", boundary)
    await heal(small_world, survivor, doomed, witnessed=True)

    assert await ended(small_world, workflow_id) == ("failed", "done")
    assert len(small_world.tools.sent("undo")) == 1
    assert await small_world.rows("SELECT * FROM dues") == []
