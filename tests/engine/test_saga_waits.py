"""An undo that waits: for a person, a switch, an approval, a result, or until no copy of its effect can arrive."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from app.domain import ids
from app.engine import accept_result, decide_approval, pause, resolve, switch
from app.errors import NotPossible
from tests.engine.sagas import (
    compensations,
    ended,
    fails,
    made,
    play,
    script,
    settle_undo,
    submitted,
    undoable,
    undos,
)
from tests.engine.walking import keeps_its_laws
from tests.engine.world import World, accepted, unknown


@pytest.fixture
async def small_world(small_world: World) -> AsyncIterator[World]:
    """Whatever a test does: its rows are judged in the end."""
    yield small_world
    await keeps_its_laws(small_world)


async def resolved(world: World, call_id: UUID, outcome: str) -> None:
    await resolve.resolve(world.api, ids.DEFAULT_TENANT, call_id, outcome=outcome, result=None, note="looked", by="kim")


async def states(world: World, workflow_id: UUID) -> list[str]:
    return [call["state"] for call in await compensations(world, workflow_id)]


# --- a compensation that is held -----------------------------------------------------------------------------------


async def test_undo_by_a_tool_that_is_switched_off_waits_until_it_is_released(small_world: World) -> None:
    script(small_world)
    worker = await small_world.worker()
    workflow_id = await submitted(small_world, undoable({"a": made(1), "b": fails("a")}))
    await switch.hold(small_world.api, ids.DEFAULT_TENANT, scope="tool:undo", reason="on fire", by="kim")

    await play(small_world, worker)
    held = await states(small_world, workflow_id)
    waiting = await ended(small_world, workflow_id)
    await switch.release(small_world.api, ids.DEFAULT_TENANT, scope="tool:undo", by="kim")
    await small_world.sweep(worker)
    await play(small_world, worker)

    assert (held, waiting) == (["held"], ("compensating", None))
    assert await ended(small_world, workflow_id) == ("failed", "done")
    assert len(small_world.tools.sent("undo")) == 1


async def answered(world: World, decision: str) -> None:
    approval = await world.row("SELECT id FROM approvals WHERE status = 'open'")
    await decide_approval.decide(
        world.api,
        ids.DEFAULT_TENANT,
        approval["id"],
        decision=decision,
        values=None,
        comment=None,
        revision=1,
        by="kim",
    )


@pytest.mark.parametrize(("decision", "sent"), [("approve", 1), ("reject", 0)])
async def test_undo_by_a_tool_that_needs_an_approval_is_sent_only_with_it(
    small_world: World, decision: str, sent: int
) -> None:
    script(small_world)
    worker = await small_world.worker()
    definition = undoable({"a": made(1), "b": fails("a")}, undo={"approve": "always"})
    workflow_id = await submitted(small_world, definition)
    await play(small_world, worker)
    held = await small_world.workflow(workflow_id)

    await answered(small_world, decision)
    await play(small_world, worker)

    assert (held["status"], held["held"], held["attention"]) == ("compensating", 1, ["approval_pending"])
    assert len(small_world.tools.sent("undo")) == sent
    if decision == "approve":
        assert await ended(small_world, workflow_id) == ("failed", "done")
    else:
        assert await undos(small_world, workflow_id) == {"a": "failed"}
        await settle_undo(small_world, workflow_id, "a", "retry")
        await answered(small_world, "approve")
        await play(small_world, worker)
        assert await ended(small_world, workflow_id) == ("failed", "done")


@pytest.mark.parametrize("answer", ["brought", "never came"])
async def test_undo_that_is_accepted_is_done_when_its_result_is_there(small_world: World, answer: str) -> None:
    script(small_world)
    worker = await small_world.worker()
    definition = undoable({"a": made(1), "b": fails("a")}, undo={"on_202": "wait"})
    workflow_id = await submitted(small_world, definition)
    small_world.tools.script["undo"] = [accepted()]
    await play(small_world, worker)
    waiting = await ended(small_world, workflow_id)
    [call] = await compensations(small_world, workflow_id)

    if answer == "brought":
        token = small_world.tools.sent("undo")[0].result_token or ""
        await accept_result.accept(small_world.api, call["id"], token=token, succeeded=True, result={}, message=None)
    else:
        await small_world.ripen(worker, "result")
        await play(small_world, worker)

    assert (waiting, call["state"]) == (("compensating", None), "intended")
    assert await ended(small_world, workflow_id) == ("failed", "done")
    assert len(small_world.tools.sent("undo")) == (1 if answer == "brought" else 2)


async def test_undoing_is_not_paused(small_world: World) -> None:
    script(small_world)
    worker = await small_world.worker()
    workflow_id = await submitted(small_world, undoable({"a": made(1), "b": fails("a")}))
    for step in ("a", "b"):
        await worker.run((await small_world.call(workflow_id, step))["id"])

    with pytest.raises(NotPossible):
        await pause.pause(small_world.api, ids.DEFAULT_TENANT, workflow_id, reason=None, by="kim")
    await play(small_world, worker)

    assert await ended(small_world, workflow_id) == ("failed", "done")


async def test_undo_that_loses_worker_after_worker_is_in_doubt_and_not_held_for_ever(small_world: World) -> None:
    script(small_world)
    survivor = await small_world.worker("survivor")
    workflow_id = await submitted(small_world, undoable({"a": made(1), "b": fails("a")}))
    for step in ("a", "b"):
        await survivor.run((await small_world.call(workflow_id, step))["id"])
    [undo] = await compensations(small_world, workflow_id)

    for n in range(small_world.settings.poison_after):
        doomed = await small_world.worker(f"doomed.{n}")
        await doomed.claim(undo["id"])
        await small_world.lose(doomed, proof=True)
        await small_world.sweep(survivor)
    [call] = await compensations(small_world, workflow_id)
    await resolved(small_world, call["id"], "happened")

    assert (call["state"], call["held_reason"]) == ("in_doubt", None)
    assert await ended(small_world, workflow_id) == ("failed", "done")


# --- what may still arrive -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("approve", ["never", "always"])
async def test_undo_waits_until_no_copy_of_its_effect_can_arrive(small_world: World, approve: str) -> None:
    """The first copy's outcome is unknown, the second succeeded: the first may come after the undo, and stay."""
    script(small_world)
    worker = await small_world.worker()
    small_world.tools.script["make"] = [unknown(), {"id": "second"}]
    definition = undoable(
        {"a": made(1), "b": fails("a")}, effect="keyed", undo={"approve": approve}, make={"settle_time": "1h"}
    )
    workflow_id = await submitted(small_world, definition)
    await worker.run((await small_world.call(workflow_id, "a"))["id"])
    await small_world.hurry()
    await worker.run((await small_world.call(workflow_id, "a"))["id"])
    await worker.run((await small_world.call(workflow_id, "b"))["id"])
    if approve == "always":
        await answered(small_world, "approve")
    await small_world.sweep(worker)

    early = await play(small_world, worker, hurry=False)
    due = await small_world.row(
        "SELECT d.due_at - a.settled_at AS after FROM dues d, attempts a "
        "WHERE d.kind = 'call' AND a.outcome = 'unknown'"
    )
    await play(small_world, worker)

    assert early == []
    assert due["after"].total_seconds() == pytest.approx(3_600)
    assert await ended(small_world, workflow_id) == ("failed", "done")


async def test_undo_waits_for_the_copy_of_a_worker_that_was_lost(small_world: World) -> None:
    script(small_world)
    doomed, worker = await small_world.worker("doomed"), await small_world.worker("survivor")
    definition = undoable({"a": made(1), "b": fails("a")}, effect="keyed", make={"settle_time": "1h"})
    workflow_id = await submitted(small_world, definition)
    call = (await small_world.call(workflow_id, "a"))["id"]
    await doomed.claim(call)
    await small_world.lose(doomed)
    await small_world.sweep(worker)
    await worker.run(call)
    await worker.run((await small_world.call(workflow_id, "b"))["id"])

    early = await play(small_world, worker, hurry=False)
    due = await small_world.row(
        "SELECT d.due_at - a.send_deadline AS after FROM dues d, attempts a WHERE d.kind = 'call' AND a.n = 1 "
        "AND a.outcome IS NULL"
    )

    assert early == []
    assert due["after"].total_seconds() == pytest.approx(3_600)
