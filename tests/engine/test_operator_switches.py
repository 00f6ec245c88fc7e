"""The switch: nothing of a tool, a model or a tenant leaves while an operator holds it; afterwards all of it goes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.domain import ids
from app.engine import switch
from app.errors import InvalidValue
from tests.engine.operations import (
    TENANT,
    audited,
    call_states,
    cancelled,
    expect_refusal,
    expect_the_laws,
    operated,
    paused,
    resumed,
)
from tests.engine.world import Worker, World, one, refused, tool, unknown

AGENT = {"name": "agent", "tools": {}, "steps": {"s": {"agent": {"model": "fast"}, "prompt": "Go."}}}


@pytest.fixture
async def lawful(small_world: World) -> AsyncIterator[World]:
    yield small_world
    await expect_the_laws(small_world)


async def hold(world: World, scope: str, *, reason: str | None = "on fire") -> Any:
    return await switch.hold(world.api, TENANT, scope=scope, reason=reason, by="kim")


async def release(world: World, scope: str) -> int:
    return await switch.release(world.api, TENANT, scope=scope, by="lee")


async def swept(world: World, worker: Worker) -> None:
    await world.sweep(worker)
    await world.run(worker)


async def state(world: World, workflow_id: Any) -> str:
    return (await call_states(world, workflow_id))["s#1"]


@pytest.mark.parametrize("scope", ["tenant", "tool:do"])
async def test_held_tool_sends_nothing_until_it_is_released_and_then_within_one_sweep(
    lawful: World, scope: str
) -> None:
    worker = await lawful.worker()
    await hold(lawful, scope)
    workflow_id = await lawful.submit(one("at_most_once"))
    await swept(lawful, worker)
    held = (await state(lawful, workflow_id), (await lawful.workflow(workflow_id))["status"], len(lawful.tools.ledger))
    events = await lawful.rows("SELECT data FROM events WHERE type = 'effect.call.changed'")

    freed = await release(lawful, scope)
    await swept(lawful, worker)

    assert (held, freed) == (("held(operator)", "waiting", 0), 1)
    assert events[0]["data"]["reason"] == f"operator: {scope} is switched off"
    assert (await lawful.workflow(workflow_id))["status"] == "succeeded"
    assert len(lawful.tools.ledger) == 1


@pytest.mark.parametrize("by_id", [True, False])
async def test_held_model_is_not_asked_whether_it_is_named_by_alias_or_by_id(lawful: World, by_id: bool) -> None:
    worker = await lawful.worker()
    scope = f"model:{lawful.settings.models['fast'] if by_id else 'fast'}"
    await hold(lawful, scope)
    workflow_id = await lawful.submit(AGENT)
    tools = await lawful.submit(one("read_only"), key="b")
    await swept(lawful, worker)
    held = await state(lawful, workflow_id)

    await release(lawful, scope)
    await swept(lawful, worker)

    assert (held, await state(lawful, tools)) == ("held(operator)", "succeeded")
    assert ((await lawful.workflow(workflow_id))["status"], len(lawful.model.requests)) == ("succeeded", 1)


async def test_other_tools_models_and_tenants_are_not_touched_when_one_is_held(lawful: World) -> None:
    worker = await lawful.worker()
    await hold(lawful, "tool:another")
    await hold(lawful, "model:slow")
    for scope in ("tenant", "tool:do"):
        await switch.hold(lawful.api, ids.derived("another tenant"), scope=scope, reason=None, by="kim")
    workflow_id = await lawful.submit(one("at_most_once"))
    agent = await lawful.submit(AGENT, key="b")

    await swept(lawful, worker)

    assert (await state(lawful, workflow_id), await state(lawful, agent)) == ("succeeded", "succeeded")
    assert len(await switch.listed(lawful.api, TENANT)) == 2


async def test_call_is_held_until_the_last_of_several_switches_is_released(lawful: World) -> None:
    worker = await lawful.worker()
    await hold(lawful, "tool:do")
    await hold(lawful, "tenant")
    workflow_id = await lawful.submit(one("at_most_once"))
    await swept(lawful, worker)

    seen = []
    for scope in ("tool:do", "tenant"):
        seen.append(await state(lawful, workflow_id))
        await release(lawful, scope)
        await swept(lawful, worker)

    assert seen == ["held(operator)", "held(operator)"]
    assert (await state(lawful, workflow_id), len(lawful.tools.ledger)) == ("succeeded", 1)


async def test_release_of_another_scope_sets_nothing_free_and_says_so(lawful: World) -> None:
    worker = await lawful.worker()
    await hold(lawful, "tool:do")
    await hold(lawful, "tool:another")
    workflow_id = await lawful.submit(one("at_most_once"))
    await swept(lawful, worker)

    freed = await release(lawful, "tool:another")
    await swept(lawful, worker)

    assert (freed, await state(lawful, workflow_id)) == (0, "held(operator)")
    assert await audited(lawful) == [("switch.hold", "kim"), ("switch.hold", "kim"), ("switch.release", "lee")]


async def test_hold_and_release_are_idempotent_and_each_is_audited_once(lawful: World) -> None:
    first = await hold(lawful, "tool:do", reason="one")
    second = await hold(lawful, "tool:do", reason="two")
    [listed] = await switch.listed(lawful.api, TENANT)
    await release(lawful, "tool:do")
    again = await release(lawful, "tool:do")

    assert (first, second, again) == (first, first, 0)
    assert (listed.scope, listed.reason, listed.by, listed.created_at) == ("tool:do", "one", "kim", first)
    assert await switch.listed(lawful.api, TENANT) == []
    assert await audited(lawful) == [("switch.hold", "kim"), ("switch.release", "lee")]


@pytest.mark.parametrize("scope", ["", "tool:", "tools:do", "model:a b", "tenant:x", "tool:" + "x" * 201, "tool:do\n"])
async def test_scope_that_names_nothing_is_refused(lawful: World, scope: str) -> None:
    with pytest.raises(InvalidValue):
        await hold(lawful, scope)
    with pytest.raises(InvalidValue):
        await release(lawful, scope)


async def test_repeat_of_an_uncertain_call_is_held_too_and_keeps_its_key(lawful: World) -> None:
    lawful.tools.script["do"] = [unknown()]
    worker = await lawful.worker()
    workflow_id = await lawful.submit(one("keyed"))
    await lawful.run(worker, hurry=False)

    await hold(lawful, "tool:do")
    await swept(lawful, worker)
    held = await state(lawful, workflow_id)
    await release(lawful, "tool:do")
    await swept(lawful, worker)

    assert (held, await state(lawful, workflow_id)) == ("held(operator)", "succeeded")
    assert (len(lawful.tools.ledger), len({request.key for request in lawful.tools.ledger})) == (2, 1)


async def test_drain_waits_for_an_uncertain_call_that_is_held_while_it_drains(lawful: World) -> None:
    lawful.tools.script["do"] = [unknown()]
    worker = await lawful.worker()
    workflow_id = await lawful.submit(one("keyed"))
    await lawful.run(worker, hurry=False)

    await cancelled(lawful, workflow_id)
    await hold(lawful, "tool:do")
    await swept(lawful, worker)
    draining = (await lawful.workflow(workflow_id))["status"], await state(lawful, workflow_id)
    await release(lawful, "tool:do")
    await swept(lawful, worker)

    assert draining == ("cancelling", "held(operator)")
    assert (await lawful.workflow(workflow_id))["status"] == "cancelled"
    assert (await state(lawful, workflow_id), len(lawful.tools.ledger)) == ("succeeded", 2)


async def test_cancel_ends_what_is_held_and_was_never_sent_and_doubts_what_may_have_been(lawful: World) -> None:
    worker = await lawful.worker()
    lawful.tools.script["do"] = [unknown()]
    maybe = await lawful.submit(one("keyed"), key="a")
    await lawful.run(worker, hurry=False)
    await hold(lawful, "tool:do")
    never = await lawful.submit(one("keyed"), key="b")
    await swept(lawful, worker)

    await cancelled(lawful, maybe)
    await cancelled(lawful, never)

    assert (await state(lawful, never), (await lawful.workflow(never))["status"]) == ("cancelled", "cancelled")
    assert (await state(lawful, maybe), (await lawful.workflow(maybe))["status"]) == ("in_doubt", "cancelling")


async def test_step_whose_time_is_up_asks_the_probe_about_a_repeat_that_is_held(lawful: World) -> None:
    look = {"tool": "look", "with": {"n": "${{ arguments.n }}"}, "found": "output.ok"}
    steps = {"s": {"tool": "do", "with": {"n": 1}, "timeout": "1h"}}
    tools = {"look": tool("read_only"), "do": tool("keyed", probe=look)}
    lawful.tools.script |= {"do": [unknown()], "look": [{"ok": True}]}
    worker = await lawful.worker()
    workflow_id = await lawful.submit({"name": "late", "tools": tools, "steps": steps})
    await lawful.once(worker)
    await hold(lawful, "tool:do")
    await lawful.once(worker)
    before = await state(lawful, workflow_id)

    await lawful.ripen(worker, "step_timeout")
    await lawful.run(worker)

    workflow = await lawful.workflow(workflow_id)
    assert before == "held(operator)"
    assert (await state(lawful, workflow_id), workflow["effects_done"]) == ("succeeded", 1)
    assert (workflow["status"], workflow["failure"]["kind"]) == ("failed", "step_timeout")


async def test_probe_and_compensation_wait_for_the_switch_of_their_own_tool(lawful: World) -> None:
    tools = {
        "look": tool("read_only"),
        "undo": tool("idempotent"),
        "do": tool(
            "checkable",
            probe={"tool": "look", "with": {"n": "${{ arguments.n }}"}, "found": "output.ok"},
            compensate={"tool": "undo", "with": {}},
        ),
        "fail": tool("read_only"),
    }
    steps = {"s": {"tool": "do", "with": {"n": 1}}, "b": {"tool": "fail", "with": {}, "needs": ["s"]}}
    lawful.tools.script |= {"do": [unknown()], "fail": [refused(404)]}
    worker = await lawful.worker()
    workflow_id = await lawful.submit({"name": "saga", "tools": tools, "steps": steps})

    await hold(lawful, "tool:look")
    await hold(lawful, "tool:undo")
    await swept(lawful, worker)
    probing = await call_states(lawful, workflow_id)
    await release(lawful, "tool:look")
    await swept(lawful, worker)
    undoing = await call_states(lawful, workflow_id)
    await release(lawful, "tool:undo")
    await swept(lawful, worker)

    assert probing == {"s#1": "probing", "s#2": "held(operator)"}
    assert undoing["s#3"] == "held(operator)"
    workflow = await lawful.workflow(workflow_id)
    assert (workflow["status"], workflow["compensation"]) == ("failed", "done")


async def test_paused_workflow_sends_nothing_when_its_switch_is_released(lawful: World) -> None:
    worker = await lawful.worker()
    await hold(lawful, "tool:do")
    workflow_id = await lawful.submit(one("at_most_once"))
    await swept(lawful, worker)

    await paused(lawful, workflow_id)
    both = await state(lawful, workflow_id)
    await release(lawful, "tool:do")
    await swept(lawful, worker)
    still = await state(lawful, workflow_id), len(lawful.tools.ledger)
    await resumed(lawful, workflow_id)
    await swept(lawful, worker)

    assert (both, still) == ("held(operator)", ("held(pause)", 0))
    assert (await lawful.workflow(workflow_id))["status"] == "succeeded"


async def test_call_in_flight_is_finished_when_its_tool_is_held(lawful: World) -> None:
    worker = await lawful.worker()
    workflow_id = await lawful.submit(one("at_most_once"))

    async def meanwhile() -> Any:
        await hold(lawful, "tool:do")
        return {"id": 1}

    lawful.tools.script["do"] = [lambda _: meanwhile()]
    await lawful.run(worker)

    assert (await lawful.workflow(workflow_id))["status"] == "succeeded"


async def test_poisoned_call_set_free_meets_the_switch_before_its_tool(lawful: World) -> None:
    worker = await lawful.worker()
    workflow_id = await lawful.submit(one("keyed"))
    for n in range(lawful.settings.poison_after):
        victim = await lawful.worker(f"victim.{n}")
        await victim.claim((await lawful.due_calls())[0])
        await lawful.lose(victim, proof=True)
        await lawful.sweep(worker)
        await lawful.hurry()
    await hold(lawful, "tool:do")

    await operated(lawful, workflow_id, "s", "retry-now")
    await swept(lawful, worker)

    assert (await state(lawful, workflow_id), lawful.tools.ledger) == ("held(operator)", [])
    await expect_refusal(operated(lawful, workflow_id, "s", "retry-now"), ["release"])


async def test_switch_released_between_the_claim_and_the_holding_holds_nothing(lawful: World) -> None:
    # The claim saw the switch; by the time its call is to be held there is none, and nobody would wake it for an hour.
    worker = await lawful.worker()
    workflow_id = await lawful.submit(one("at_most_once"))
    await hold(lawful, "tool:do")
    claimed = await worker.claim((await lawful.due_calls())[0])

    await release(lawful, "tool:do")
    found = switch.SwitchedOff(call_id=claimed.call_id, step="s", scope=claimed.switched_off)
    await switch.hold_call(worker.services, TENANT, workflow_id, found)
    await lawful.run(worker)

    assert claimed.switched_off == "tool:do"
    assert (await lawful.workflow(workflow_id))["status"] == "succeeded"
