"""A budget of time: how long calls of a scope may be due or in flight, waiting for people left out."""

from __future__ import annotations

from datetime import timedelta

from app.domain.states import FailureKind
from tests.engine.budgeted import account, agent, answer, branches, give
from tests.engine.world import World, tool

PAUSE = {"on_exceeded": "pause"}


async def back_date(world: World, seconds: float) -> None:
    """As if every call that is open had been open for so much longer."""
    await world.rows(f"UPDATE budgets SET active_since = active_since - interval '{seconds} seconds'")


async def test_workflow_fails_when_its_calls_took_longer_than_its_budget_allows(small_world: World) -> None:
    worker = await small_world.worker()
    workflow_id = await small_world.submit(agent({"duration": "1m"}))
    await back_date(small_world, 61)

    await small_world.ripen(worker, "duration")

    workflow = await small_world.workflow(workflow_id)
    assert (workflow["status"], workflow["failure"]["kind"]) == ("failed", FailureKind.BUDGET_EXCEEDED)
    assert workflow["failure"]["message"].startswith("The budget of 1 m 00 s is used up: its calls took 1 m 0")
    assert small_world.model.requests == []


async def test_timer_that_rings_early_changes_nothing(small_world: World) -> None:
    worker = await small_world.worker()
    workflow_id = await small_world.submit(agent({"duration": "1m"}))

    await small_world.ripen(worker, "duration")
    again = await small_world.row("SELECT due_at > clock_timestamp() AS later FROM dues WHERE kind = 'duration'")
    await small_world.run(worker)

    assert again["later"]
    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"


async def test_time_in_which_a_person_is_waited_for_does_not_count(small_world: World) -> None:
    worker = await small_world.worker()
    definition = {
        "name": "asks",
        "budget": {"duration": "1m"},
        "tools": {"look": tool("read_only")},
        "steps": {
            "first": {"tool": "look", "with": {"n": 1}},
            "ask": {"approval": {"title": "Go on?"}, "needs": ["first"]},
        },
    }
    workflow_id = await small_world.submit(definition)
    busy = await account(small_world, workflow_id)
    await small_world.run(worker)

    waiting = await account(small_world, workflow_id)
    assert (busy["open_calls"], busy["active_since"] is not None) == (1, True)
    assert (waiting["open_calls"], waiting["active_since"], waiting["spent_ms"] < 60_000) == (0, None, True)
    assert await small_world.rows("SELECT * FROM dues WHERE kind = 'duration'") == []


async def test_step_fails_alone_when_its_own_time_is_used_up(small_world: World) -> None:
    worker = await small_world.worker()
    definition = agent()
    definition["steps"]["a"] |= {"budget": {"duration": "1m"}, "on_error": "continue"}
    workflow_id = await small_world.submit(definition)
    await back_date(small_world, 61)

    await small_world.ripen(worker, "duration")

    step = await small_world.step(workflow_id, "a")
    assert (step["state"], step["failure"]["kind"]) == ("failed", FailureKind.BUDGET_EXCEEDED)
    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"


async def test_due_calls_wait_for_a_top_up_when_their_time_is_used_up_and_the_budget_says_pause(
    small_world: World,
) -> None:
    worker = await small_world.worker()
    small_world.model.answers = [answer()] * 3
    workflow_id = await small_world.submit(branches(3, {"duration": "1m", **PAUSE}))
    await back_date(small_world, 61)

    await small_world.ripen(worker, "duration")
    parked = await small_world.rows("SELECT state, held_reason FROM calls")
    stopped = await account(small_world, workflow_id)
    await give(small_world, workflow_id, duration=timedelta(minutes=5))
    await small_world.run(worker)

    assert [(row["state"], row["held_reason"]) for row in parked] == [("held", "budget")] * 3
    assert (stopped["open_calls"], stopped["active_since"]) == (0, None)
    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"
