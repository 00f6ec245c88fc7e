"""A failure that is held for an operator: after a pivot, or because the definition says so."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from app.domain import ids
from app.engine import retry
from app.errors import NotPossible
from tests.engine.sagas import (
    decide_saga,
    ended,
    fails,
    made,
    play,
    script,
    stop,
    submitted,
    undoable,
)
from tests.engine.walking import keeps_its_laws
from tests.engine.world import World

EACH = {"for_each": "${{ input.list }}", "max_parallel": 50, "tool": "make", "with": {"n": "${{ item }}"}}


@pytest.fixture
async def small_world(small_world: World) -> AsyncIterator[World]:
    """Whatever a test does: its rows are judged in the end."""
    yield small_world
    await keeps_its_laws(small_world)


# --- holding -------------------------------------------------------------------------------------------------------

PIVOTED = {"a": made(1), "b": made(2, "a", pivot=True), "c": fails("b")}


async def held(world: World, definition: dict[str, Any]) -> UUID:
    script(world)
    workflow_id = await submitted(world, definition)
    await play(world, await world.worker("before"))
    return workflow_id


async def test_failure_after_a_pivot_is_held_for_an_operator(small_world: World) -> None:
    workflow_id = await held(small_world, undoable(PIVOTED))

    workflow = await small_world.workflow(workflow_id)
    assert (workflow["status"], workflow["saga"], workflow["attention"]) == ("failing", "held", ["failure_held"])
    assert workflow["waits"] == 1
    assert "workflow.held" in await small_world.events(workflow_id)
    assert small_world.tools.sent("undo") == []


@pytest.mark.parametrize(("mode", "sent", "compensation"), [("undo", 2, "done"), ("keep", 0, "skipped")])
async def test_operator_decides_what_becomes_of_a_held_failure(
    small_world: World, mode: str, sent: int, compensation: str
) -> None:
    workflow_id = await held(small_world, undoable(PIVOTED))

    await decide_saga(small_world, workflow_id, mode)
    await decide_saga(small_world, workflow_id, mode)
    await play(small_world, await small_world.worker())

    workflow = await small_world.workflow(workflow_id)
    assert await ended(small_world, workflow_id) == ("failed", compensation)
    assert (workflow["waits"], workflow["attention"]) == (0, [])
    assert len(small_world.tools.sent("undo")) == sent
    audited = await small_world.rows("SELECT action FROM audit WHERE action IN ('workflow.undo', 'workflow.keep')")
    assert [row["action"] for row in audited] == [f"workflow.{mode}"]
    with pytest.raises(NotPossible):
        await decide_saga(small_world, workflow_id, "keep" if mode == "undo" else "undo")


async def test_held_failure_goes_forward_when_it_is_retried(small_world: World) -> None:
    workflow_id = await held(small_world, undoable(PIVOTED))

    await retry.retry(small_world.api, ids.DEFAULT_TENANT, workflow_id, note=None, by="kim")
    await play(small_world, await small_world.worker())

    workflow = await small_world.workflow(workflow_id)
    assert (workflow["status"], workflow["saga"], workflow["waits"]) == ("succeeded", None, 0)
    assert len(small_world.tools.sent("make")) == 2
    assert small_world.tools.sent("undo") == []


async def test_cancel_of_a_held_failure_asks_again_because_the_pivot_is_passed(small_world: World) -> None:
    workflow_id = await held(small_world, undoable(PIVOTED))

    await stop(small_world, workflow_id)
    workflow = await small_world.workflow(workflow_id)
    await decide_saga(small_world, workflow_id, "undo")
    await play(small_world, await small_world.worker())

    assert (workflow["status"], workflow["saga"], workflow["waits"]) == ("cancelling", "held", 1)
    assert workflow["attention"] == ["failure_held"]
    assert await ended(small_world, workflow_id) == ("cancelled", "done")


async def test_failure_before_the_pivot_is_undone_without_asking(small_world: World) -> None:
    workflow_id = await held(small_world, undoable({"a": made(1), "b": fails("a"), "c": made(2, "b", pivot=True)}))

    assert await ended(small_world, workflow_id) == ("failed", "done")


async def test_definition_that_holds_every_failure_asks_but_a_cancel_undoes(small_world: World) -> None:
    workflow_id = await held(small_world, undoable({"a": made(1), "b": fails("a")}, on_failure="hold"))
    waiting = await small_world.workflow(workflow_id)

    await stop(small_world, workflow_id)
    await play(small_world, await small_world.worker())

    assert (waiting["status"], waiting["saga"]) == ("failing", "held")
    assert await ended(small_world, workflow_id) == ("cancelled", "done")


async def test_failure_with_nothing_to_undo_is_not_held(small_world: World) -> None:
    workflow_id = await held(small_world, undoable({"b": fails()}, on_failure="hold"))

    assert await ended(small_world, workflow_id) == ("failed", "not_needed")


async def test_workflow_that_was_undone_in_part_cannot_be_retried(small_world: World) -> None:
    workflow_id = await held(small_world, undoable({"a": made(1), "b": fails("a")}))

    with pytest.raises(NotPossible):
        await retry.retry(small_world.api, ids.DEFAULT_TENANT, workflow_id, note=None, by="kim")

    assert await ended(small_world, workflow_id) == ("failed", "done")


async def test_items_of_a_workflow_that_fails_again_as_soon_as_it_is_retried_are_cancelled_again(
    small_world: World,
) -> None:
    worker = await small_world.worker()
    steps = {
        "each": {**EACH, "max_parallel": 1},
        "gate": {"tool": "look", "with": {}},
        "bad": {"set": {"x": "${{ input.list[9] }}"}, "needs": ["gate"]},
    }
    workflow_id = await submitted(small_world, undoable(steps), list=[1, 2, 3])
    await worker.run((await small_world.call(workflow_id, "gate"))["id"])

    await retry.retry(small_world.api, ids.DEFAULT_TENANT, workflow_id, note=None, by="kim")

    assert await ended(small_world, workflow_id) == ("failed", "not_needed")
    assert "workflow.reopened" in await small_world.events(workflow_id)
    items = await small_world.rows("SELECT state FROM steps WHERE parent = 'each'")
    assert [item["state"] for item in items] == ["cancelled"] * 3
