"""An operator ends items of a for_each by hand, or all of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.engine import resolve
from tests.engine.operations import (
    TENANT,
    call_states,
    each,
    ended,
    expect_refusal,
    expect_the_laws,
    operated,
    paused,
    seen,
    then,
)
from tests.engine.world import World, says, tool, unknown


@pytest.fixture
async def lawful(small_world: World) -> AsyncIterator[World]:
    yield small_world
    await expect_the_laws(small_world)


async def test_one_item_is_skipped_and_another_completed_and_the_next_ones_begin(lawful: World) -> None:
    worker = await lawful.worker()
    workflow_id = await lawful.submit(each(), input={"list": [1, 2, 3, 4]})

    await expect_refusal(operated(lawful, workflow_id, "s.3", "skip"), ["wait", "operate the whole step"])
    await operated(lawful, workflow_id, "s.0", "skip")
    await operated(lawful, workflow_id, "s.1", "complete", output="by hand")
    begun = await call_states(lawful, workflow_id)
    await lawful.run(worker)

    assert begun == {"s.0#1": "cancelled", "s.1#1": "cancelled", "s.2#1": "due", "s.3#1": "due"}
    assert (await lawful.step(workflow_id, "s"))["output"] == [None, "by hand", {"ok": True}, {"ok": True}]
    assert await ended(lawful, workflow_id) == ("succeeded", 3, 0)


async def test_item_failed_by_hand_fails_its_step_when_the_others_are_done(lawful: World) -> None:
    worker = await lawful.worker()
    workflow_id = await lawful.submit(each(), input={"list": [1, 2, 3]})

    await operated(lawful, workflow_id, "s.0", "fail")
    await lawful.run(worker)

    workflow = await lawful.workflow(workflow_id)
    assert (workflow["status"], workflow["failure"]["kind"]) == ("failed", "item_failures_exceeded")
    assert len(lawful.tools.ledger) == 1


@pytest.mark.parametrize(("action", "output"), [("skip", None), ("complete", [1, 2])])
async def test_whole_for_each_is_ended_by_hand_with_its_items(lawful: World, action: str, output: Any) -> None:
    worker = await lawful.worker()
    workflow_id = await lawful.submit(each(), input={"list": [1, 2, 3]})
    await worker.run((await lawful.call(workflow_id, "s.0"))["id"])

    await operated(lawful, workflow_id, "s", action, output=output)
    await lawful.run(worker)

    items = await lawful.rows("SELECT state FROM steps WHERE parent = 's' ORDER BY item_index")
    assert [item["state"] for item in items] == ["succeeded", "cancelled", "cancelled"]
    assert (await seen(lawful, workflow_id))[0] == output
    assert (await ended(lawful, workflow_id), len(lawful.tools.ledger)) == (("succeeded", 3, 0), 1)


async def test_whole_for_each_is_not_ended_by_hand_while_one_item_is_in_doubt(lawful: World) -> None:
    lawful.tools.script["do"] = [unknown()]
    worker = await lawful.worker()
    workflow_id = await lawful.submit(each(), input={"list": [1, 2]})
    await worker.run((await lawful.call(workflow_id, "s.0"))["id"])

    await expect_refusal(operated(lawful, workflow_id, "s", "skip"), ["resolve"])
    await operated(lawful, workflow_id, "s.1", "skip")
    doubt = await lawful.call(workflow_id, "s.0")
    await resolve.resolve(lawful.api, TENANT, doubt["id"], outcome="happened", result=7, note="there", by="kim")

    assert (await seen(lawful, workflow_id))[0] == [7, None]


async def test_agent_items_are_ended_by_hand_between_their_turns(lawful: World) -> None:
    worker = await lawful.worker()
    step = {"for_each": "${{ input.list }}", "agent": {"model": "fast"}, "prompt": "Go."}
    lawful.model.answers = [says("one")]
    workflow_id = await lawful.submit(then(step, {}), input={"list": [1, 2]})
    await worker.run((await lawful.call(workflow_id, "s.0"))["id"])

    await operated(lawful, workflow_id, "s.1", "complete", output="two")

    assert (await seen(lawful, workflow_id))[0] == ["one", "two"]


async def test_step_of_a_paused_workflow_is_completed_and_what_follows_is_held(lawful: World) -> None:
    steps = {"s": {"tool": "do", "with": {}}, "b": {"tool": "do", "with": {}, "needs": ["s"]}}
    workflow_id = await lawful.submit({"name": "p", "tools": {"do": tool("at_most_once")}, "steps": steps})

    await paused(lawful, workflow_id)
    await operated(lawful, workflow_id, "s", "complete", output=1)

    assert await call_states(lawful, workflow_id) == {"s#1": "cancelled", "b#1": "held(pause)"}
