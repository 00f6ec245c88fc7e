"""Agents at their limits, on real Postgres: circles, turns, time; the end with words, or gracefully with an answer."""

from __future__ import annotations

from typing import Any

import pytest

from app.domain import ids
from app.engine import retry
from tests.engine.conversing import agent, asks, calls, cut, grows, retried, roles, said_to, text, use, well_formed
from tests.engine.world import World, says, tool

TOOLS = {"look": tool("read_only"), "find": tool("read_only")}
GRACEFULLY = {"finish": "gracefully"}


def looks(times: int, name: str = "look") -> list[Any]:
    return [asks(use(name, {"q": "x"})) for _ in range(times)]


# --- no progress ---------------------------------------------------------------------------------------------------


async def test_agent_that_repeats_itself_is_told_so_twice_and_then_its_step_fails(small_world: World) -> None:
    small_world.model.answers = looks(20)
    worker = await small_world.worker()

    workflow_id = await small_world.submit(agent(tools=TOOLS), input={"who": "kim"})
    await small_world.run(worker)

    workflow = await small_world.workflow(workflow_id)
    assert (workflow["failure"]["kind"], len(small_world.model.requests)) == ("no_progress", 9)
    assert "look 3 times in a row" in workflow["failure"]["message"]
    assert said_to(small_world, 3).startswith("You have done look 3 times in a row, with the same arguments")
    assert await retried(small_world, workflow_id) == [("no_progress", "note")] * 2
    grows(small_world.model.requests)
    well_formed(small_world.model.requests)


async def test_note_about_a_circle_leaves_a_record_on_the_call_it_caused(small_world: World) -> None:
    small_world.model.answers = [*looks(3), says("done")]
    worker = await small_world.worker()

    workflow_id = await small_world.submit(agent(tools=TOOLS), input={"who": "kim"})
    await small_world.run(worker)

    last = (await calls(small_world, workflow_id, kind="model"))[-1]
    [record] = last["recovery"]
    assert (record["kind"], record["used"], record["allowed"], record["result"]) == ("no_progress", 1, 2, "succeeded")
    assert last["change"]["change"] == "note"
    assert record["diff"][0].startswith("+ note: You have done look 3 times")


async def test_two_turns_in_alternation_are_a_circle_too(small_world: World) -> None:
    small_world.model.answers = [answer for _ in range(9) for answer in (*looks(1), *looks(1, "find"))]
    worker = await small_world.worker()

    definition = agent(tools=TOOLS, retry={"no_progress": {"max_retries": 0}})
    workflow_id = await small_world.submit(definition, input={"who": "kim"})
    await small_world.run(worker)

    workflow = await small_world.workflow(workflow_id)
    assert (workflow["failure"]["kind"], len(small_world.model.requests)) == ("no_progress", 6)
    assert "the same two turns 3 times each" in workflow["failure"]["message"]


async def test_other_results_are_progress_and_so_are_other_arguments(small_world: World) -> None:
    small_world.model.answers = [*looks(6), *[asks(use("find", {"n": n})) for n in range(6)], says("done")]
    small_world.tools.script["look"] = [{"percent": n} for n in range(6)]
    worker = await small_world.worker()

    workflow_id = await small_world.submit(agent(tools=TOOLS), input={"who": "kim"})
    await small_world.run(worker)

    assert (await small_world.workflow(workflow_id))["output"] == {"said": "done"}
    assert await retried(small_world, workflow_id) == []


async def test_progress_after_a_note_gives_all_notes_back(small_world: World) -> None:
    small_world.model.answers = []
    for n in range(4):
        small_world.model.answers += [*looks(3), asks(use("find", {"n": n}))]
    small_world.model.answers.append(says("done"))
    worker = await small_world.worker()

    workflow_id = await small_world.submit(agent(tools=TOOLS), input={"who": "kim"})
    await small_world.run(worker)

    assert (await small_world.workflow(workflow_id))["output"] == {"said": "done"}
    assert await retried(small_world, workflow_id) == [("no_progress", "note")] * 4


