"""Another model goes on, on real Postgres: after an overload that lasts, a refusal; with and without thinking."""

from __future__ import annotations

import json
from typing import Any

from app.domain import ids
from app.domain.facts import CallSettled, CancelRequested
from app.domain.states import FailureKind
from app.engine import retry
from app.engine.advance import advance_one
from tests.engine.conversing import (
    agent,
    asks,
    calls,
    fails,
    grows,
    message,
    refuses,
    retried,
    roles,
    said_to,
    text,
    thinking,
    use,
    well_formed,
)
from tests.engine.world import World, refused, says, tool

FAST, SMART = "claude-haiku-5-5", "claude-sonnet-5-5"
"""The aliases of a default installation; the smart one was released before the fast one."""
TO_SMART = {"overloaded": {"max_retries": 1, "switch_model": "smart"}}


def models(world: World) -> list[str]:
    return [request.model for request in world.model.requests]


async def test_overload_that_lasts_is_followed_by_another_model_for_the_rest_of_the_step(small_world: World) -> None:
    busy = fails(FailureKind.OVERLOADED, status=529)
    small_world.model.answers = [busy, busy, asks(use("look")), says("done")]
    worker = await small_world.worker()

    workflow_id = await small_world.submit(
        agent(tools={"look": tool("read_only")}, retry=TO_SMART), input={"who": "kim"}
    )
    await small_world.run(worker)

    assert models(small_world) == [FAST, FAST, SMART, SMART]
    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"
    made = await calls(small_world, workflow_id, kind="model")
    assert made[1]["change"] == {"change": "switch_model", "diff": [f"- model {FAST}", f"+ model {SMART}"]}
    [record] = made[1]["recovery"]
    assert (record["kind"], record["source"], record["result"]) == ("overloaded", "definition", "succeeded")
    assert [call["request"]["alias"] for call in made] == ["fast", "smart", "smart"]
    grows(small_world.model.requests[2:])


async def test_refusal_is_never_repeated_blindly_and_another_model_is_asked_once(small_world: World) -> None:
    small_world.model.answers = [refuses("bio"), says("done")]
    worker = await small_world.worker()

    workflow_id = await small_world.submit(agent(retry={"refused": {"switch_model": SMART}}), input={"who": "kim"})
    await small_world.run(worker)

    assert models(small_world) == [FAST, SMART]
    assert (await small_world.workflow(workflow_id))["output"] == {"said": "done"}
    [first, second] = await calls(small_world, workflow_id)
    assert first["failure"]["detail"] == {"category": "bio"}
    assert "bio" in second["recovery"][0]["message"]
    assert roles(small_world, 1) == ["user"]  # what was refused is not in the conversation
    assert (await small_world.workflow(workflow_id))["recovery_microusd"] == 100


async def test_refusal_of_the_other_model_as_well_fails_with_its_category(small_world: World) -> None:
    small_world.model.answers = [refuses("cyber")] * 4
    worker = await small_world.worker()

    workflow_id = await small_world.submit(agent(retry={"refused": {"switch_model": "smart"}}), input={"who": "kim"})
    await small_world.run(worker)

    workflow = await small_world.workflow(workflow_id)
    assert (workflow["failure"]["kind"], models(small_world)) == ("refused", [FAST, SMART])
    assert "cyber" in workflow["failure"]["message"]


async def test_refusal_without_another_model_fails_at_once(small_world: World) -> None:
    small_world.model.answers = [refuses()] * 4
    worker = await small_world.worker()

    workflow_id = await small_world.submit(agent(), input={"who": "kim"})
    await small_world.run(worker)

    assert len(small_world.model.requests) == 1
    assert (await small_world.workflow(workflow_id))["failure"]["kind"] == "refused"


