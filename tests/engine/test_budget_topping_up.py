"""A budget that is used up and one that is topped up: what waits goes on, what failed is retried, nothing is added
twice."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from app.domain import ids
from app.engine import pause, retry
from app.errors import IdempotencyKeyReused, NotFound, NotPossible
from tests.engine.budgeted import account, agent, give, reserved, spent
from tests.engine.world import World, tool, uses

LOOK = {"look": tool("read_only")}
PAUSE = {"on_exceeded": "pause"}


async def test_call_waits_for_a_person_when_the_budget_says_pause(small_world: World) -> None:
    worker = await small_world.worker()
    small_world.model.answers = [uses(("look", {"n": n})) for n in range(3)] + ["done"]

    workflow_id = await small_world.submit(agent({"turns": 2, **PAUSE}, tools=LOOK))
    await small_world.run(worker)

    workflow, call = await small_world.workflow(workflow_id), await small_world.call(workflow_id, "a", 5)
    assert (workflow["status"], workflow["attention"]) == ("waiting", ["budget_80", "budget_exceeded"])
    assert (call["state"], call["held_reason"], call["failure"]["kind"]) == ("held", "budget", "budget_exceeded")
    assert reserved(await account(small_world, workflow_id)) == (0, 0, 0, 0)
    assert len(small_world.model.requests) == 2


async def test_workflow_goes_on_when_its_budget_is_topped_up(small_world: World) -> None:
    worker = await small_world.worker()
    small_world.model.answers = [uses(("look", {"n": n})) for n in range(3)] + ["done"]
    workflow_id = await small_world.submit(agent({"turns": 2, **PAUSE}, tools=LOOK))
    await small_world.run(worker)

    await give(small_world, workflow_id, turns=2)
    topped = await small_world.workflow(workflow_id)
    await small_world.run(worker)

    workflow = await small_world.workflow(workflow_id)
    assert (topped["status"], topped["attention"]) == ("running", [])
    assert (workflow["status"], spent(await account(small_world, workflow_id))[2]) == ("succeeded", 4)
    told = await small_world.row("SELECT data FROM events WHERE type = 'workflow.budget.changed'")
    assert told["data"] == {"scope": "workflow", "added": {"turns": 2}, "by": "kim", "note": "more"}
    audit = await small_world.row("SELECT actor, action FROM audit WHERE action = 'workflow.budget'")
    assert audit["actor"] == "kim"


async def test_call_stays_held_when_what_was_given_is_still_too_little(small_world: World) -> None:
    worker = await small_world.worker()
    workflow_id = await small_world.submit(agent({"usd": "0.00001", **PAUSE}))
    await small_world.run(worker)

    await give(small_world, workflow_id, microusd=1)
    await small_world.run(worker)

    assert (await small_world.call(workflow_id, "a"))["held_reason"] == "budget"
    assert "budget_exceeded" in (await small_world.workflow(workflow_id))["attention"]
    assert small_world.model.requests == []


async def test_same_key_tops_up_once_and_another_amount_under_it_is_refused(small_world: World) -> None:
    workflow_id = await small_world.submit(agent({"turns": 2}))

    first = await give(small_world, workflow_id, key="k", turns=3)
    again = await give(small_world, workflow_id, key="k", turns=3)
    with pytest.raises(IdempotencyKeyReused):
        await give(small_world, workflow_id, key="k", turns=4)

    assert (first, again) == (False, True)
    assert (await account(small_world, workflow_id))["limit_turns"] == 5


async def test_failed_workflow_is_retried_after_its_budget_was_topped_up_and_not_before(small_world: World) -> None:
    worker = await small_world.worker()
    small_world.model.answers = [uses(("look", {"n": 1})), uses(("look", {"n": 2})), "done"]
    workflow_id = await small_world.submit(agent({"turns": 1}, tools=LOOK))
    await small_world.run(worker)
    assert (await small_world.workflow(workflow_id))["status"] == "failed"

    with pytest.raises(NotPossible) as refused:
        await retry.retry(small_world.api, ids.DEFAULT_TENANT, workflow_id, note=None, by="kim")
    await give(small_world, workflow_id, turns=2)
    await retry.retry(small_world.api, ids.DEFAULT_TENANT, workflow_id, note=None, by="kim")
    await small_world.run(worker)

    assert "surefoot budget wf_" in (refused.value.how or "")
    workflow, row = await small_world.workflow(workflow_id), await account(small_world, workflow_id)
    assert (workflow["status"], workflow["output"]) == ("succeeded", None)
    # The call that was refused is made again as a changed one, and counts as the turn that it never had.
    assert (spent(row)[2], reserved(row), len(small_world.model.requests)) == (3, (0, 0, 0, 0), 3)


@pytest.mark.parametrize(
    ("definition", "given", "says"),
    [
        (agent(), {"turns": 1}, "has no budget"),
        (agent({"turns": 1}), {"microusd": 1}, "does not limit usd"),
        (agent({"turns": 1}), {"turns": 1, "step": "a"}, "step a has no budget"),
    ],
    ids=["none", "another measure", "another scope"],
)
async def test_top_up_is_refused_when_there_is_no_such_limit(
    small_world: World, definition: dict[str, Any], given: dict[str, Any], says: str
) -> None:
    workflow_id = await small_world.submit(definition)

    with pytest.raises(NotPossible, match=says):
        await give(small_world, workflow_id, **given)

    assert await small_world.rows("SELECT * FROM idempotency_keys WHERE route LIKE '%%budget'") == []


async def test_top_up_is_refused_when_the_workflow_has_succeeded_or_is_somebody_elses(small_world: World) -> None:
    worker = await small_world.worker()
    workflow_id = await small_world.submit(agent({"turns": 1}))
    await small_world.run(worker)

    with pytest.raises(NotPossible, match="succeeded"):
        await give(small_world, workflow_id, turns=1)
    with pytest.raises(NotFound):
        await give(small_world, uuid4(), turns=1)


async def test_paused_workflow_lets_nothing_go_that_a_top_up_would_free(small_world: World) -> None:
    worker = await small_world.worker()
    workflow_id = await small_world.submit(agent({"usd": "0.00001", **PAUSE}))
    await small_world.run(worker)
    await pause.pause(small_world.api, ids.DEFAULT_TENANT, workflow_id, reason=None, by="kim")

    await give(small_world, workflow_id, microusd=1_000_000)
    held = await small_world.call(workflow_id, "a")
    await pause.resume(small_world.api, ids.DEFAULT_TENANT, workflow_id, reason=None, by="kim")
    await small_world.run(worker)

    assert (held["state"], held["held_reason"], held["budget"]["reserved"]) == ("held", "pause", False)
    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"


async def test_branch_that_is_over_budget_stops_no_other_branch(small_world: World) -> None:
    worker = await small_world.worker()
    definition = agent()
    definition["steps"]["a"]["budget"] = {"tokens": 10, "on_exceeded": "pause"}
    definition["steps"]["b"] = {**definition["steps"]["a"], "budget": {"tokens": 50_000}}

    workflow_id = await small_world.submit(definition)
    await small_world.run(worker)

    states = {row["path"]: row["state"] for row in await small_world.rows("SELECT path, state FROM steps")}
    assert states == {"a": "running", "b": "succeeded"}
    assert (await small_world.workflow(workflow_id))["status"] == "waiting"
