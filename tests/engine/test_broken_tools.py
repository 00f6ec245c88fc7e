"""Tools that fail an agent, on real Postgres: told, counted, taken away, given back."""

from __future__ import annotations

from typing import Any

from app.domain import ids
from app.engine import retry
from tests.engine.conversing import agent, asks, calls, retried, roles, said_to, use, well_formed
from tests.engine.world import World, refused, says, tool

TOOLS = {"look": tool("read_only"), "find": tool("read_only")}


def three_failures() -> list[Any]:
    return [asks(use("look", {"n": n})) for n in range(3)]


async def test_tool_that_keeps_failing_is_taken_away_and_the_model_asked_for_an_alternative(
    small_world: World,
) -> None:
    small_world.model.answers = [*three_failures(), asks(use("look", {"n": 9})), asks(use("find")), says("found")]
    small_world.tools.script["look"] = [refused(422)] * 9
    worker = await small_world.worker()

    workflow_id = await small_world.submit(agent(tools=TOOLS), input={"who": "kim"})
    await small_world.run(worker)

    assert (await small_world.workflow(workflow_id))["output"] == {"said": "found"}
    assert len(small_world.tools.sent("look")) == 3
    assert roles(small_world, 3)[-2:] == ["user", "system"]
    note = said_to(small_world, 3)
    assert note == (
        "look is disabled for this workflow after 3 failures in a row: The tool answered 422. Do not call it again; "
        "use find, or do without."
    )
    [told] = said_to(small_world, 4)
    assert (told["is_error"], told["content"]) == (True, note)
    assert [request.tools for request in small_world.model.requests] == [small_world.model.requests[0].tools] * 6
    well_formed(small_world.model.requests)


async def test_disabled_tool_is_on_record_with_an_event_and_what_changed(small_world: World) -> None:
    small_world.model.answers = [*three_failures(), says("sorry")]
    small_world.tools.script["look"] = [refused(422)] * 9
    worker = await small_world.worker()

    workflow_id = await small_world.submit(agent(tools=TOOLS), input={"who": "kim"})
    await small_world.run(worker)

    [event] = await small_world.rows("SELECT data FROM events WHERE type = 'agent.tool.disabled'")
    assert event["data"] == {
        "tool": "look", "scope": "workflow", "failures": 3, "kind": "tool_error", "reason": "The tool answered 422.",
    }  # fmt: skip
    taken = (await small_world.workflow(workflow_id))["tools_disabled"]
    assert (taken["look"]["failures"], taken["look"]["step"]) == (3, "a")
    last = (await calls(small_world, workflow_id, kind="model"))[-1]
    [record] = last["recovery"]
    assert (record["kind"], record["change"], record["tool"], record["result"]) == (
        "tool_broken", "disable_tool", "look", "succeeded",
    )  # fmt: skip
    assert record["diff"][0] == "- look: every further use is refused"
    assert ("tool_broken", "disable_tool") in await retried(small_world, workflow_id)


async def test_success_in_between_begins_the_count_anew(small_world: World) -> None:
    small_world.model.answers = [asks(use("look", {"n": n})) for n in range(6)] + [says("done")]
    small_world.tools.script["look"] = [refused(422), refused(422), {"ok": 1}, refused(422), refused(422), {"ok": 2}]
    worker = await small_world.worker()

    workflow_id = await small_world.submit(agent(tools=TOOLS), input={"who": "kim"})
    await small_world.run(worker)

    assert (await small_world.workflow(workflow_id))["tools_disabled"] is None
    assert len(small_world.tools.sent("look")) == 6


async def test_broken_tool_is_taken_from_every_agent_of_the_workflow(small_world: World) -> None:
    definition = agent(tools=TOOLS)
    definition["steps"]["b"] = {**definition["steps"]["a"], "needs": ["a"]}
    small_world.model.answers = [*three_failures(), says("sorry"), asks(use("look")), says("sorry, too")]
    small_world.tools.script["look"] = [refused(422)] * 9
    worker = await small_world.worker()

    workflow_id = await small_world.submit(definition, input={"who": "kim"})
    await small_world.run(worker)

    assert len(small_world.tools.sent("look")) == 3
    assert (await small_world.step(workflow_id, "b"))["output"] == "sorry, too"
    second = (await calls(small_world, workflow_id, step="b"))[1]
    assert (second["state"], second["failure"]["kind"], second["attempts"]) == ("failed", "tool_broken", 0)


async def test_how_many_failures_in_a_row_break_a_tool_is_declared(small_world: World) -> None:
    small_world.model.answers = [*three_failures()[:2], says("sorry")]
    small_world.tools.script["look"] = [refused(422)] * 9
    worker = await small_world.worker()

    definition = agent(tools=TOOLS, retry={"tool_broken": {"after": 2}})
    workflow_id = await small_world.submit(definition, input={"who": "kim"})
    await small_world.run(worker)

    assert (await small_world.workflow(workflow_id))["tools_disabled"]["look"]["failures"] == 2


