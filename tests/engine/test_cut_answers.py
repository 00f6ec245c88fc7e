"""Answers that do not arrive whole, on real Postgres: cut at the length limit, paused, half a tool call."""

from __future__ import annotations

import json

from app.domain import ids
from app.engine import retry
from tests.engine.conversing import (
    agent,
    asks,
    calls,
    cut,
    grows,
    paused,
    retried,
    roles,
    said_to,
    text,
    thinking,
    use,
    well_formed,
)
from tests.engine.world import World, says, tool

SCHEMA = {"title": {"type": "string"}, "minutes": {"type": "integer"}}


async def test_cut_text_is_continued_exactly_and_its_parts_are_joined(small_world: World) -> None:
    small_world.model.answers = [cut(text("The answer is fo")), cut(text("rty-")), says("two.")]
    worker = await small_world.worker()

    workflow_id = await small_world.submit(agent(), input={"who": "kim"})
    await small_world.run(worker)

    workflow = await small_world.workflow(workflow_id)
    assert workflow["output"] == {"said": "The answer is forty-two."}
    assert roles(small_world, 2) == ["user", "assistant", "user", "assistant", "user"]
    assert "exactly where it stopped" in said_to(small_world, 1)
    assert workflow["recovery_microusd"] == 0  # nothing of it was wasted
    grows(small_world.model.requests)
    well_formed(small_world.model.requests)


async def test_continuation_leaves_a_record_with_its_count_and_what_was_added(small_world: World) -> None:
    small_world.model.answers = [cut(text("a")), says("b")]
    worker = await small_world.worker()

    workflow_id = await small_world.submit(agent(max_tokens=512), input={"who": "kim"})
    await small_world.run(worker)

    first, second = await calls(small_world, workflow_id)
    assert (first["state"], first["failure"]["kind"], second["retry_of"]) == ("failed", "output_truncated", first["id"])
    [record] = second["recovery"]
    assert (record["used"], record["allowed"], record["change"], record["result"]) == (1, 3, "continue", "succeeded")
    assert record["message"] == "The answer was cut at max_tokens (512)."
    assert record["diff"] == ["+ the part so far, 1 characters", "+ “continue exactly where it stopped”"]
    assert await retried(small_world, workflow_id) == [("output_truncated", "continue")]


async def test_cut_json_is_judged_as_one_text(small_world: World) -> None:
    small_world.model.answers = [cut(text('{"title": "Sy')), says('nc", "minutes": 30}')]
    worker = await small_world.worker()

    workflow_id = await small_world.submit(agent(schema=SCHEMA), input={"who": "kim"})
    await small_world.run(worker)

    assert (await small_world.workflow(workflow_id))["output"] == {"said": {"title": "Sync", "minutes": 30}}


async def test_model_that_says_the_whole_again_after_a_cut_is_taken_at_its_word(small_world: World) -> None:
    small_world.model.answers = [cut(text('{"title": "Sy')), says('{"title": "Sync", "minutes": 30}')]
    worker = await small_world.worker()

    workflow_id = await small_world.submit(agent(schema=SCHEMA), input={"who": "kim"})
    await small_world.run(worker)

    assert (await small_world.workflow(workflow_id))["output"] == {"said": {"title": "Sync", "minutes": 30}}
    assert len(small_world.model.requests) == 2


async def test_half_a_tool_call_is_dropped_and_asked_for_with_twice_the_room(small_world: World) -> None:
    small_world.model.answers = [
        cut(text("I look."), use("look", {"q": "ha"})),
        asks(use("look", {"q": "half"})),
        says("done"),
    ]
    worker = await small_world.worker()

    workflow_id = await small_world.submit(
        agent(tools={"look": tool("read_only")}, max_tokens=1000), input={"who": "kim"}
    )
    await small_world.run(worker)

    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"
    assert [request.max_tokens for request in small_world.model.requests] == [1000, 2000, 2000]
    assert [request.arguments for request in small_world.tools.ledger] == [{"q": "half"}]
    assert roles(small_world, 1) == ["user"]
    second = (await calls(small_world, workflow_id))[1]
    assert second["change"] == {"change": "double_max_tokens", "diff": ["- max_tokens 1000", "+ max_tokens 2000"]}
    assert (await small_world.workflow(workflow_id))["recovery_microusd"] == 100  # the dropped answer
    well_formed(small_world.model.requests)


