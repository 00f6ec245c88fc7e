"""An operator ends a step by hand or lets its next try begin: what that does in each state, and what it must not do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from app.domain import ids
from app.engine import operate_step, switch
from app.errors import InvalidValue, NotFound
from tests.engine.operations import (
    NEXT,
    TENANT,
    audited,
    call_states,
    cancelled,
    ended,
    expect_refusal,
    expect_the_laws,
    operated,
    paused,
    seen,
    then,
)
from tests.engine.world import Answer, Worker, World, not_sent, one, rate_limited, tool, unknown, uses

SCHEMA = {"title": {"type": "string"}}


@pytest.fixture
async def lawful(small_world: World) -> AsyncIterator[World]:
    yield small_world
    await expect_the_laws(small_world)


def in_backoff(world: World) -> None:
    world.tools.script["do"] = [not_sent()]


# --- skip, complete, fail ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backing_off", [False, True])
async def test_skipped_step_takes_those_along_that_only_need_it(lawful: World, backing_off: bool) -> None:
    worker = await lawful.worker()
    workflow_id = await lawful.submit(then({"tool": "do", "with": {}}))
    if backing_off:
        in_backoff(lawful)
        await lawful.run(worker, hurry=False)

    await operated(lawful, workflow_id, "s", "skip")
    await operated(lawful, workflow_id, "s", "skip")

    assert await seen(lawful, workflow_id) == (None, None, "skipped")
    assert await ended(lawful, workflow_id) == ("succeeded", 3, 0)
    assert await audited(lawful) == [("step.skip", "kim")]
    assert (await lawful.events(workflow_id)).count("agent.step.operated") == 1


async def test_completed_step_gives_its_dependents_the_output_of_the_operator(lawful: World) -> None:
    workflow_id = await lawful.submit(then({"tool": "do", "with": {}}))

    await operated(lawful, workflow_id, "s", "complete", output={"id": 7})
    await operated(lawful, workflow_id, "s", "complete", output={"id": 7})

    assert await seen(lawful, workflow_id) == ({"id": 7}, None, "succeeded")
    assert await ended(lawful, workflow_id) == ("succeeded", 3, 0)
    other = operated(lawful, workflow_id, "s", "complete", output={"id": 8})
    await expect_refusal(other, ["read"])


async def test_failed_by_hand_fails_the_workflow_unless_its_step_says_continue(lawful: World) -> None:
    fails = await lawful.submit(then({"tool": "do", "with": {}}), key="a")
    goes_on = await lawful.submit(then({"tool": "do", "with": {}, "on_error": "continue"}), key="b")

    await operated(lawful, fails, "s", "fail")
    await operated(lawful, goes_on, "s", "fail")

    workflow = await lawful.workflow(fails)
    assert (workflow["status"], workflow["failure"]["kind"], workflow["failure"]["step"]) == (
        "failed",
        "cancelled",
        "s",
    )
    output, error, other = await seen(lawful, goes_on)
    assert (output, error["kind"], other) == (None, "cancelled", "succeeded")


@pytest.mark.parametrize(("action", "state"), [("skip", "skipped"), ("complete", "succeeded"), ("fail", "failed")])
async def test_step_is_ended_by_hand_before_it_began(lawful: World, action: str, state: str) -> None:
    worker = await lawful.worker()
    steps = {"a": {"tool": "do", "with": {}}, "s": {"tool": "do", "with": {}, "needs": ["a"]}, "after": NEXT}
    workflow_id = await lawful.submit({"name": "early", "tools": {"do": tool("at_most_once")}, "steps": steps})

    await operated(lawful, workflow_id, "s", action, output=1)
    await lawful.run(worker)

    assert (await lawful.step(workflow_id, "s"))["state"] == state
    assert (await lawful.workflow(workflow_id))["status"] == ("failed" if action == "fail" else "succeeded")
    assert len(lawful.tools.ledger) == (0 if action == "fail" else 1)


async def test_output_by_hand_must_fit_the_schema_of_the_step(lawful: World) -> None:
    step = {"agent": {"model": "fast"}, "prompt": "Go.", "output_schema": SCHEMA}
    workflow_id = await lawful.submit(then(step, {}))

    with pytest.raises(InvalidValue) as told:
        await operated(lawful, workflow_id, "s", "complete", output={"title": 1})
    untouched = (await lawful.step(workflow_id, "s"))["state"]
    await operated(lawful, workflow_id, "s", "complete", output={"title": "t"})

    assert [fault.pointer for fault in told.value.faults] == ["/output/title"]
    assert (untouched, await audited(lawful)) == ("running", [("step.complete", "kim")])
    assert await seen(lawful, workflow_id) == ({"title": "t"}, None, "succeeded")


async def test_approval_step_is_completed_by_hand_and_its_question_closed(lawful: World) -> None:
    workflow_id = await lawful.submit(then({"approval": {"title": "Go?"}}))

    await expect_refusal(operated(lawful, workflow_id, "s", "retry-now"), ["approve", "reject"])
    await operated(lawful, workflow_id, "s", "complete", output={"decision": "approve"})

    approval = await lawful.row("SELECT status FROM approvals")
    assert (approval["status"], await ended(lawful, workflow_id)) == ("cancelled", ("succeeded", 3, 0))
    assert (await lawful.workflow(workflow_id))["attention"] == []


async def test_agent_step_is_skipped_between_its_turns_with_its_open_question(lawful: World) -> None:
    worker = await lawful.worker()
    step = {"agent": {"model": "fast", "tools": ["do"]}, "prompt": "Go."}
    lawful.model.answers = [uses(("do", {"n": 1}), ("do", {"n": 1}))]
    workflow_id = await lawful.submit(then(step))
    await lawful.run(worker)

    waiting = await call_states(lawful, workflow_id)
    await operated(lawful, workflow_id, "s", "skip")

    assert waiting == {"s#1": "succeeded", "s#2": "succeeded", "s#3": "held(repeat)"}
    assert (await lawful.row("SELECT status FROM approvals"))["status"] == "cancelled"
    assert await ended(lawful, workflow_id) == ("succeeded", 3, 0)


# --- what is in the way --------------------------------------------------------------------------------------------


async def test_step_is_not_ended_by_hand_while_its_call_is_in_flight_or_in_doubt(lawful: World) -> None:
    worker = await lawful.worker()
    workflow_id = await lawful.submit(then({"tool": "do", "with": {}}))

    async def meanwhile() -> Answer:
        for action in ("skip", "complete", "fail", "retry-now"):
            await expect_refusal(operated(lawful, workflow_id, "s", action), ["wait"])
        return unknown()

    lawful.tools.script["do"] = [lambda _: meanwhile()]
    await lawful.run(worker)

    for action in ("skip", "complete", "fail"):
        await expect_refusal(operated(lawful, workflow_id, "s", action), ["resolve"])
    assert await call_states(lawful, workflow_id) == {"s#1": "in_doubt"}
    assert await audited(lawful) == []


async def test_step_is_not_ended_by_hand_while_its_effect_is_probed(lawful: World) -> None:
    lawful.tools.script["do"] = [unknown()]
    worker = await lawful.worker()
    tools = {
        "look": tool("read_only"),
        "do": tool("checkable", probe={"tool": "look", "with": {"n": "${{ arguments.n }}"}, "found": "output.ok"}),
    }
    workflow_id = await lawful.submit(then({"tool": "do", "with": {"n": 1}}, tools))
    await worker.run((await lawful.due_calls())[0])

    for action in ("skip", "complete", "fail"):
        await expect_refusal(operated(lawful, workflow_id, "s", action), ["wait"])
    await lawful.run(worker)

    assert await seen(lawful, workflow_id) == ({"ok": True}, None, "succeeded")


async def test_step_whose_call_may_have_happened_is_repeated_first_and_never_skipped(lawful: World) -> None:
    lawful.tools.script["do"] = [unknown(), {"id": 1}]
    worker = await lawful.worker()
    workflow_id = await lawful.submit(then({"tool": "do", "with": {}}, {"do": tool("keyed")}))
    await lawful.run(worker, hurry=False)

    for action in ("skip", "complete", "fail"):
        await expect_refusal(operated(lawful, workflow_id, "s", action), ["retry-now", "cancel"])
    await operated(lawful, workflow_id, "s", "retry-now")
    await lawful.run(worker, hurry=False)

    assert await seen(lawful, workflow_id) == ({"id": 1}, None, "succeeded")


async def test_ended_step_unknown_step_and_unknown_action_are_refused(lawful: World) -> None:
    worker = await lawful.worker()
    workflow_id = await lawful.submit(one("read_only"))
    await lawful.run(worker)

    await expect_refusal(operated(lawful, workflow_id, "s", "skip"), ["read"])
    await expect_refusal(operated(lawful, workflow_id, "s", "retry-now"), ["read"])
    for path in ("nobody", "s.0"):
        with pytest.raises(NotFound):
            await operated(lawful, workflow_id, path, "skip")
    with pytest.raises(NotFound):
        await operate_step.operate(
            lawful.api, ids.derived("other"), workflow_id, "s", action="skip", output=None, note=None, by="kim"
        )
    with pytest.raises(InvalidValue):
        await operated(lawful, workflow_id, "s", "explode")


async def test_steps_of_a_draining_workflow_are_not_operated(lawful: World) -> None:
    lawful.tools.script["do"] = [unknown()]
    worker = await lawful.worker()
    workflow_id = await lawful.submit(one("at_most_once"))
    await lawful.run(worker)
    await cancelled(lawful, workflow_id)

    await expect_refusal(operated(lawful, workflow_id, "s", "skip"), ["resolve", "wait", "hold"])


# --- retry-now -----------------------------------------------------------------------------------------------------


async def test_next_try_begins_now_when_an_operator_does_not_want_to_wait(lawful: World) -> None:
    lawful.tools.script["do"] = [rate_limited(600), {"id": 1}]
    worker = await lawful.worker()
    workflow_id = await lawful.submit(then({"tool": "do", "with": {}}))
    await lawful.run(worker, hurry=False)
    waiting = await lawful.due_calls()

    await operated(lawful, workflow_id, "s", "retry-now")
    await lawful.run(worker, hurry=False)

    assert (waiting, await audited(lawful)) == ([], [("step.retry-now", "kim")])
    assert await ended(lawful, workflow_id) == ("succeeded", 3, 0)


async def poisoned(world: World, worker: Worker, workflow_id: UUID) -> None:
    for n in range(world.settings.poison_after):
        victim = await world.worker(f"victim.{n}")
        await world.hurry()
        for call in await world.due_calls():
            await victim.claim(call)
        await world.lose(victim, proof=True)
        await world.sweep(worker)
    assert "held(poisoned)" in (await call_states(world, workflow_id)).values()


async def test_poisoned_call_is_set_free_by_retry_now_and_counts_from_none_again(lawful: World) -> None:
    worker = await lawful.worker()
    workflow_id = await lawful.submit(then({"tool": "do", "with": {}}, {"do": tool("keyed")}))
    await poisoned(lawful, worker, workflow_id)
    attention = (await lawful.workflow(workflow_id))["attention"]

    await expect_refusal(operated(lawful, workflow_id, "s", "skip"), ["retry-now", "cancel"])
    await operated(lawful, workflow_id, "s", "retry-now")
    freed = await lawful.call(workflow_id, "s")
    cured = (await lawful.workflow(workflow_id))["attention"]
    await lawful.run(worker)

    assert (attention, freed["state"], freed["lost_in_a_row"], cured) == (["poisoned"], "due", 0, [])
    assert await ended(lawful, workflow_id) == ("succeeded", 3, 0)


async def test_poisoned_call_that_changes_nothing_is_skipped_and_needs_nobody_any_more(lawful: World) -> None:
    worker = await lawful.worker()
    definition = then({"tool": "do", "with": {}}, {"do": tool("read_only")})
    definition["steps"]["later"] = {"approval": {"title": "Go?"}, "needs": ["after"]}
    workflow_id = await lawful.submit(definition)
    await poisoned(lawful, worker, workflow_id)

    await operated(lawful, workflow_id, "s", "skip")

    assert (await lawful.workflow(workflow_id))["attention"] == ["approval_pending"]


async def test_retry_now_does_not_open_what_waits_for_another_word(lawful: World) -> None:
    worker = await lawful.worker()
    switched = await lawful.submit(one("at_most_once"), key="a")
    await switch.hold(lawful.api, TENANT, scope="tool:do", reason=None, by="kim")
    await lawful.run(worker)
    gated = await lawful.submit(one("at_most_once", approve="always"), key="b")
    still = await lawful.submit(one("at_most_once"), key="c")
    await paused(lawful, still)

    await expect_refusal(operated(lawful, switched, "s", "retry-now"), ["release"])
    await expect_refusal(operated(lawful, gated, "s", "retry-now"), ["approve", "reject"])
    await expect_refusal(operated(lawful, still, "s", "retry-now"), ["resume"])
    await lawful.run(worker)

    assert lawful.tools.ledger == []


@pytest.mark.parametrize("action", ["skip", "complete", "fail"])
async def test_call_that_is_held_is_never_sent_when_its_step_is_ended_by_hand(lawful: World, action: str) -> None:
    worker = await lawful.worker()
    switched = await lawful.submit(one("at_most_once"), key="a")
    await switch.hold(lawful.api, TENANT, scope="tool:do", reason=None, by="kim")
    await lawful.run(worker)
    gated = await lawful.submit(one("at_most_once", approve="always"), key="b")

    for workflow_id in (switched, gated):
        await operated(lawful, workflow_id, "s", action, output=1)
    await switch.release(lawful.api, TENANT, scope="tool:do", by="kim")
    await lawful.sweep(worker)
    await lawful.run(worker)

    assert lawful.tools.ledger == []
    assert [(await lawful.row("SELECT status FROM approvals"))["status"]] == ["cancelled"]