async def test_agent_that_may_not_go_on_without_a_tool_fails_when_it_breaks(small_world: World) -> None:
    small_world.model.answers = [*three_failures(), says("sorry")]
    small_world.tools.script["look"] = [refused(422)] * 9
    worker = await small_world.worker()

    definition = agent(tools=TOOLS, retry={"tool_broken": {"max_retries": 0}})
    workflow_id = await small_world.submit(definition, input={"who": "kim"})
    await small_world.run(worker)

    workflow = await small_world.workflow(workflow_id)
    assert (workflow["failure"]["kind"], len(small_world.model.requests)) == ("tool_broken", 3)
    assert "look failed 3 times in a row; the last time: The tool answered 422." in workflow["failure"]["message"]


async def test_reopening_gives_the_tools_back_and_says_so_to_the_model(small_world: World) -> None:
    definition = agent(tools=TOOLS, retry={"malformed_output": {"max_retries": 0}}, schema={"n": {"type": "integer"}})
    small_world.model.answers = [*three_failures(), says("no json"), asks(use("look", {"n": 7})), says('{"n": 7}')]
    small_world.tools.script["look"] = [refused(422)] * 3
    worker = await small_world.worker()
    workflow_id = await small_world.submit(definition, input={"who": "kim"})
    await small_world.run(worker)
    failed = await small_world.workflow(workflow_id)

    await retry.retry(small_world.api, ids.DEFAULT_TENANT, workflow_id, note="mended", by="op")
    await small_world.run(worker)

    assert failed["failure"]["kind"] == "malformed_output"
    assert (await small_world.workflow(workflow_id))["output"] == {"said": {"n": 7}}
    assert len(small_world.tools.sent("look")) == 4
    assert said_to(small_world, 4) == "The task goes on: every tool that you were offered may be used again."
    assert roles(small_world, 4)[-2:] == ["system", "user"]  # two system messages never stand side by side
    well_formed(small_world.model.requests)


async def test_reopening_behind_the_results_of_a_turn_does_not_tell_them_twice(small_world: World) -> None:
    definition = agent(tools=TOOLS, retry={"tool_broken": {"max_retries": 0}})
    small_world.model.answers = [*three_failures(), says("done")]
    small_world.tools.script["look"] = [refused(422)] * 3
    worker = await small_world.worker()
    workflow_id = await small_world.submit(definition, input={"who": "kim"})
    await small_world.run(worker)

    await retry.retry(small_world.api, ids.DEFAULT_TENANT, workflow_id, note=None, by="op")
    await small_world.run(worker)

    assert (await small_world.workflow(workflow_id))["output"] == {"said": "done"}
    assert roles(small_world, 3) == ["user", "assistant", "user", "assistant", "user", "assistant", "user"]
    well_formed(small_world.model.requests)


async def test_arguments_that_never_fit_take_the_tool_from_that_step_alone(small_world: World) -> None:
    tools = {"book": tool("keyed", input_schema={"n": {"type": "integer"}})}
    definition = agent(tools=tools)
    definition["steps"]["b"] = {**definition["steps"]["a"], "needs": ["a"]}
    small_world.model.answers = [
        *[asks(use("book", {"n": f"x{n}"})) for n in range(4)],
        asks(use("book", {"n": 1})),
        says("gave up"),
        asks(use("book", {"n": 2})),
        says("booked"),
    ]
    worker = await small_world.worker()

    workflow_id = await small_world.submit(definition, input={"who": "kim"})
    await small_world.run(worker)

    assert [request.arguments for request in small_world.tools.ledger] == [{"n": 2}]
    assert "disabled for this step after 4 failures" in said_to(small_world, 5)[0]["content"]
    workflow = await small_world.workflow(workflow_id)
    assert (workflow["status"], workflow["tools_disabled"]) == ("succeeded", None)


async def test_use_that_is_not_executed_leaves_a_record_with_its_count(small_world: World) -> None:
    tools = {"book": tool("keyed", input_schema={"n": {"type": "integer"}})}
    small_world.model.answers = [asks(use("book", {"n": "x"})), asks(use("fly")), says("done")]
    worker = await small_world.worker()

    workflow_id = await small_world.submit(agent(tools=tools), input={"who": "kim"})
    await small_world.run(worker)

    misfit, unknown = await calls(small_world, workflow_id, kind="tool")
    [record] = misfit["recovery"]
    assert (record["kind"], record["change"], record["used"], record["allowed"], record["result"]) == (
        "tool_arguments_invalid", "tell_model", 1, 3, "told",
    )  # fmt: skip
    assert [record["kind"] for record in unknown["recovery"]] == ["tool_unknown"]
    assert await retried(small_world, workflow_id) == [
        ("tool_arguments_invalid", "tell_model"), ("tool_unknown", "tell_model")
    ]  # fmt: skip


async def test_model_that_keeps_asking_for_tools_it_was_not_offered_fails_the_step(small_world: World) -> None:
    small_world.model.answers = [asks(use(f"fly_{n}")) for n in range(9)]
    worker = await small_world.worker()

    workflow_id = await small_world.submit(agent(tools=TOOLS), input={"who": "kim"})
    await small_world.run(worker)

    workflow = await small_world.workflow(workflow_id)
    assert (workflow["failure"]["kind"], len(small_world.model.requests)) == ("tool_unknown", 4)
    assert "Offered: look, find." in workflow["failure"]["message"]