async def test_how_often_is_a_circle_is_declared(small_world: World) -> None:
    small_world.model.answers = looks(20)
    worker = await small_world.worker()

    definition = agent(tools=TOOLS, retry={"no_progress": {"max_retries": 0, "after": 5}})
    await small_world.submit(definition, input={"who": "kim"})
    await small_world.run(worker)

    assert len(small_world.model.requests) == 5


async def test_model_without_system_messages_is_told_as_a_user(small_world: World) -> None:
    small_world.model.answers = [*looks(3), says("done")]
    worker = await small_world.worker()

    await small_world.submit(agent(tools=TOOLS, model="claude-haiku-4-5"), input={"who": "kim"})
    await small_world.run(worker)

    assert roles(small_world, 3)[-3:] == ["assistant", "user", "user"]
    assert [block["type"] for block in said_to(small_world, 3, -2)] == ["tool_result"]
    well_formed(small_world.model.requests)


# --- the last answer -----------------------------------------------------------------------------------------------


async def test_agent_at_its_last_turn_gives_its_answer_without_tools(small_world: World) -> None:
    small_world.model.answers = [asks(use("look", {"n": n})) for n in range(3)] + [says("as far as I got")]
    worker = await small_world.worker()

    workflow_id = await small_world.submit(agent(tools=TOOLS, max_turns=3, **GRACEFULLY), input={"who": "kim"})
    await small_world.run(worker)

    assert (await small_world.workflow(workflow_id))["output"] == {"said": "as far as I got"}
    last = (await calls(small_world, workflow_id, kind="model"))[-1]
    assert last["request"]["purpose"] == "final"
    assert said_to(small_world, 3).startswith("All your turns are used: this is your last message.")
    [record] = last["recovery"]
    assert (record["kind"], record["rule"], record["change"], record["result"]) == (
        "budget_exceeded", "finish", "final", "succeeded",
    )  # fmt: skip
    assert small_world.model.requests[3].tools == small_world.model.requests[0].tools
    grows(small_world.model.requests)
    well_formed(small_world.model.requests)


async def test_last_answer_that_asks_for_a_tool_fails_the_step_and_nothing_is_called(small_world: World) -> None:
    small_world.model.answers = [asks(use("look", {"n": n})) for n in range(5)]
    worker = await small_world.worker()

    workflow_id = await small_world.submit(agent(tools=TOOLS, max_turns=2, **GRACEFULLY), input={"who": "kim"})
    await small_world.run(worker)

    workflow = await small_world.workflow(workflow_id)
    assert (workflow["failure"]["kind"], len(small_world.model.requests)) == ("budget_exceeded", 3)
    assert len(small_world.tools.ledger) == 2
    assert "asked for its final answer" in workflow["failure"]["message"]


async def test_last_answer_is_mended_like_any_other(small_world: World) -> None:
    small_world.model.answers = [asks(use("look")), cut(text('{"n"')), says(": x}"), says('{"n": 1}')]
    definition = agent(tools=TOOLS, max_turns=1, schema={"n": {"type": "integer"}}, **GRACEFULLY)
    worker = await small_world.worker()

    workflow_id = await small_world.submit(definition, input={"who": "kim"})
    await small_world.run(worker)

    assert (await small_world.workflow(workflow_id))["output"] == {"said": {"n": 1}}
    purposes = [call["request"]["purpose"] for call in await calls(small_world, workflow_id, kind="model")]
    assert purposes == ["answer", "final", "final", "final"]


async def test_reopened_agent_that_was_to_end_may_use_its_tools_again(small_world: World) -> None:
    small_world.model.answers = [asks(use("look", {"n": n})) for n in range(4)] + [says("done")]
    worker = await small_world.worker()
    workflow_id = await small_world.submit(agent(tools=TOOLS, max_turns=2, **GRACEFULLY), input={"who": "kim"})
    await small_world.run(worker)

    await retry.retry(small_world.api, ids.DEFAULT_TENANT, workflow_id, note=None, by="op")
    await small_world.run(worker)

    assert (await small_world.workflow(workflow_id))["output"] == {"said": "done"}
    assert len(small_world.tools.ledger) == 3
    assert said_to(small_world, 3) == "The task goes on: every tool that you were offered may be used again."
    purposes = [call["request"]["purpose"] for call in await calls(small_world, workflow_id, kind="model")]
    assert purposes == ["answer", "answer", "final", "answer", "answer"]
    well_formed(small_world.model.requests)


