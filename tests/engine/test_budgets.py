"""Budgets on real Postgres: reserved before, settled once after, and what follows when one is used up."""

from __future__ import annotations

import pytest

from app.domain.accounts import Limits
from app.domain.states import FailureKind
from app.errors import DefinitionInvalid
from tests.engine.budgeted import MODEL, account, agent, answer, rate, reserved, spent, wanted
from tests.engine.world import World, not_sent, tool, unknown, uses

LOOK = {"look": tool("read_only")}


async def test_call_reserves_its_worst_case_when_it_becomes_due(small_world: World) -> None:
    workflow_id = await small_world.submit(agent({"usd": 1}))

    row, call = await account(small_world, workflow_id), await wanted(small_world, workflow_id, "a")

    assert call["reserved"]
    assert call["microusd"] == rate().cost(input=call["input"], output=1000)
    assert reserved(row) == (call["microusd"], call["input"] + 1000, 1, 0)
    assert spent(row) == (0, 0, 0, 0)


async def test_answer_settles_the_reservation_at_what_it_really_took(small_world: World) -> None:
    worker = await small_world.worker()
    small_world.model.answers = [answer(read=100, wrote=50, cost=42)]

    workflow_id = await small_world.submit(agent({"usd": 1}))
    await small_world.run(worker)

    row = await account(small_world, workflow_id)
    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"
    assert (spent(row), reserved(row)) == ((42, 150, 1, 0), (0, 0, 0, 0))
    attempt = await small_world.row("SELECT * FROM attempts")
    assert attempt["usage"]["price_version"] == "test/1"
    assert attempt["reserved_tokens"] >= 150


async def test_request_that_was_not_sent_takes_nothing(small_world: World) -> None:
    worker = await small_world.worker()
    small_world.model.answers = [not_sent(), answer(cost=10)]

    workflow_id = await small_world.submit(agent({"usd": 1}))
    await small_world.run(worker)

    assert spent(await account(small_world, workflow_id)) == (10, 150, 1, 0)


async def test_attempt_of_unknown_outcome_counts_at_its_worst_case_and_its_repeat_reserves_again(
    small_world: World,
) -> None:
    worker = await small_world.worker()
    small_world.model.answers = [unknown(), answer(cost=10)]

    workflow_id = await small_world.submit(agent({"usd": 1}))
    worst = await wanted(small_world, workflow_id, "a")
    await small_world.once(worker)
    between = await account(small_world, workflow_id)
    await small_world.run(worker)

    after = await account(small_world, workflow_id)
    tokens = worst["input"] + 1000
    assert (spent(between), reserved(between)) == (
        (worst["microusd"], tokens, 1, 0),
        (worst["microusd"], tokens, 0, 0),  # the turn is counted once, however often it is sent
    )
    assert (spent(after), reserved(after)) == ((worst["microusd"] + 10, tokens + 150, 1, 0), (0, 0, 0, 0))


async def test_call_is_never_sent_when_the_budget_could_not_pay_for_it(small_world: World) -> None:
    worker = await small_world.worker()

    workflow_id = await small_world.submit(agent({"usd": "0.0001"}))
    await small_world.run(worker)

    workflow = await small_world.workflow(workflow_id)
    assert small_world.model.requests == []
    assert (workflow["status"], workflow["failure"]["kind"]) == ("failed", FailureKind.BUDGET_EXCEEDED)
    assert "The budget of $0.0001 is used up" in workflow["failure"]["message"]
    assert "surefoot budget wf_" in workflow["failure"]["fix"]
    row = await account(small_world, workflow_id)
    assert (spent(row), reserved(row), row["exceeded"]) == ((0, 0, 0, 0), (0, 0, 0, 0), True)
    told = await small_world.events(workflow_id)
    assert told.count("workflow.budget.exceeded") == 1


async def test_answer_is_made_shorter_when_that_is_what_the_budget_has_left(small_world: World) -> None:
    worker = await small_world.worker()
    small_world.model.answers = [answer(wrote=300)]
    definition = agent({"tokens": 1_700})

    workflow_id = await small_world.submit(definition)
    await small_world.run(worker)

    call = await small_world.call(workflow_id, "a")
    [request] = small_world.model.requests
    assert 256 <= request.max_tokens < 1000
    assert request.max_tokens == call["request"]["max_tokens"] == 1_700 - call["budget"]["input"]
    assert call["request"]["clamped_from"] == 1000
    [record] = call["recovery"]
    assert (record["kind"], record["change"], record["result"]) == (
        "budget_exceeded",
        "clamp_max_tokens",
        "succeeded",
    )
    assert record["diff"] == ["- max_tokens 1000", f"+ max_tokens {request.max_tokens}"]


