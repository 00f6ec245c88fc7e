"""Pause: what was not sent is held, what is in flight ends, what would become due is held, too; then it goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from app.domain import ids
from app.engine import pause
from app.errors import NotFound
from tests.engine.operations import (
    audited,
    call_states,
    cancelled,
    decided,
    expect_refusal,
    expect_the_laws,
    paused,
    resumed,
)
from tests.engine.world import Answer, Worker, World, ok, one, rate_limited, refused, says, tool, unknown, uses

CHAIN = {
    "name": "chain",
    "tools": {"do": tool("keyed"), "then": tool("at_most_once")},
    "steps": {"a": {"tool": "do", "with": {"n": 1}}, "b": {"tool": "then", "with": {}, "needs": ["a"]}},
}
PROBED = {
    "name": "probed",
    "tools": {
        "look": tool("read_only"),
        "do": tool("checkable", probe={"tool": "look", "with": {"n": "${{ arguments.n }}"}, "found": "output.found"}),
    },
    "steps": {"s": {"tool": "do", "with": {"n": 1}}},
}


@pytest.fixture
async def lawful(small_world: World) -> AsyncIterator[World]:
    yield small_world
    await expect_the_laws(small_world)


async def during(world: World, worker: Worker, tool_name: str, what: Any, answer: Answer) -> None:
    """Something happens while the tool is at work, before it answers."""

    async def later() -> Answer:
        await what
        return answer

    world.tools.script[tool_name] = [lambda _: later()]
    [call] = await world.due_calls()
    await worker.run(call)


async def status(world: World, workflow_id: Any) -> str:
    found: str = (await world.workflow(workflow_id))["status"]
    return found


async def test_pause_holds_what_is_due_when_nothing_was_sent(lawful: World) -> None:
    worker = await lawful.worker()
    workflow_id = await lawful.submit(CHAIN, webhook={"url": "http://127.0.0.1:9/hook", "events": ["*"]})

    await paused(lawful, workflow_id)
    await lawful.run(worker)
    held = await call_states(lawful, workflow_id)
    nothing_sent = lawful.tools.ledger.copy()
    await resumed(lawful, workflow_id)
    await lawful.run(worker)

    assert (held, nothing_sent) == ({"a#1": "held(pause)"}, [])
    assert await status(lawful, workflow_id) == "succeeded"
    assert await audited(lawful) == [("workflow.pause", "kim"), ("workflow.resume", "kim")]
    events = await lawful.events(workflow_id)
    assert (events.count("workflow.paused"), events.count("workflow.resumed")) == (1, 1)


async def test_paused_workflow_finishes_what_is_in_flight_and_holds_what_follows(lawful: World) -> None:
    worker = await lawful.worker()
    workflow_id = await lawful.submit(CHAIN)

    await during(lawful, worker, "do", paused(lawful, workflow_id), ok(1))
    await lawful.run(worker)
    meanwhile = await call_states(lawful, workflow_id)
    await resumed(lawful, workflow_id)
    await lawful.run(worker)

    assert meanwhile == {"a#1": "succeeded", "b#1": "held(pause)"}
    assert [request.tool.name for request in lawful.tools.ledger] == ["do", "then"]
    assert await status(lawful, workflow_id) == "succeeded"


async def test_paused_workflow_succeeds_when_its_last_call_in_flight_ends(lawful: World) -> None:
    worker = await lawful.worker()
    workflow_id = await lawful.submit(one("keyed"))

    await during(lawful, worker, "do", paused(lawful, workflow_id), ok(1))

    assert await status(lawful, workflow_id) == "succeeded"


async def test_paused_workflow_fails_when_its_call_in_flight_is_refused(lawful: World) -> None:
    worker = await lawful.worker()
    workflow_id = await lawful.submit(CHAIN)

    await during(lawful, worker, "do", paused(lawful, workflow_id), refused(422))

    assert await status(lawful, workflow_id) == "failed"


async def test_uncertain_call_stays_due_at_its_own_time_when_paused(lawful: World) -> None:
    # It may be at the tool: it is in flight, and its repeat finds out. But a pause is no reason to hurry it.
    lawful.tools.script["do"] = [unknown()]
    worker = await lawful.worker()
    workflow_id = await lawful.submit(one("keyed", key="k"))
    await lawful.run(worker, hurry=False)
    at = "SELECT due_at FROM dues WHERE kind = 'call'"
    before = await lawful.row(at)

    await paused(lawful, workflow_id)
    after = await lawful.row(at)
    states = await call_states(lawful, workflow_id)
    await lawful.run(worker)

    assert (states, after) == ({"s#1": "due"}, before)
    assert await status(lawful, workflow_id) == "succeeded"
    assert len({request.key for request in lawful.tools.ledger}) == 1


async def test_call_that_was_only_told_to_wait_is_held_when_paused(lawful: World) -> None:
    lawful.tools.script["do"] = [rate_limited(30)]
    worker = await lawful.worker()
    workflow_id = await lawful.submit(one("at_most_once"))
    await lawful.run(worker, hurry=False)

    await paused(lawful, workflow_id)

    assert await call_states(lawful, workflow_id) == {"s#1": "held(pause)"}


async def test_probe_goes_on_at_its_own_time_when_the_workflow_is_paused(lawful: World) -> None:
    lawful.tools.script |= {"do": [unknown()], "look": [{"found": False}, {"found": True}]}
    worker = await lawful.worker()
    workflow_id = await lawful.submit(PROBED)
    [call] = await lawful.due_calls()
    await worker.run(call)
    [probe] = await lawful.due_calls()
    await worker.run(probe)
    at = "SELECT due_at FROM dues WHERE kind = 'call'"
    before = await lawful.row(at)

    await paused(lawful, workflow_id)
    after = await lawful.row(at)
    await lawful.run(worker)

    assert after == before
    assert (await status(lawful, workflow_id), len(lawful.tools.sent("do"))) == ("succeeded", 1)


async def test_second_pause_and_second_resume_change_nothing_when_repeated(lawful: World) -> None:
    workflow_id = await lawful.submit(CHAIN)

    await paused(lawful, workflow_id)
    once = await lawful.workflow(workflow_id)
    await paused(lawful, workflow_id)
    twice = await lawful.workflow(workflow_id)
    await resumed(lawful, workflow_id)
    again = await lawful.workflow(workflow_id)
    await resumed(lawful, workflow_id)

    assert (twice, await lawful.workflow(workflow_id)) == (once, again)
    assert await audited(lawful) == [("workflow.pause", "kim"), ("workflow.resume", "kim")]


async def test_pause_is_refused_with_what_is_possible_when_the_workflow_ends_or_has_ended(lawful: World) -> None:
    lawful.tools.script["do"] = [unknown()]
    worker = await lawful.worker()
    draining = await lawful.submit(one("at_most_once"), key="a")
    await lawful.run(worker)
    await cancelled(lawful, draining)
    done = await lawful.submit(one("read_only"), key="b")
    await lawful.run(worker)

    await expect_refusal(paused(lawful, draining), ["resolve", "wait", "hold"])
    await expect_refusal(resumed(lawful, draining), ["resolve", "wait", "hold"])
    await expect_refusal(paused(lawful, done), ["read"])
    await expect_refusal(resumed(lawful, done), ["read"])

    with pytest.raises(NotFound):
        await pause.pause(lawful.api, ids.derived("another tenant"), done, reason=None, by="kim")
    assert [action for action, _ in await audited(lawful)] == ["workflow.cancel"]


async def test_paused_workflow_is_cancelled_at_once_when_nothing_was_sent(lawful: World) -> None:
    workflow_id = await lawful.submit(CHAIN)

    await paused(lawful, workflow_id)
    await cancelled(lawful, workflow_id)

    assert await status(lawful, workflow_id) == "cancelled"
    assert await call_states(lawful, workflow_id) == {"a#1": "cancelled"}


async def test_deadline_fails_a_workflow_when_it_is_paused(lawful: World) -> None:
    worker = await lawful.worker()
    workflow_id = await lawful.submit(CHAIN, deadline=timedelta(minutes=1))

    await paused(lawful, workflow_id)
    await lawful.rows("UPDATE dues SET ring_at = clock_timestamp() WHERE kind = 'deadline'")
    await lawful.sweep(worker)

    workflow = await lawful.workflow(workflow_id)
    assert (workflow["status"], workflow["failure"]["kind"]) == ("failed", "deadline_exceeded")


async def test_step_timeout_fails_a_step_when_the_workflow_is_paused(lawful: World) -> None:
    worker = await lawful.worker()
    definition = one("keyed")
    definition["steps"]["s"]["timeout"] = "1m"
    workflow_id = await lawful.submit(definition)

    await paused(lawful, workflow_id)
    await lawful.rows("UPDATE dues SET ring_at = clock_timestamp() WHERE kind = 'step_timeout'")
    await lawful.sweep(worker)

    assert (await lawful.workflow(workflow_id))["failure"]["kind"] == "step_timeout"


async def test_approval_decided_meanwhile_sends_nothing_until_resumed(lawful: World) -> None:
    worker = await lawful.worker()
    steps = {"ask": {"approval": {"title": "Go?"}}, "go": {"tool": "do", "with": {}, "needs": ["ask"]}}
    gated = {"name": "asks", "tools": {"do": tool("at_most_once", approve="always")}, "steps": steps}
    workflow_id = await lawful.submit(gated)

    await paused(lawful, workflow_id)
    await decided(lawful, "approve")
    asked_about_the_call = await call_states(lawful, workflow_id)
    await decided(lawful, "approve")
    await lawful.run(worker)
    approved = (await call_states(lawful, workflow_id), len(lawful.tools.ledger), await status(lawful, workflow_id))
    await resumed(lawful, workflow_id)
    await lawful.run(worker)

    assert asked_about_the_call == {"go#1": "held(approval)"}
    assert approved == ({"go#1": "held(pause)"}, 0, "paused")
    assert (await status(lawful, workflow_id), len(lawful.tools.ledger)) == ("succeeded", 1)


async def test_agent_asks_no_further_question_when_paused_in_a_turn(lawful: World) -> None:
    worker = await lawful.worker()
    definition = {
        "name": "agent",
        "tools": {"do": tool("at_most_once")},
        "steps": {"a": {"agent": {"model": "fast", "tools": ["do"]}, "prompt": "Go."}},
    }
    lawful.model.answers = [uses(("do", {"n": 1}), ("do", {"n": 2})), says("done")]
    workflow_id = await lawful.submit(definition)
    [model] = await lawful.due_calls()
    await worker.run(model)
    first, second = sorted(await lawful.due_calls())

    async def pauses() -> Answer:
        await paused(lawful, workflow_id)
        return ok(1)

    lawful.tools.script["do"] = [lambda _: pauses()]
    await worker.run(first)
    await worker.run(second)
    meanwhile = await call_states(lawful, workflow_id)
    await resumed(lawful, workflow_id)
    await lawful.run(worker)

    assert sorted(meanwhile.values()) == ["held(pause)", "succeeded", "succeeded"]
    assert (await status(lawful, workflow_id), len(lawful.tools.ledger), len(lawful.model.requests)) == (
        "succeeded",
        2,
        2,
    )


async def test_worker_lost_while_paused_leaves_a_harmless_call_held_and_an_uncertain_one_due(lawful: World) -> None:
    lost, worker = await lawful.worker("lost"), await lawful.worker("other")
    reads = await lawful.submit(one("read_only"), key="a")
    keyed = await lawful.submit(one("keyed"), key="b")
    for call in await lawful.due_calls():
        await lost.claim(call)

    await paused(lawful, reads)
    await paused(lawful, keyed)
    await lawful.lose(lost, proof=True)
    await lawful.sweep(worker)

    assert await call_states(lawful, reads) == {"s#1": "held(pause)"}
    assert await call_states(lawful, keyed) == {"s#1": "due"}
