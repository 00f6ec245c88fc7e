"""MCP servers that are asked what they have: by whom, how often, what is pinned, and what if it goes wrong."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from app.domain import ids
from app.domain.servers import McpServer
from app.domain.states import FailureKind
from app.engine import cancel, pause, record, retry
from tests.engine import listing
from tests.engine.listing import COMMIT, LOG, ScriptedLister
from tests.engine.world import World, not_sent, uses

SECOND = {**LOG, "name": "second"}


async def status(world: World, workflow_id: Any) -> str:
    workflow = await world.workflow(workflow_id)
    return str(workflow["status"])


async def test_agent_is_offered_what_the_server_listed(small_world: World) -> None:
    lister = ScriptedLister()
    worker = await listing.worker(small_world, lister)
    small_world.model.answers = [uses(("git-commit", {"message": "first"})), "done"]

    workflow_id = await small_world.submit(listing.agent())
    await small_world.run(worker)

    assert await status(small_world, workflow_id) == "succeeded"
    offered = [tool["name"] for tool in small_world.model.requests[0].tools]
    assert offered == ["git-commit", "git-log"]
    [sent] = small_world.tools.ledger
    assert (sent.tool.name, sent.arguments) == ("git.commit", {"message": "first"})
    assert lister.asked == ["git"]


async def test_list_is_pinned_for_the_workflow_whatever_the_server_says_later(small_world: World) -> None:
    lister = ScriptedLister(answers=[[COMMIT, LOG], [SECOND]])
    first, second = await listing.worker(small_world, lister), await listing.worker(small_world, lister, "worker.2")
    small_world.model.answers = [uses(("git-log", {"n": 1})), "done"]
    workflow_id = await small_world.submit(listing.agent())

    for worker in (first, second, first, second):  # each turn in another process
        await small_world.once(worker)

    assert await status(small_world, workflow_id) == "succeeded"
    first_offer, second_offer = (json.dumps(request.tools) for request in small_world.model.requests)
    assert first_offer == second_offer
    assert lister.asked == ["git"]
    events = await small_world.rows("SELECT data FROM events WHERE type = 'agent.tools.listed'")
    assert [event["data"]["tools"] for event in events] == [["git.commit", "git.log"]]


async def test_accepted_definition_stays_what_it_was_for_the_next_workflow(small_world: World) -> None:
    lister = ScriptedLister(answers=[[COMMIT, LOG], [SECOND]])
    worker = await listing.worker(small_world, lister)

    for key in ("k-1", "k-2"):
        await small_world.submit(listing.agent(), key=key)
        await small_world.run(worker)

    offers = [[tool["name"] for tool in request.tools] for request in small_world.model.requests]
    assert offers == [["git-commit", "git-log"], ["git-second"]]


async def test_steps_that_begin_together_have_the_same_list(small_world: World) -> None:
    lister = ScriptedLister(answers=[[COMMIT], [SECOND], [SECOND]])
    worker = await listing.worker(small_world, lister)
    definition = listing.agent()
    definition["steps"] = dict.fromkeys(("a", "b", "c"), definition["steps"]["s"])

    workflow_id = await small_world.submit(definition)
    await small_world.run(worker)

    assert await status(small_world, workflow_id) == "succeeded"
    assert {json.dumps(request.tools) for request in small_world.model.requests} == {
        json.dumps(small_world.model.requests[0].tools)
    }
    assert len(await small_world.rows("SELECT 1 FROM events WHERE type = 'agent.tools.listed'")) == 1


async def test_items_of_a_for_each_use_what_the_first_has_listed(small_world: World) -> None:
    worker = await listing.worker(small_world, ScriptedLister())
    definition = listing.calls(listing.step(for_each=[1, 2, 3], max_parallel=1))

    workflow_id = await small_world.submit(definition)
    await small_world.run(worker)

    assert await status(small_world, workflow_id) == "succeeded"
    assert len(small_world.tools.sent("git.commit")) == 3


async def test_tool_step_calls_the_tool_that_was_listed(small_world: World) -> None:
    worker = await listing.worker(small_world, ScriptedLister())

    workflow_id = await small_world.submit(listing.calls(listing.step()))
    await small_world.run(worker)

    assert await status(small_world, workflow_id) == "succeeded"
    call = await small_world.row("SELECT effect, tool FROM calls WHERE kind = 'tool'")
    assert call == {"effect": "at_most_once", "tool": "git.commit"}


async def test_arguments_are_checked_against_the_schema_that_was_listed(small_world: World) -> None:
    worker = await listing.worker(small_world, ScriptedLister())

    workflow_id = await small_world.submit(listing.calls(listing.step(**{"with": {"message": 5}})))
    await small_world.run(worker)

    failure = (await small_world.workflow(workflow_id))["failure"]
    assert failure["kind"] == FailureKind.TOOL_ARGUMENTS_INVALID
    assert "/message" in failure["message"]
    assert small_world.tools.ledger == []


async def test_arguments_made_of_expressions_are_checked_before_they_are_sent(small_world: World) -> None:
    worker = await small_world.worker()
    declared = {"http": {"method": "POST", "url": "http://127.0.0.1:9/x"}, "effect": "at_most_once"}
    schema = {"n": {"type": "integer"}}
    definition = {
        "name": "x",
        "tools": {"do": {**declared, "input_schema": schema}},
        "steps": {"a": {"set": {"n": "five"}}, "b": {"tool": "do", "with": {"n": "${{ steps.a.output.n }}"}}},
    }

    workflow_id = await small_world.submit(definition)
    await small_world.run(worker)

    assert (await small_world.workflow(workflow_id))["failure"]["kind"] == FailureKind.TOOL_ARGUMENTS_INVALID
    assert small_world.tools.ledger == []


async def test_tool_step_with_a_business_key_asks_for_it_after_the_list(small_world: World) -> None:
    keyed = {"effect": "keyed", "key_argument": "id", "key_ttl": "1h"}
    worker = await listing.worker(small_world, ScriptedLister())

    workflow_id = await small_world.submit(listing.calls(listing.step(idempotency_key="order:1"), **keyed))
    await small_world.run(worker)

    assert await status(small_world, workflow_id) == "succeeded"
    assert [request.key for request in small_world.tools.ledger] == ["order:1"]


async def test_gate_stands_before_a_tool_that_was_listed(small_world: World) -> None:
    worker = await listing.worker(small_world, ScriptedLister())
    gated = {"tools": {"commit": {"approve": "always"}}}

    workflow_id = await small_world.submit(listing.calls(listing.step(), **gated))
    await small_world.run(worker)

    assert await status(small_world, workflow_id) == "waiting"
    assert small_world.tools.ledger == []


@pytest.mark.parametrize(
    ("definition", "kind", "said"),
    [
        (listing.calls(listing.step("git.push")), "tool_unknown", "There is no tool git.push"),
        (listing.agent("git.push", "git.log"), "tool_unknown", "git.commit, git.log"),
    ],
)
async def test_step_fails_when_its_server_has_no_such_tool(
    small_world: World, definition: dict[str, Any], kind: str, said: str
) -> None:
    worker = await listing.worker(small_world, ScriptedLister())

    workflow_id = await small_world.submit(definition)
    await small_world.run(worker)

    failure = (await small_world.workflow(workflow_id))["failure"]
    assert failure["kind"] == kind
    assert said in failure["message"]


async def test_tool_with_a_remote_schema_is_left_out_and_named(small_world: World) -> None:
    remote = {"name": "remote", "input_schema": {"type": "object", "$ref": "https://x.io/schema"}}
    worker = await listing.worker(small_world, ScriptedLister(answers=[[LOG, remote]]))

    await small_world.submit(listing.agent())
    await small_world.run(worker)

    assert [tool["name"] for tool in small_world.model.requests[0].tools] == ["git-log"]
    [event] = await small_world.rows("SELECT data FROM events WHERE type = 'agent.tools.listed'")
    [left] = event["data"]["left_out"]
    assert left["tool"] == "remote"
    assert "nothing is fetched" in left["reason"]


async def test_server_that_does_not_answer_is_asked_again(small_world: World) -> None:
    lister = ScriptedLister(answers=[not_sent(), not_sent()])
    worker = await listing.worker(small_world, lister)

    workflow_id = await small_world.submit(listing.agent())
    await small_world.run(worker)

    assert await status(small_world, workflow_id) == "succeeded"
    assert lister.asked == ["git"] * 3


async def test_step_that_failed_before_its_list_was_known_goes_on_when_it_is_reopened(small_world: World) -> None:
    refused = not_sent(FailureKind.OUTBOUND_FORBIDDEN)
    lister = ScriptedLister(answers=[refused])
    worker = await listing.worker(small_world, lister)
    workflow_id = await small_world.submit(listing.agent())
    await small_world.run(worker)
    assert (await small_world.workflow(workflow_id))["failure"]["kind"] == "outbound_forbidden"

    await retry.retry(small_world.api, ids.DEFAULT_TENANT, workflow_id, note="allowed now", by="ana")
    await small_world.run(worker)

    assert await status(small_world, workflow_id) == "succeeded"
    assert len(small_world.model.requests) == 1


async def test_worker_that_dies_while_it_asks_leaves_the_question_to_another(small_world: World) -> None:
    lister = ScriptedLister()
    first, second = await listing.worker(small_world, lister), await listing.worker(small_world, lister, "worker.2")
    workflow_id = await small_world.submit(listing.agent())
    [call] = await small_world.due_calls()

    await first.claim(call)
    await small_world.lose(first, proof=True)
    await small_world.sweep(second)
    await small_world.run(second)

    assert await status(small_world, workflow_id) == "succeeded"


async def test_answer_for_a_paused_workflow_is_kept_and_nothing_is_sent(small_world: World) -> None:
    worker = await listing.worker(small_world, ScriptedLister())
    workflow_id = await small_world.submit(listing.agent())
    [call] = await small_world.due_calls()
    claimed = await worker.claim(call)
    await pause.pause(small_world.api, ids.DEFAULT_TENANT, workflow_id, reason="wait", by="ana")

    answer = await ScriptedLister().discover(_git(), seconds=1, may_send=lambda: True)
    await record.record(worker.services, claimed, answer)

    assert await status(small_world, workflow_id) == "paused"
    assert small_world.model.requests == []
    await pause.resume(small_world.api, ids.DEFAULT_TENANT, workflow_id, reason=None, by="ana")
    await small_world.run(worker)
    assert await status(small_world, workflow_id) == "succeeded"


async def test_answer_for_a_cancelled_workflow_begins_nothing(small_world: World) -> None:
    worker = await listing.worker(small_world, ScriptedLister())
    workflow_id = await small_world.submit(listing.agent())
    [call] = await small_world.due_calls()
    claimed = await worker.claim(call)
    await cancel.cancel(small_world.api, ids.DEFAULT_TENANT, workflow_id, reason="no", by="ana")

    answer = await ScriptedLister().discover(_git(), seconds=1, may_send=lambda: True)
    await record.record(worker.services, claimed, answer)
    await small_world.run(worker)

    assert await status(small_world, workflow_id) == "cancelled"
    assert small_world.model.requests == []


def _git() -> Any:
    return McpServer(name="git", timeout=timedelta(seconds=1), command=("x",), environment={})