async def test_thinking_does_not_travel_to_an_older_model(small_world: World) -> None:
    small_world.model.answers = [
        asks(thinking(), text("I look."), use("look")),
        fails(FailureKind.OVERLOADED),
        fails(FailureKind.OVERLOADED),
        asks(use("look", {"again": 1})),
        says("done"),
    ]
    worker = await small_world.worker()

    workflow_id = await small_world.submit(
        agent(tools={"look": tool("read_only")}, retry=TO_SMART), input={"who": "kim"}
    )
    await small_world.run(worker)

    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"
    assert models(small_world) == [FAST, FAST, FAST, SMART, SMART]
    assert [block["type"] for block in said_to(small_world, 1, 1)] == ["thinking", "text", "tool_use"]
    assert [block["type"] for block in said_to(small_world, 3, 1)] == ["text", "tool_use"]
    assert roles(small_world, 3) == ["user", "assistant", "user"]
    grows(small_world.model.requests[:3])
    grows(small_world.model.requests[3:])
    well_formed(small_world.model.requests)
    third = (await calls(small_world, workflow_id, kind="model"))[2]
    assert third["change"]["diff"][-1] == "+ conversation 2: the same messages, as far as that model can read them"
    stored = await small_world.rows(
        "SELECT conversation, count(*) AS n, bool_or(convert_from(body, 'UTF8') LIKE '%%thinking%%') AS thinks "
        "FROM messages WHERE workflow_id = %s GROUP BY 1 ORDER BY 1",
        workflow_id,
    )
    assert [(row["conversation"], row["n"], row["thinks"]) for row in stored] == [(1, 3, True), (2, 6, False)]


async def test_thinking_travels_to_a_later_model_and_the_conversation_stays(small_world: World) -> None:
    small_world.model.answers = [
        asks(thinking(), use("look")),
        fails(FailureKind.OVERLOADED),
        fails(FailureKind.OVERLOADED),
        says("done"),
    ]
    worker = await small_world.worker()

    policy = {"overloaded": {"max_retries": 1, "switch_model": "fast"}}
    definition = agent(tools={"look": tool("read_only")}, retry=policy, model="smart")
    workflow_id = await small_world.submit(definition, input={"who": "kim"})
    await small_world.run(worker)

    assert models(small_world) == [SMART, SMART, SMART, FAST]
    grows(small_world.model.requests)
    assert (await small_world.step(workflow_id, "a"))["conversation"] == 1


async def test_two_policies_that_name_each_others_models_do_not_hand_a_task_back_and_forth(small_world: World) -> None:
    small_world.model.answers = [fails(FailureKind.OVERLOADED), fails(FailureKind.SERVER_ERROR)] * 20
    policy = {
        "overloaded": {"max_retries": 0, "switch_model": "smart"},
        "server_error": {"max_retries": 0, "switch_model": "fast"},
    }
    worker = await small_world.worker()

    workflow_id = await small_world.submit(agent(retry=policy), input={"who": "kim"})
    await small_world.run(worker)

    assert models(small_world) == [FAST, SMART, FAST, SMART]
    assert (await small_world.workflow(workflow_id))["failure"]["kind"] == "server_error"


async def test_answer_that_stays_malformed_is_asked_of_another_model_after_the_reminders(small_world: World) -> None:
    small_world.model.answers = [says("no"), says("no"), says('{"n": 1}')]
    policy = {"malformed_output": {"max_retries": 1, "switch_model": "smart"}}
    worker = await small_world.worker()

    definition = agent(retry=policy, schema={"n": {"type": "integer"}})
    workflow_id = await small_world.submit(definition, input={"who": "kim"})
    await small_world.run(worker)

    assert models(small_world) == [FAST, FAST, SMART]
    changes = [change for _, change in await retried(small_world, workflow_id)]
    assert changes == ["format_reminder", "switch_model"]
    assert (await small_world.workflow(workflow_id))["output"] == {"said": {"n": 1}}


async def test_reopened_step_goes_on_with_the_model_it_was_switched_to(small_world: World) -> None:
    small_world.model.answers = [fails(FailureKind.OVERLOADED)] * 4 + [says("done")]
    worker = await small_world.worker()
    workflow_id = await small_world.submit(agent(retry=TO_SMART), input={"who": "kim"})
    await small_world.run(worker)
    failed = await small_world.workflow(workflow_id)

    await retry.retry(small_world.api, ids.DEFAULT_TENANT, workflow_id, note=None, by="op")
    await small_world.run(worker)

    assert (failed["status"], models(small_world)) == ("failed", [FAST, FAST, SMART, SMART, SMART])
    assert (await small_world.workflow(workflow_id))["output"] == {"said": "done"}


