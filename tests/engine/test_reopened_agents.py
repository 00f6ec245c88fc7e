"""Retry of agents and of many items: a conversation stays one in which every wish has exactly one answer."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from app.domain import conversation
from app.domain.facts import CallSettled
from app.domain.items import ITEM_WINDOW
from app.domain.outcomes import Failure, Outcome
from app.domain.states import AttemptOutcome, FailureKind
from app.engine import record
from tests.engine.operations import call_states, cancelled, decided, expect_the_laws, retried
from tests.engine.world import Answer, Worker, World, ok, refused, says, tool, uses

ITEMS_DONE = "SELECT count(*) AS n FROM steps WHERE parent = 's' AND state = 'succeeded'"


@pytest.fixture
async def lawful(small_world: World) -> AsyncIterator[World]:
    yield small_world
    await expect_the_laws(small_world)
    await expect_well_formed_conversations(small_world)


async def expect_well_formed_conversations(world: World) -> None:
    """What was sent began as what was sent before; and every tool use that the model saw has exactly one result."""
    for request in world.model.requests:
        assert conversation.check(list(request.messages)) == []
        blocks = [block for body in request.messages for block in _blocks(json.loads(body))]
        asked = [block["id"] for block in blocks if block["type"] == "tool_use"]
        answered = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        assert answered == asked


def _blocks(message: Any) -> list[Any]:
    return message["content"] if isinstance(message["content"], list) else []


def agent(effect: str = "at_most_once", *, more: dict[str, Any] | None = None, **step: Any) -> dict[str, Any]:
    given = {"model": "fast", "tools": ["do"], **step.pop("agent", {})}
    steps = {"a": {"agent": given, "prompt": "Go.", **step}, **(more or {})}
    return {"name": "agent", "tools": {"do": tool(effect), "fail": tool("read_only")}, "steps": steps}


async def status(world: World, workflow_id: UUID) -> str:
    found: str = (await world.workflow(workflow_id))["status"]
    return found


async def in_the_middle(world: World, worker: Worker, workflow_id: UUID) -> None:
    """The model asked for two effects; the first is at the tool when somebody cancels, the second was not sent."""
    world.model.answers = [uses(("do", {"n": 1}), ("do", {"n": 2})), says("done")]
    await worker.run((await world.call(workflow_id, "a"))["id"])

    async def meanwhile() -> Answer:
        await cancelled(world, workflow_id)
        return ok({"n": 1})

    world.tools.script["do"] = [lambda _: meanwhile()]
    await worker.run((await world.call(workflow_id, "a", 2))["id"])
    assert await status(world, workflow_id) == "cancelled"


async def test_agent_cancelled_in_the_middle_of_a_turn_does_only_what_was_not_sent(lawful: World) -> None:
    worker = await lawful.worker()
    workflow_id = await lawful.submit(agent())
    await in_the_middle(lawful, worker, workflow_id)
    states = await call_states(lawful, workflow_id)

    await retried(lawful, workflow_id)
    await lawful.run(worker)

    assert states == {"a#1": "succeeded", "a#2": "succeeded", "a#3": "cancelled"}
    assert [request.arguments["n"] for request in lawful.tools.ledger] == [1, 2]
    assert (await status(lawful, workflow_id), len(lawful.model.requests)) == ("succeeded", 2)
    assert (await lawful.call(workflow_id, "a", 4))["change"]["change"] == "reopened"


async def test_agent_is_reopened_twice_and_its_conversation_stays_whole(lawful: World) -> None:
    worker = await lawful.worker()
    workflow_id = await lawful.submit(agent())
    await in_the_middle(lawful, worker, workflow_id)

    await retried(lawful, workflow_id)
    await cancelled(lawful, workflow_id)
    await retried(lawful, workflow_id)
    await lawful.run(worker)

    assert [request.arguments["n"] for request in lawful.tools.ledger] == [1, 2]
    assert (await status(lawful, workflow_id), len(lawful.model.requests)) == ("succeeded", 2)


async def test_agent_whose_model_answered_while_it_drained_is_asked_again(lawful: World) -> None:
    worker = await lawful.worker()
    workflow_id = await lawful.submit(agent())

    def meanwhile(_: Any) -> Outcome:
        return uses(("do", {"n": 1}))

    claimed = await worker.claim((await lawful.call(workflow_id, "a"))["id"])
    await cancelled(lawful, workflow_id)
    await record.record(worker.services, claimed, meanwhile(None))
    ended = await call_states(lawful, workflow_id)
    lawful.model.answers = [uses(("do", {"n": 1})), says("done")]
    await retried(lawful, workflow_id)
    await lawful.run(worker)

    assert ended == {"a#1": "succeeded"}, "a wish that nobody carries out is no part of the conversation"
    assert (await status(lawful, workflow_id), len(lawful.tools.ledger)) == ("succeeded", 1)


async def test_wish_that_comes_together_with_a_failure_elsewhere_is_not_left_unanswered(lawful: World) -> None:
    # One transaction records both: the model's wish is still being compared with earlier calls when the drain begins.
    worker = await lawful.worker()
    workflow_id = await lawful.submit(agent(more={"b": {"tool": "fail", "with": {}}}))
    asked = await worker.claim((await lawful.call(workflow_id, "a"))["id"])
    other = await worker.claim((await lawful.call(workflow_id, "b"))["id"])
    both = [(asked, uses(("do", {"n": 1}))), (other, refused(404))]
    batch = [
        record.Settled(
            workflow_id=workflow_id,
            fact=CallSettled(call_id=c.call_id, attempt_id=c.attempt_id, step=c.step, outcome=outcome),
        )
        for c, outcome in both
    ]

    await record.record_batch(worker.services, batch)
    before = await status(lawful, workflow_id)
    lawful.model.answers = [uses(("do", {"n": 1})), says("done")]
    await retried(lawful, workflow_id)
    await lawful.run(worker)

    assert (before, await status(lawful, workflow_id), len(lawful.tools.sent("do"))) == ("failed", "succeeded", 1)


async def test_agent_that_failed_for_its_model_asks_the_same_again(lawful: World) -> None:
    failure = Failure(kind=FailureKind.MODEL_NOT_FOUND, message="404", status_code=404)
    lawful.model.answers = [Outcome(certainty=AttemptOutcome.FAILED, failure=failure, status_code=404), says("done")]
    worker = await lawful.worker()
    workflow_id = await lawful.submit(agent())
    await lawful.run(worker)
    before = (await lawful.workflow(workflow_id))["failure"]["kind"]

    await retried(lawful, workflow_id)
    await lawful.run(worker)

    first, second = lawful.model.requests
    assert (before, await status(lawful, workflow_id)) == ("model_not_found", "succeeded")
    assert list(first.messages) == list(second.messages)


async def test_agent_that_used_all_its_turns_gets_as_many_again_and_each_result_once(lawful: World) -> None:
    worker = await lawful.worker()
    lawful.model.answers = [uses(("do", {"n": n})) for n in range(4)] + [says("done")]
    workflow_id = await lawful.submit(agent("read_only", agent={"max_turns": 2}))
    await lawful.run(worker)
    first = (await lawful.workflow(workflow_id))["failure"]["kind"], len(lawful.model.requests)

    await retried(lawful, workflow_id)
    await lawful.run(worker)
    second = (await lawful.workflow(workflow_id))["failure"]["kind"], len(lawful.model.requests)
    await retried(lawful, workflow_id)
    await lawful.run(worker)

    assert (first, second) == (("budget_exceeded", 2), ("budget_exceeded", 4))
    assert (await status(lawful, workflow_id), len(lawful.tools.ledger)) == ("succeeded", 4)


async def test_repeat_nobody_decided_about_is_asked_about_again_and_not_sent_by_a_retry(lawful: World) -> None:
    worker = await lawful.worker()
    lawful.model.answers = [uses(("do", {"n": 1})), uses(("do", {"n": 1})), says("done")]
    workflow_id = await lawful.submit(agent())
    await lawful.run(worker)
    held = await call_states(lawful, workflow_id)

    await cancelled(lawful, workflow_id)
    await retried(lawful, workflow_id)
    await lawful.run(worker)
    reopened, sent = await call_states(lawful, workflow_id), len(lawful.tools.ledger)
    await decided(lawful, "reject")
    await lawful.run(worker)

    assert (held["a#4"], reopened["a#5"], sent) == ("held(repeat)", "held(repeat)", 1)
    assert (await status(lawful, workflow_id), len(lawful.tools.ledger)) == ("succeeded", 1)


async def test_twin_wish_of_one_turn_is_still_guarded_when_neither_was_sent(lawful: World) -> None:
    worker = await lawful.worker()
    lawful.model.answers = [uses(("do", {"n": 1}), ("do", {"n": 1})), says("done")]
    workflow_id = await lawful.submit(agent())
    await worker.run((await lawful.call(workflow_id, "a"))["id"])

    await cancelled(lawful, workflow_id)
    await retried(lawful, workflow_id)
    await lawful.run(worker)
    states = await call_states(lawful, workflow_id)
    await decided(lawful, "reject")
    await lawful.run(worker)

    assert (states["a#4"], states["a#5"], len(lawful.tools.ledger)) == ("succeeded", "held(repeat)", 1)
    assert await status(lawful, workflow_id) == "succeeded"


async def test_agent_out_of_time_goes_on_with_the_result_that_came_too_late(lawful: World) -> None:
    worker = await lawful.worker()
    lawful.model.answers = [uses(("do", {"n": 1})), says("done")]
    workflow_id = await lawful.submit(agent(timeout="1m"))
    await worker.run((await lawful.call(workflow_id, "a"))["id"])

    async def late() -> Answer:
        await lawful.rows("UPDATE dues SET ring_at = clock_timestamp() WHERE kind = 'step_timeout'")
        await lawful.sweep(worker)
        return ok({"booked": "tuesday"})

    lawful.tools.script["do"] = [lambda _: late()]
    await lawful.run(worker)
    failure = (await lawful.workflow(workflow_id))["failure"]["kind"]
    await retried(lawful, workflow_id)
    await lawful.run(worker)

    assert (failure, await status(lawful, workflow_id)) == ("step_timeout", "succeeded")
    assert (len(lawful.tools.ledger), b"tuesday" in lawful.model.requests[-1].messages[-1]) == (1, True)


# --- items ---------------------------------------------------------------------------------------------------------


def fan(**step: Any) -> dict[str, Any]:
    each = {"for_each": "${{ input.list }}", "max_parallel": 3, "tool": "do", "with": {"n": "${{ item }}"}, **step}
    return {
        "name": "fan",
        "tools": {"do": tool("keyed")},
        "steps": {"s": each},
        "output": {"all": "${{ steps.s.output }}"},
    }


async def test_failed_cancelled_and_unbegun_items_go_on_and_the_done_ones_stay(lawful: World) -> None:
    worker = await lawful.worker()
    workflow_id = await lawful.submit(fan(), input={"list": list(range(7))})
    lawful.tools.script["do"] = [{"n": 0}, refused(422)]
    await worker.run((await lawful.call(workflow_id, "s.0"))["id"])
    await worker.run((await lawful.call(workflow_id, "s.1"))["id"])
    await cancelled(lawful, workflow_id)
    items = "SELECT state FROM steps WHERE parent = 's' ORDER BY item_index"
    before = [item["state"] for item in await lawful.rows(items)]

    lawful.tools.script["do"] = [lambda request: {"n": request.arguments["n"]}] * 20
    await retried(lawful, workflow_id)
    parallel = await lawful.due_calls()
    await lawful.run(worker)

    assert before == ["succeeded", "failed", *["cancelled"] * 5]
    assert len(parallel) == 3
    workflow = await lawful.workflow(workflow_id)
    assert (workflow["status"], workflow["output"]) == ("succeeded", {"all": [{"n": n} for n in range(7)]})
    sent = [request.arguments["n"] for request in lawful.tools.ledger]
    assert sorted(sent) == [0, 1, 1, 2, 3, 4, 5, 6]
    assert len({request.key for request in lawful.tools.ledger}) == len(sent)


async def test_items_beyond_the_first_window_are_done_once_each_when_reopened(lawful: World) -> None:
    worker = await lawful.worker()
    total = ITEM_WINDOW + 20
    workflow_id = await lawful.submit(fan(max_parallel=40), input={"list": list(range(total))})
    first = await lawful.due_calls()
    lawful.tools.script["do"] = [refused(422)]
    for call in first:
        await worker.run(call)
    failed = await lawful.workflow(workflow_id)

    await retried(lawful, workflow_id)
    await lawful.run(worker)

    assert (failed["status"], failed["failure"]["kind"]) == ("failed", "item_failures_exceeded")
    assert (await lawful.row(ITEMS_DONE))["n"] == total
    sent = [request.arguments["n"] for request in lawful.tools.ledger]
    assert (len(sent), set(sent)) == (total + 1, set(range(total)))
    assert await status(lawful, workflow_id) == "succeeded"


async def test_for_each_whose_last_item_ended_in_the_drain_is_complete_when_reopened(lawful: World) -> None:
    worker = await lawful.worker()
    workflow_id = await lawful.submit(fan(), input={"list": [1]})

    async def meanwhile() -> Answer:
        await cancelled(lawful, workflow_id)
        return ok(1)

    lawful.tools.script["do"] = [lambda _: meanwhile()]
    await lawful.run(worker)
    await retried(lawful, workflow_id)

    assert (await lawful.workflow(workflow_id))["output"] == {"all": [1]}


async def test_agent_items_go_on_with_their_own_conversations(lawful: World) -> None:
    worker = await lawful.worker()
    step = {"for_each": "${{ input.list }}", "agent": {"model": "fast", "tools": ["do"]}, "prompt": "Go ${{ item }}."}
    definition = {"name": "many", "tools": {"do": tool("at_most_once")}, "steps": {"s": step}}
    workflow_id = await lawful.submit(definition, input={"list": [1, 2]})
    lawful.model.answers = [uses(("do", {"n": 1})), uses(("do", {"n": 2}))]
    for path in ("s.0", "s.1"):
        await worker.run((await lawful.call(workflow_id, path))["id"])
    await worker.run((await lawful.call(workflow_id, "s.0", 2))["id"])
    await cancelled(lawful, workflow_id)

    await retried(lawful, workflow_id)
    await lawful.run(worker)

    assert sorted(request.arguments["n"] for request in lawful.tools.ledger) == [1, 2]
    assert (await lawful.step(workflow_id, "s"))["output"] == ["done", "done"]
