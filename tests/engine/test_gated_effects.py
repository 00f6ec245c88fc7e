"""The gate: nothing of a tool that asks a person leaves without their word about exactly these bytes, once."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from app.domain import ids
from app.domain.gating import binding
from app.engine import cancel
from app.errors import AlreadyDecided, ApprovalClosed, RequestChanged
from tests.engine.people import (
    PAY,
    PAYS,
    agent,
    asked,
    laws,
    paid,
    pay,
    pays,
    rest,
    say,
    say_next,
    step_failure,
    step_of,
    told,
    tool_of,
)
from tests.engine.world import World, refused, tool, uses

# --- before, and then exactly that ---------------------------------------------------------------------------------


@pytest.mark.parametrize("effect", ["at_most_once", "checkable", "keyed", "idempotent", "read_only"])
async def test_tool_step_sends_nothing_before_a_word_and_then_what_was_shown(small_world: World, effect: str) -> None:
    probe = {"probe": {"tool": "look", "with": {}, "found": "output.found"}} if effect == "checkable" else {}
    definition = pays(effect, **probe)
    definition["tools"] |= {"look": tool("read_only")} if probe else {}
    worker = await small_world.worker()
    workflow_id = await small_world.submit(definition)

    await rest(small_world, worker)
    before, waiting, [approval] = (
        paid(small_world),
        await small_world.workflow(workflow_id),
        await asked(small_world, workflow_id),
    )
    await laws(small_world)
    await say(small_world, approval, "approve")
    await rest(small_world, worker)

    assert (before, waiting["status"], waiting["attention"]) == ([], "waiting", ["approval_pending"])
    assert approval["show"] == {"tool": "pay", "arguments": PAY, "tainted": False}
    assert approval["arguments_sha256"] == binding(await tool_of(small_world, workflow_id), PAY)
    assert paid(small_world) == [PAY]
    workflow = await small_world.workflow(workflow_id)
    assert (workflow["status"], workflow["attention"]) == ("succeeded", [])
    await laws(small_world)


async def test_agents_call_waits_for_a_word_when_its_tool_asks(small_world: World) -> None:
    small_world.model.answers = [uses((PAYS, PAY)), "done"]
    worker = await small_world.worker()
    workflow_id = await small_world.submit(agent())

    await rest(small_world, worker)
    before = paid(small_world)
    await say_next(small_world, workflow_id, "approve")
    await rest(small_world, worker)

    assert (before, paid(small_world)) == ([], [PAY])
    assert [(block["type"], "is_error" in block) for block in told(small_world)] == [("tool_result", False)]
    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"
    await laws(small_world)


async def test_tool_step_fails_and_sends_nothing_when_a_person_rejects(small_world: World) -> None:
    worker = await small_world.worker()
    workflow_id = await small_world.submit(pays())

    await say_next(small_world, workflow_id, "reject", comment="too much")
    await rest(small_world, worker)

    step = await small_world.step(workflow_id, "s")
    assert (step["failure"]["kind"], "too much" in step["failure"]["message"]) == ("approval_rejected", True)
    assert paid(small_world) == []
    await laws(small_world)


async def test_agent_is_told_and_goes_on_when_a_person_rejects(small_world: World) -> None:
    small_world.model.answers = [uses((PAYS, PAY)), "then not"]
    worker = await small_world.worker()
    workflow_id = await small_world.submit(agent())
    await rest(small_world, worker)

    await say_next(small_world, workflow_id, "reject", comment="too much")
    await rest(small_world, worker)

    [block] = told(small_world)
    assert (block["is_error"], "too much" in block["content"]) == (True, True)
    assert ((await small_world.step(workflow_id, "s"))["output"], paid(small_world)) == ("then not", [])
    await laws(small_world)


# --- time, and other ends ------------------------------------------------------------------------------------------


async def test_tool_step_fails_when_nobody_decides_in_time(small_world: World) -> None:
    worker = await small_world.worker()
    workflow_id = await small_world.submit(pays(approval_expires="1h"))
    [approval] = await asked(small_world, workflow_id)

    await small_world.ripen(worker, "expiry")
    await rest(small_world, worker)

    assert approval["expires_at"] - approval["created_at"] == timedelta(hours=1)
    assert (await step_failure(small_world, workflow_id), paid(small_world)) == ("approval_expired", [])
    with pytest.raises(ApprovalClosed):
        await say(small_world, approval, "approve")
    await laws(small_world)


async def test_agent_is_told_and_goes_on_when_nobody_decides_in_time(small_world: World) -> None:
    small_world.model.answers = [uses((PAYS, PAY)), "then not"]
    worker = await small_world.worker()
    workflow_id = await small_world.submit(agent())
    await rest(small_world, worker)

    await small_world.ripen(worker, "expiry")
    await rest(small_world, worker)

    assert [block["is_error"] for block in told(small_world)] == [True]
    assert (paid(small_world), (await small_world.workflow(workflow_id))["status"]) == ([], "succeeded")


@pytest.mark.parametrize("decision", ["approve", "edit"])
async def test_late_word_releases_nothing_when_the_timer_has_not_fired_yet(small_world: World, decision: str) -> None:
    worker = await small_world.worker()
    workflow_id = await small_world.submit(pays())
    [approval] = await asked(small_world, workflow_id)

    await small_world.rows("UPDATE approvals SET expires_at = clock_timestamp() - interval '1 ms'")
    with pytest.raises(ApprovalClosed):
        await say(small_world, approval, decision, values=PAY if decision == "edit" else None)
    await rest(small_world, worker)

    assert (await step_failure(small_world, workflow_id), paid(small_world)) == ("approval_expired", [])
    await laws(small_world)


def beside(**more: Any) -> dict[str, Any]:
    """What pays, and beside it a step that can fail."""
    steps = {"s": step_of(**more), "other": {"tool": "look", "with": {}}}
    return {"name": "two", "tools": {"pay": pay(), "look": tool("read_only")}, "steps": steps}


@pytest.mark.parametrize("on_error", ["fail", "continue"])
@pytest.mark.parametrize("end", ["cancel", "failure", "step_timeout", "deadline"])
async def test_word_is_refused_and_nothing_sent_when_what_asked_has_ended(
    small_world: World, end: str, on_error: str
) -> None:
    worker = await small_world.worker()
    workflow_id = await small_world.submit(beside(timeout="10m", on_error=on_error))
    [approval] = await asked(small_world, workflow_id)

    match end:
        case "cancel":
            await cancel.cancel(small_world.api, ids.DEFAULT_TENANT, workflow_id, reason=None, by="kim")
        case "failure":
            small_world.tools.script["look"] = [refused(404)]
            await small_world.run(worker)
        case _:
            await small_world.ripen(worker, end)
    with pytest.raises(ApprovalClosed):
        await say(small_world, approval, "approve")
    await rest(small_world, worker)

    assert paid(small_world) == []
    assert (await small_world.workflow(workflow_id))["ended_at"] is not None
    assert [row["status"] for row in await small_world.rows("SELECT status FROM approvals")] == ["cancelled"]
    await laws(small_world)


# --- once ----------------------------------------------------------------------------------------------------------


async def test_word_said_twice_is_one_word_and_another_is_refused(small_world: World) -> None:
    worker = await small_world.worker()
    workflow_id = await small_world.submit(pays())
    [approval] = await asked(small_world, workflow_id)

    answers = await asyncio.gather(
        say(small_world, approval, "approve"), say(small_world, approval, "approve", by="joe"),
        say(small_world, approval, "approve"), return_exceptions=True,
    )  # fmt: skip
    await rest(small_world, worker)
    await say(small_world, approval, "approve")
    await rest(small_world, worker)

    assert answers == [None, None, None]
    assert paid(small_world) == [PAY]
    assert (await small_world.events(workflow_id)).count("approval.decided") == 1
    for other in ("reject", "edit"):
        with pytest.raises(AlreadyDecided):
            await say(small_world, approval, other, values=PAY if other == "edit" else None)


async def test_word_about_one_call_releases_no_other_with_the_same_bytes(small_world: World) -> None:
    definition = {"name": "two", "tools": {"pay": pay()}, "steps": {"s": step_of(), "t": step_of()}}
    worker = await small_world.worker()
    one, other = await small_world.submit(definition), await small_world.submit(definition, key="k-2")
    by_step = {(row["workflow_id"], row["step"]): row for w in (one, other) for row in await asked(small_world, w)}

    await say(small_world, by_step[one, "t"], "approve")
    await rest(small_world, worker)

    assert len(by_step) == 4
    [sent] = small_world.tools.ledger
    assert sent.headers["Surefoot-Call"] == ids.encode("call", (await small_world.call(one, "t"))["id"])
    assert [len(await asked(small_world, w)) for w in (one, other)] == [1, 2]
    await laws(small_world)


@pytest.mark.parametrize("decision", ["approve", "edit"])
async def test_word_is_refused_when_its_approval_was_turned_to_another_call(small_world: World, decision: str) -> None:
    steps = {"s": step_of(), "t": step_of({**PAY, "amount": 5_000})}
    worker = await small_world.worker()
    workflow_id = await small_world.submit({"name": "two", "tools": {"pay": pay()}, "steps": steps})
    [small, large] = sorted(await asked(small_world, workflow_id), key=lambda row: row["step"])

    await small_world.rows("UPDATE approvals SET call_id = %s, step = 't' WHERE id = %s", large["call_id"], small["id"])
    with pytest.raises(RequestChanged):
        await say(small_world, small, decision, values=PAY if decision == "edit" else None)
    await rest(small_world, worker)

    assert paid(small_world) == []