async def test_cancel_in_the_batch_of_the_last_failure_stops_the_switch_while_its_messages_are_read(
    small_world: World,
) -> None:
    small_world.model.answers = [asks(thinking(), use("look")), fails(FailureKind.OVERLOADED)]
    worker = await small_world.worker()
    workflow_id = await small_world.submit(
        agent(tools={"look": tool("read_only")}, retry=TO_SMART), input={"who": "kim"}
    )
    for _ in range(3):  # the turn, its tool, the first overload
        await small_world.once(worker)
    await small_world.hurry()
    claimed = await worker.claim((await small_world.due_calls())[0])
    made = len(await calls(small_world, workflow_id))

    overloaded = CallSettled(
        call_id=claimed.call_id, attempt_id=claimed.attempt_id, step="a", outcome=fails(FailureKind.OVERLOADED)
    )
    await advance_one(worker.services, workflow_id, [overloaded, CancelRequested(reason=None, by="op")])

    workflow = await small_world.workflow(workflow_id)
    assert (workflow["status"], workflow["open_calls"]) == ("cancelled", 0)
    assert len(await calls(small_world, workflow_id)) == made
    assert (await small_world.step(workflow_id, "a"))["conversation"] == 1


async def test_shorter_answers_of_the_other_model_are_no_surprise(small_world: World) -> None:
    small_world.model.answers = [fails(FailureKind.OVERLOADED), says("done")]
    policy = {"overloaded": {"max_retries": 0, "switch_model": "claude-scripted-small"}}
    worker = await small_world.worker()

    workflow_id = await small_world.submit(agent(retry=policy, max_tokens=9_000), input={"who": "kim"})
    await small_world.run(worker)

    assert [request.max_tokens for request in small_world.model.requests] == [9_000, 2_000]
    second = (await calls(small_world, workflow_id))[1]
    assert second["change"]["diff"][2:] == ["- max_tokens 9000", "+ max_tokens 2000"]


async def test_message_of_thinking_alone_is_left_out_for_an_older_model(small_world: World) -> None:
    server: dict[str, Any] = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
    small_world.model.answers = [
        message(thinking(), server, stop_reason="pause_turn"),
        fails(FailureKind.OVERLOADED),
        fails(FailureKind.OVERLOADED),
        says("done"),
    ]
    worker = await small_world.worker()

    workflow_id = await small_world.submit(agent(retry=TO_SMART), input={"who": "kim"})
    await small_world.run(worker)

    assert [json.loads(body)["content"] for body in small_world.model.requests[3].messages][1:] == [[server]]
    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"
    well_formed(small_world.model.requests)


async def test_note_is_a_user_message_for_a_model_that_takes_no_system_messages(small_world: World) -> None:
    small_world.model.answers = [
        *[asks(use("look", {"n": n})) for n in range(3)],
        fails(FailureKind.OVERLOADED),
        says("done"),
    ]
    small_world.tools.script["look"] = [refused(422)] * 3
    policy = {"overloaded": {"max_retries": 0, "switch_model": "claude-haiku-4-5"}}
    worker = await small_world.worker()

    workflow_id = await small_world.submit(agent(tools={"look": tool("read_only")}, retry=policy), input={"who": "kim"})
    await small_world.run(worker)

    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"
    assert (roles(small_world, 3)[-1], roles(small_world, 4)[-1]) == ("system", "user")
    assert said_to(small_world, 3) == said_to(small_world, 4)
    well_formed(small_world.model.requests)


async def test_reopening_behind_a_note_that_was_carried_over_does_not_put_a_second_one_beside_it(
    small_world: World,
) -> None:
    busy = fails(FailureKind.OVERLOADED)
    small_world.model.answers = [
        *[asks(thinking(), use("look", {"n": n})) for n in range(3)], busy, busy, busy, busy, says("done"),
    ]  # fmt: skip
    small_world.tools.script["look"] = [refused(422)] * 3
    worker = await small_world.worker()
    workflow_id = await small_world.submit(
        agent(tools={"look": tool("read_only")}, retry=TO_SMART), input={"who": "kim"}
    )
    await small_world.run(worker)

    await retry.retry(small_world.api, ids.DEFAULT_TENANT, workflow_id, note=None, by="op")
    await small_world.run(worker)

    assert (await small_world.workflow(workflow_id))["output"] == {"said": "done"}
    assert roles(small_world, 7)[-2:] == ["system", "user"]
    well_formed(small_world.model.requests)