async def test_request_that_was_sent_is_not_made_shorter_for_its_repeat(small_world: World) -> None:
    worker = await small_world.worker()
    probe = await small_world.submit(agent({"tokens": 100_000}), key="probe")
    read = (await wanted(small_world, probe, "a"))["input"]
    await small_world.run(worker)
    small_world.model.requests, small_world.model.answers = [], [unknown(), answer(wrote=300)]

    # Room for the first attempt at its worst, and then for a repeat only if its answer were shorter.
    workflow_id = await small_world.submit(agent({"tokens": 2 * read + 1_500}))
    await small_world.run(worker)

    workflow = await small_world.workflow(workflow_id)
    assert [request.max_tokens for request in small_world.model.requests] == [1000]
    assert (workflow["status"], workflow["failure"]["kind"]) == ("failed", FailureKind.BUDGET_EXCEEDED)
    assert "clamped_from" not in (await small_world.call(workflow_id, "a"))["request"]


async def test_agent_stops_when_its_turns_are_used_up(small_world: World) -> None:
    worker = await small_world.worker()
    small_world.model.answers = [uses(("look", {"n": n})) for n in range(5)]

    workflow_id = await small_world.submit(agent({"turns": 2}, tools=LOOK))
    await small_world.run(worker)

    workflow = await small_world.workflow(workflow_id)
    assert len(small_world.model.requests) == 2
    assert "The budget of 2 turns is used up: 2 turns were made." in workflow["failure"]["message"]
    assert spent(await account(small_world, workflow_id))[2:] == (2, 2)


async def test_tool_is_not_called_when_its_calls_are_used_up(small_world: World) -> None:
    worker = await small_world.worker()
    small_world.model.answers = [uses(*(("look", {"n": n}) for n in range(3)))]

    workflow_id = await small_world.submit(agent({"tool_calls": 2}, tools=LOOK))
    await small_world.run(worker)

    workflow = await small_world.workflow(workflow_id)
    assert len(small_world.tools.sent("look")) == 2
    assert (workflow["status"], workflow["failure"]["kind"]) == ("failed", FailureKind.BUDGET_EXCEEDED)


async def test_step_has_a_budget_of_its_own_inside_the_workflows(small_world: World) -> None:
    worker = await small_world.worker()
    small_world.model.answers = [uses(("look", {"n": 1})), uses(("look", {"n": 2})), "done"]

    workflow_id = await small_world.submit(agent({"turns": 9}, tools=LOOK, budget={"turns": 1}))
    await small_world.run(worker)

    failure = (await small_world.workflow(workflow_id))["failure"]
    assert failure["message"].startswith("The budget of a of 1 turn is used up")
    assert "--step a" in failure["fix"]
    assert spent(await account(small_world, workflow_id, "a"))[2] == 1
    assert spent(await account(small_world, workflow_id))[2] == 1


async def test_submission_says_more_than_the_definition_about_its_budget(small_world: World) -> None:
    workflow_id = await small_world.submit(
        agent({"usd": 1, "turns": 3}), budget=Limits(microusd=500_000, on_exceeded="pause")
    )

    row = await account(small_world, workflow_id)
    assert (row["limit_microusd"], row["limit_turns"], row["on_exceeded"]) == (500_000, 3, "pause")


async def test_definition_is_refused_when_nobody_knows_the_price_of_its_model(small_world: World) -> None:
    definition = agent({"usd": 1})
    definition["steps"]["a"]["agent"]["model"] = "claude-of-my-own-1"

    with pytest.raises(DefinitionInvalid) as refused:
        await small_world.submit(definition)

    assert [fault.code for fault in refused.value.faults] == ["price_unknown"]


async def test_same_definition_needs_no_price_when_its_budget_is_in_tokens(small_world: World) -> None:
    worker = await small_world.worker()
    definition = agent({"tokens": 100_000})
    definition["steps"]["a"]["agent"]["model"] = "claude-of-my-own-1"

    workflow_id = await small_world.submit(definition)
    await small_world.run(worker)

    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"


async def test_person_is_told_once_when_four_fifths_are_spent(small_world: World) -> None:
    worker = await small_world.worker()
    small_world.model.answers = [uses(("look", {"n": n})) for n in range(4)] + ["done"]

    workflow_id = await small_world.submit(agent({"turns": 5}, tools=LOOK))
    await small_world.run(worker)

    told = await small_world.events(workflow_id)
    assert told.count("workflow.budget.nearly_spent") == 1
    assert told.index("workflow.budget.nearly_spent") < told.index("workflow.succeeded")
    assert (await small_world.workflow(workflow_id))["attention"] == []


async def test_workflow_without_a_budget_has_no_account(small_world: World) -> None:
    workflow_id = await small_world.submit(agent())

    assert await small_world.rows("SELECT * FROM budgets") == []
    assert (await small_world.call(workflow_id, "a"))["budget"] is None
    assert (await small_world.workflow(workflow_id))["budgeted"] is False


def test_the_model_of_these_tests_has_a_price() -> None:
    assert rate().version.startswith("genai-prices/"), MODEL
