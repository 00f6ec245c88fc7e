"""The saga: what was done is undone after a failure or a cancel, in reverse, and only what is known done and owned."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.domain import ids
from app.domain.reads import UNDOS_AT_ONCE
from app.engine import resolve
from app.errors import NotPossible
from tests.engine.sagas import (
    UNDO,
    ended,
    fails,
    made,
    play,
    script,
    stop,
    submitted,
    undoable,
    undos,
)
from tests.engine.walking import keeps_its_laws
from tests.engine.world import Answer, World, says, tool, unknown, uses


@pytest.fixture
async def small_world(small_world: World) -> AsyncIterator[World]:
    """Whatever a test does: its rows are judged in the end."""
    yield small_world
    await keeps_its_laws(small_world)


# --- order ---------------------------------------------------------------------------------------------------------


async def test_chain_is_undone_one_by_one_in_reverse_with_arguments_of_that_time(small_world: World) -> None:
    script(small_world)
    worker = await small_world.worker()
    steps = {"a": made(1), "b": made(2, "a"), "c": made(3, "b"), "d": fails("c")}
    workflow_id = await submitted(small_world, undoable(steps))

    rounds = await play(small_world, worker)

    assert rounds == [{"make 1"}, {"make 2"}, {"make 3"}, {"fail"}, {"undo 3"}, {"undo 2"}, {"undo 1"}]
    assert small_world.tools.sent("undo")[0].arguments == {"n": 3, "id": "id-3", "who": "kim"}
    workflow = await small_world.workflow(workflow_id)
    assert (workflow["status"], workflow["compensation"], workflow["failure"]["step"]) == ("failed", "done", "d")
    assert (workflow["undos"], workflow["undos_failed"], workflow["effects_undone"]) == (0, 0, 3)
    assert await undos(small_world, workflow_id) == {"a": "done", "b": "done", "c": "done"}
    assert await small_world.rows("SELECT * FROM dues") == []


async def test_diamond_is_undone_with_its_branches_in_parallel(small_world: World) -> None:
    script(small_world)
    worker = await small_world.worker()
    steps = {"a": made(1), "b": made(2, "a"), "c": made(3, "a"), "d": made(4, "b", "c"), "e": fails("d")}
    workflow_id = await submitted(small_world, undoable(steps))

    rounds = await play(small_world, worker)

    assert rounds[-3:] == [{"undo 4"}, {"undo 2", "undo 3"}, {"undo 1"}]
    assert await ended(small_world, workflow_id) == ("failed", "done")


async def test_items_are_undone_in_parallel_and_never_more_than_a_few_at_once(small_world: World) -> None:
    script(small_world)
    worker = await small_world.worker()
    steps = {
        "each": {"for_each": "${{ input.list }}", "max_parallel": 20, "tool": "make", "with": {"n": "${{ item }}"}},
        "then": fails("each"),
    }
    workflow_id = await submitted(small_world, undoable(steps), list=list(range(20)))

    rounds = await play(small_world, worker)

    at_once = [len(names) for names in rounds if any(name.startswith("undo") for name in names)]
    assert max(at_once) == UNDOS_AT_ONCE
    assert sum(at_once) == len(small_world.tools.sent("undo")) == 20
    assert await ended(small_world, workflow_id) == ("failed", "done")
    assert set((await undos(small_world, workflow_id)).values()) == {"done"}


async def test_step_that_depends_on_items_is_undone_before_any_of_them(small_world: World) -> None:
    script(small_world)
    worker = await small_world.worker()
    steps = {
        "each": {"for_each": "${{ input.list }}", "tool": "make", "with": {"n": "${{ item }}"}},
        "sum": made(9, "each"),
        "then": fails("sum"),
    }
    workflow_id = await submitted(small_world, undoable(steps), list=[1, 2])

    rounds = await play(small_world, worker)

    assert rounds[-2:] == [{"undo 9"}, {"undo 1", "undo 2"}]
    assert await ended(small_world, workflow_id) == ("failed", "done")


async def test_order_reaches_across_steps_that_leave_nothing_to_undo(small_world: World) -> None:
    script(small_world)
    worker = await small_world.worker()
    steps = {
        "a": made(1),
        "plain": {"tool": "plain", "with": {}, "needs": ["a"]},
        "skipped": made(2, "plain", **{"if": "input.who == 'nobody'"}),
        "c": made(3, "plain"),
        "d": fails("c"),
    }
    workflow_id = await submitted(small_world, undoable(steps))

    rounds = await play(small_world, worker)

    assert rounds[-2:] == [{"undo 3"}, {"undo 1"}]
    assert small_world.tools.sent("plain") != []
    assert await ended(small_world, workflow_id) == ("failed", "partial")  # nothing undoes `plain`


async def test_agents_own_effects_are_undone_last_first(small_world: World) -> None:
    script(small_world)
    small_world.model.answers = [
        uses(("make", {"n": 1}), ("make", {"n": 2})),
        uses(("make", {"n": 3}), ("look", {"n": 0})),
        says("done"),
    ]
    worker = await small_world.worker()
    agent = {"agent": {"model": "fast", "tools": ["make", "look"], "max_turns": 5}, "prompt": "Go."}
    workflow_id = await submitted(small_world, undoable({"a": agent, "b": fails("a")}))

    rounds = await play(small_world, worker)

    assert rounds[-3:] == [{"undo 3"}, {"undo 2"}, {"undo 1"}]
    assert await ended(small_world, workflow_id) == ("failed", "done")


async def test_failed_agents_effects_are_undone_too(small_world: World) -> None:
    script(small_world)
    small_world.model.answers = [uses(("make", {"n": 1})), uses(("make", {"n": 2}), ("make", {"n": 3}))]
    worker = await small_world.worker()
    agent = {"agent": {"model": "fast", "tools": ["make"], "max_turns": 2}, "prompt": "Go."}
    workflow_id = await submitted(small_world, undoable({"a": agent}))

    rounds = await play(small_world, worker)

    assert rounds[-3:] == [{"undo 3"}, {"undo 2"}, {"undo 1"}]
    assert await ended(small_world, workflow_id) == ("failed", "done")


async def test_steps_own_compensation_stands_before_the_tools(small_world: World) -> None:
    script(small_world)
    worker = await small_world.worker()
    own = {"tool": "withdraw", "with": {"n": "${{ arguments.n }}"}}
    steps = {"a": made(1, compensate=own), "b": made(2, "a"), "c": fails("b")}
    definition = undoable(steps, tools={"withdraw": tool("idempotent")})
    workflow_id = await submitted(small_world, definition)

    rounds = await play(small_world, worker)

    assert rounds[-2:] == [{"undo 2"}, {"withdraw 1"}]
    assert await ended(small_world, workflow_id) == ("failed", "done")


# --- when ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("compensate_on", "by", "compensation"),
    [
        (["failure", "cancel"], "failure", "done"),
        (["failure", "cancel"], "cancel", "done"),
        (["failure"], "failure", "done"),
        (["failure"], "cancel", "skipped"),
        (["cancel"], "failure", "skipped"),
        (["cancel"], "cancel", "done"),
        ([], "failure", "skipped"),
        ([], "cancel", "skipped"),
    ],
)
async def test_undoing_happens_only_for_what_the_definition_says(
    small_world: World, compensate_on: list[str], by: str, compensation: str
) -> None:
    script(small_world)
    worker = await small_world.worker()
    waits = {"approval": {"title": "Go?"}, "needs": ["a"]}
    steps = {"a": made(1), "b": fails("a") if by == "failure" else waits}
    workflow_id = await submitted(small_world, undoable(steps, compensate_on=compensate_on))

    await small_world.run(worker)
    if by == "cancel":
        await stop(small_world, workflow_id)
    await small_world.run(worker)

    status = "failed" if by == "failure" else "cancelled"
    assert await ended(small_world, workflow_id) == (status, compensation)
    assert len(small_world.tools.sent("undo")) == (compensation == "done")


async def test_effect_in_flight_when_it_is_cancelled_is_waited_for_and_undone(small_world: World) -> None:
    script(small_world)
    worker = await small_world.worker()
    workflow_id = await submitted(small_world, undoable({"a": made(1), "b": made(2)}))
    seen: dict[str, Any] = {}

    async def cancelled_meanwhile() -> Answer:
        await stop(small_world, workflow_id)
        seen["status"] = (await small_world.workflow(workflow_id))["status"]
        return {"id": "late"}

    small_world.tools.script["make"] = [lambda _: cancelled_meanwhile()]
    await worker.run((await small_world.call(workflow_id, "a"))["id"])
    rounds = await play(small_world, worker)

    assert seen["status"] == "cancelling"
    assert rounds == [{"undo 1"}]
    assert small_world.tools.sent("undo")[0].arguments["id"] == "late"
    assert await ended(small_world, workflow_id) == ("cancelled", "done")


async def test_workflow_is_not_final_while_something_is_still_undone(small_world: World) -> None:
    script(small_world)
    worker = await small_world.worker()
    workflow_id = await submitted(small_world, undoable({"a": made(1), "b": fails("a")}))
    seen: list[str] = []

    async def look() -> Answer:
        seen.append((await small_world.workflow(workflow_id))["status"])
        with pytest.raises(NotPossible):  # it ends already: nothing of the undoing is cancelled
            await stop(small_world, workflow_id)
        return {"ok": True}

    small_world.tools.script["undo"] = [lambda _: look()]
    await play(small_world, worker)

    assert seen == ["compensating"]
    assert await ended(small_world, workflow_id) == ("failed", "done")
    told = await small_world.events(workflow_id)
    order = ["workflow.failing", "workflow.compensating", "compensation.started", "compensation.succeeded"]
    assert [type for type in told if type in (*order, "workflow.failed")] == [*order, "workflow.failed"]


# --- what ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdict", "undone", "compensation"),
    [("happened", 2, "done"), ("did_not_happen", 1, "done"), ("abandon", 1, "partial")],
)
async def test_doubt_is_waited_for_and_never_undone_blindly(
    small_world: World, verdict: str, undone: int, compensation: str
) -> None:
    script(small_world)
    worker = await small_world.worker()
    steps = {"a": made(1), "b": {"tool": "once", "with": {"n": 2}, "needs": ["a"]}, "c": fails("a")}
    once = tool("at_most_once", compensate={"tool": "undo", "with": UNDO})
    small_world.tools.script["once"] = [unknown()]
    workflow_id = await submitted(small_world, undoable(steps, tools={"once": once}))

    await small_world.run(worker)
    waiting = await small_world.workflow(workflow_id)
    sent_before = len(small_world.tools.sent("undo"))
    await small_world.end_quarantines()
    call = await small_world.call(workflow_id, "b")
    await resolve.resolve(
        small_world.api, ids.DEFAULT_TENANT, call["id"], outcome=verdict, result={"id": "b"}, note="looked", by="kim"
    )
    await play(small_world, worker)

    assert (waiting["status"], waiting["doubts"], sent_before) == ("failing", 1, 0)
    assert len(small_world.tools.sent("undo")) == undone
    assert await ended(small_world, workflow_id) == ("failed", compensation)


async def test_effect_of_another_workflow_that_it_only_attached_to_is_never_undone(small_world: World) -> None:
    script(small_world)
    worker = await small_world.worker()
    keyed = {"idempotency_key": "meeting:7"}
    owner = await submitted(small_world, undoable({"a": made(1, **keyed)}, effect="keyed"), key="owner")
    await small_world.run(worker)
    steps = {"a": made(1, **keyed), "b": fails("a")}
    attached = await submitted(small_world, undoable(steps, effect="keyed"), key="attached")
    await small_world.run(worker)

    assert (await small_world.workflow(owner))["status"] == "succeeded"
    assert (await small_world.call(attached, "a"))["resolved"]["outcome"] == "attached"
    assert await ended(small_world, attached) == ("failed", "not_needed")
    assert small_world.tools.sent("undo") == []


@pytest.mark.parametrize("max_parallel", [1, 3])
async def test_items_that_all_attach_to_what_is_done_already_end_at_once_and_undo_nothing(
    small_world: World, max_parallel: int
) -> None:
    script(small_world)
    worker = await small_world.worker()
    keyed = {"with": {"n": 7}, "idempotency_key": "meeting:7"}
    item = {"for_each": "${{ input.list }}", "max_parallel": max_parallel, "tool": "make", **keyed}
    workflow_id = await submitted(
        small_world, undoable({"each": item, "z": fails("each")}, effect="keyed"), list=list(range(8))
    )

    await small_world.run(worker)
    await small_world.sweep(worker)
    await small_world.run(worker)

    assert len(small_world.tools.sent("make")) == len(small_world.tools.sent("undo")) == 1
    assert await ended(small_world, workflow_id) == ("failed", "done")


async def test_business_key_is_free_under_its_next_generation_once_its_effect_is_undone(small_world: World) -> None:
    script(small_world)
    worker = await small_world.worker()
    keyed = {"idempotency_key": "meeting:7"}
    steps = {"a": made(1, **keyed), "b": fails("a")}
    first = await submitted(small_world, undoable(steps, effect="keyed", by="keyed"), key="first")
    await small_world.run(worker)

    second = await submitted(small_world, undoable({"a": made(1, **keyed)}, effect="keyed", by="keyed"), key="second")
    await small_world.run(worker)

    assert await ended(small_world, first) == ("failed", "done")
    assert (await small_world.workflow(second))["status"] == "succeeded"
    assert [request.key for request in small_world.tools.sent("make")] == ["meeting:7", "meeting:7#2"]
    [undo] = small_world.tools.sent("undo")
    assert undo.key is not None
    assert "meeting:7" not in undo.key


async def test_who_waits_for_the_key_of_an_effect_that_is_undone_does_it_anew(small_world: World) -> None:
    script(small_world)
    worker = await small_world.worker()
    keyed = {"idempotency_key": "meeting:7"}
    first = await submitted(
        small_world, undoable({"a": made(1, **keyed), "b": fails("a")}, effect="keyed", by="keyed"), key="first"
    )
    second: list[Any] = []

    async def asked_meanwhile() -> Answer:
        again = undoable({"a": made(1, **keyed)}, effect="keyed", by="keyed")
        second.append(await submitted(small_world, again, key="second"))
        return {"ok": True}

    small_world.tools.script["undo"] = [lambda _: asked_meanwhile()]
    await small_world.run(worker)
    held = await small_world.call(second[0], "a")
    await small_world.sweep(worker)
    await small_world.run(worker)

    assert held["held_reason"] == "attached"
    assert await ended(small_world, first) == ("failed", "done")
    assert (await small_world.workflow(second[0]))["status"] == "succeeded"
    assert [request.key for request in small_world.tools.sent("make")] == ["meeting:7", "meeting:7#2"]