async def test_doubling_ends_at_what_the_model_can_and_the_step_fails_with_the_fix(small_world: World) -> None:
    half = cut(use("look", {"q": "ha"}))
    small_world.model.answers = [half] * 5
    worker = await small_world.worker()

    workflow_id = await small_world.submit(
        agent(tools={"look": tool("read_only")}, max_tokens=100_000), input={"who": "kim"}
    )
    await small_world.run(worker)

    workflow = await small_world.workflow(workflow_id)
    assert [request.max_tokens for request in small_world.model.requests] == [100_000, 128_000]
    assert (workflow["failure"]["kind"], small_world.tools.ledger) == ("output_truncated", [])
    assert "128,000" in workflow["failure"]["message"]


async def test_thinking_that_takes_all_the_room_is_asked_for_anew_with_more(small_world: World) -> None:
    small_world.model.answers = [cut(thinking()), says("done")]
    worker = await small_world.worker()

    workflow_id = await small_world.submit(agent(max_tokens=300), input={"who": "kim"})
    await small_world.run(worker)

    assert [request.max_tokens for request in small_world.model.requests] == [300, 600]
    assert roles(small_world, 1) == ["user"]
    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"


async def test_answer_that_is_cut_too_often_fails_and_a_reopening_goes_on_behind_its_parts(small_world: World) -> None:
    small_world.model.answers = [cut(text(part)) for part in "abcd"] + [says("e")]
    worker = await small_world.worker()
    workflow_id = await small_world.submit(agent(), input={"who": "kim"})
    await small_world.run(worker)
    failed = await small_world.workflow(workflow_id)

    await retry.retry(small_world.api, ids.DEFAULT_TENANT, workflow_id, note=None, by="op")
    await small_world.run(worker)

    assert (failed["failure"]["kind"], len(small_world.model.requests)) == ("output_truncated", 5)
    # The part that nobody asked to continue was dropped with its call.
    assert (await small_world.workflow(workflow_id))["output"] == {"said": "abce"}
    well_formed(small_world.model.requests)


async def test_paused_turn_is_kept_unchanged_and_goes_on_without_a_word_of_ours(small_world: World) -> None:
    small_world.model.answers = [paused("I searched. "), paused("Again. "), says("Found it.")]
    worker = await small_world.worker()

    workflow_id = await small_world.submit(agent(), input={"who": "kim"})
    await small_world.run(worker)

    assert (await small_world.workflow(workflow_id))["output"] == {"said": "I searched. Again. Found it."}
    assert roles(small_world, 2) == ["user", "assistant", "assistant"]
    assert said_to(small_world, 1)[-1]["type"] == "server_tool_use"
    assert await retried(small_world, workflow_id) == [("paused_turn", "append")] * 2
    well_formed(small_world.model.requests)


async def test_turn_that_is_paused_for_ever_fails_after_as_many_as_declared(small_world: World) -> None:
    small_world.model.answers = [paused("x")] * 20
    worker = await small_world.worker()

    workflow_id = await small_world.submit(agent(retry={"paused_turn": {"max_retries": 2}}), input={"who": "kim"})
    await small_world.run(worker)

    workflow = await small_world.workflow(workflow_id)
    assert (workflow["failure"]["kind"], len(small_world.model.requests)) == ("paused_turn", 3)


async def test_budget_of_continuations_counts_one_answer_and_not_the_whole_conversation(small_world: World) -> None:
    small_world.model.answers = []
    for n in range(4):
        small_world.model.answers += [cut(text("I will ")), asks(text("look."), use("look", {"n": n}))]
    small_world.model.answers += [cut(text("I")), says(" know.")]
    worker = await small_world.worker()

    workflow_id = await small_world.submit(agent(tools={"look": tool("read_only")}), input={"who": "kim"})
    await small_world.run(worker)

    assert (await small_world.workflow(workflow_id))["output"] == {"said": "I know."}
    well_formed(small_world.model.requests)
    grows(small_world.model.requests)


async def test_parts_are_stored_where_a_person_can_read_them(small_world: World) -> None:
    small_world.model.answers = [cut(text("a")), says("b")]
    worker = await small_world.worker()

    workflow_id = await small_world.submit(agent(), input={"who": "kim"})
    await small_world.run(worker)

    rows = await small_world.rows("SELECT body FROM messages WHERE workflow_id = %s ORDER BY ordinal", workflow_id)
    said = [json.loads(bytes(row["body"])) for row in rows]
    assert [each["role"] for each in said] == ["user", "assistant", "user", "assistant"]
    assert [said[1]["content"], said[3]["content"]] == [[text("a")], [text("b")]]