async def test_agent_in_a_circle_gives_its_answer_after_the_notes(small_world: World) -> None:
    small_world.model.answers = [*looks(3), says("I was stuck")]
    definition = agent(tools=TOOLS, retry={"no_progress": {"max_retries": 0}}, **GRACEFULLY)
    worker = await small_world.worker()

    workflow_id = await small_world.submit(definition, input={"who": "kim"})
    await small_world.run(worker)

    assert (await small_world.workflow(workflow_id))["output"] == {"said": "I was stuck"}
    assert said_to(small_world, 3).startswith("You are going in circles: this is your last message.")


@pytest.mark.parametrize("what", ["workflow", "step"])
async def test_agent_whose_time_is_nearly_over_is_asked_for_its_answer(small_world: World, what: str) -> None:
    more: dict[str, Any] = {"timeout": "1h"} if what == "step" else {}
    small_world.model.answers = [*looks(1), asks(use("look", {"n": 2})), says("just in time")]
    worker = await small_world.worker()
    workflow_id = await small_world.submit(agent(tools=TOOLS, **GRACEFULLY, **more), input={"who": "kim"})
    await small_world.once(worker)
    await small_world.once(worker)
    early = len(await calls(small_world, workflow_id, kind="model"))

    late = {
        "workflow": "UPDATE workflows SET deadline_at = clock_timestamp() + interval '1 minute', "
        "created_at = clock_timestamp() - interval '1 day'",
        "step": "UPDATE steps SET started_at = clock_timestamp() - interval '59 minutes'",
    }
    await small_world.rows(late[what])
    await small_world.run(worker)

    assert early == 2  # with time left nothing is different
    assert (await small_world.workflow(workflow_id))["output"] == {"said": "just in time"}
    purposes = [call["request"]["purpose"] for call in await calls(small_world, workflow_id, kind="model")]
    assert purposes == ["answer", "answer", "final"]
    assert said_to(small_world, 2).startswith("The time for this task is nearly over")


async def test_agent_without_the_wish_has_all_of_its_time(small_world: World) -> None:
    small_world.model.answers = [*looks(1), says("done")]
    worker = await small_world.worker()
    workflow_id = await small_world.submit(agent(tools=TOOLS), input={"who": "kim"})

    await small_world.rows(
        "UPDATE workflows SET deadline_at = clock_timestamp() + interval '1 minute', "
        "created_at = clock_timestamp() - interval '1 day'"
    )
    await small_world.run(worker)

    purposes = [call["request"]["purpose"] for call in await calls(small_world, workflow_id, kind="model")]
    assert purposes == ["answer", "answer"]


# --- the budget for recovery ---------------------------------------------------------------------------------------


async def test_recovery_that_has_used_up_its_budget_asks_no_model_again(small_world: World) -> None:
    small_world.model.answers = [says("no json", cost=900)] * 9
    definition = agent(schema={"n": {"type": "integer"}}, retry={"malformed_output": {"max_retries": 8}})
    definition["budget"] = {"recovery_usd": 0.0017}
    worker = await small_world.worker()

    workflow_id = await small_world.submit(definition, input={"who": "kim"})
    await small_world.run(worker)

    workflow = await small_world.workflow(workflow_id)
    assert (workflow["failure"]["kind"], len(small_world.model.requests)) == ("malformed_output", 2)
    assert "budget for recovery is used up" in workflow["failure"]["message"]
    assert workflow["failure"]["fix"].startswith("Raise the budget's `recovery_usd`.")


async def test_agent_whose_tool_calls_are_used_up_gives_its_answer(small_world: World) -> None:
    small_world.model.answers = [asks(use("look", {"n": n})) for n in range(2)] + [says("with two looks")]
    definition = agent(tools=TOOLS, budget={"tool_calls": 2}, **GRACEFULLY)
    worker = await small_world.worker()

    workflow_id = await small_world.submit(definition, input={"who": "kim"})
    await small_world.run(worker)

    assert (await small_world.workflow(workflow_id))["output"] == {"said": "with two looks"}
    assert said_to(small_world, 2).startswith("The budget of this task is nearly used up")
