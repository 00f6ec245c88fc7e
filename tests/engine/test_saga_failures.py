"""When undoing itself goes wrong: compensations that fail, are in doubt, held, lost with their worker; and pivots."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from app.domain import ids
from app.domain.reads import UNDOS_AT_ONCE
from app.engine import resolve
from app.errors import NotPossible
from tests.engine.sagas import (
    compensations,
    ended,
    fails,
    made,
    play,
    probed,
    script,
    settle_undo,
    submitted,
    undoable,
    undos,
)
from tests.engine.walking import keeps_its_laws
from tests.engine.world import Answer, World, not_sent, ok, refused, unknown

CHAIN = {"a": made(1), "b": made(2, "a"), "c": fails("b")}
EACH = {"for_each": "${{ input.list }}", "max_parallel": 50, "tool": "make", "with": {"n": "${{ item }}"}}


@pytest.fixture
async def small_world(small_world: World) -> AsyncIterator[World]:
    """Whatever a test does: its rows are judged in the end."""
    yield small_world
    await keeps_its_laws(small_world)


async def resolved(world: World, call_id: UUID, outcome: str) -> None:
    await resolve.resolve(world.api, ids.DEFAULT_TENANT, call_id, outcome=outcome, result=None, note="looked", by="kim")


# --- a compensation that failed ------------------------------------------------------------------------------------


async def test_what_an_effect_depends_on_waits_for_its_failed_undo_and_other_branches_go_on(small_world: World) -> None:
    script(small_world)
    worker = await small_world.worker()
    steps = {"a": made(1), "b": made(2, "a"), "other": made(9), "c": fails("b", "other")}
    workflow_id = await submitted(small_world, undoable(steps))
    small_world.tools.script["undo"] = [lambda r: refused(409) if r.arguments["n"] == 2 else {"ok": True}] * 2

    await play(small_world, worker)

    workflow = await small_world.workflow(workflow_id)
    assert (workflow["status"], workflow["attention"]) == ("compensating", ["compensation_failed"])
    assert (workflow["undos"], workflow["undos_failed"], workflow["effects_undone"]) == (2, 1, 1)
    assert await undos(small_world, workflow_id) == {"a": "recorded", "b": "failed", "other": "done"}
    assert "compensation.failed" in await small_world.events(workflow_id)


@pytest.mark.parametrize(
    ("action", "sent", "compensation"), [("retry", 3, "done"), ("done", 2, "done"), ("skip", 2, "partial")]
)
async def test_operator_settles_a_failed_undo_and_the_rest_goes_on(
    small_world: World, action: str, sent: int, compensation: str
) -> None:
    script(small_world)
    worker = await small_world.worker()
    workflow_id = await submitted(small_world, undoable(CHAIN))
    small_world.tools.script["undo"] = [refused(409)]
    await play(small_world, worker)

    await settle_undo(small_world, workflow_id, "b", action)
    await play(small_world, worker)
    before = await small_world.workflow(workflow_id)
    if action != "retry":
        await settle_undo(small_world, workflow_id, "b", action)

    workflow = await small_world.workflow(workflow_id)
    assert await ended(small_world, workflow_id) == ("failed", compensation)
    assert (workflow["attention"], workflow["undos"], workflow["undos_failed"]) == ([], 0, 0)
    assert workflow["revision"] == before["revision"], "the same again is the same"
    assert len(small_world.tools.sent("undo")) == sent
    audited = await small_world.rows("SELECT action FROM audit WHERE action LIKE 'compensation.%%'")
    assert [row["action"] for row in audited] == [f"compensation.{action}"]


async def test_operator_cannot_settle_an_undo_that_did_not_fail(small_world: World) -> None:
    script(small_world)
    worker = await small_world.worker()
    workflow_id = await submitted(small_world, undoable(CHAIN))
    await play(small_world, worker)

    with pytest.raises(NotPossible):
        await settle_undo(small_world, workflow_id, "b", "skip")

    assert await undos(small_world, workflow_id) == {"a": "done", "b": "done"}


async def test_failed_keyed_undo_goes_again_as_a_new_call_under_a_new_key(small_world: World) -> None:
    script(small_world)
    worker = await small_world.worker()
    workflow_id = await submitted(small_world, undoable({"a": made(1), "b": fails("a")}, effect="keyed", by="keyed"))
    small_world.tools.script["undo"] = [refused(422)]
    await play(small_world, worker)

    await settle_undo(small_world, workflow_id, "a", "retry")
    await play(small_world, worker)

    first, second = await compensations(small_world, workflow_id)
    assert (first["generation"], second["generation"], second["retry_of"]) == (1, 2, first["id"])
    keys = [request.key for request in small_world.tools.ledger if request.key is not None]
    assert len(keys) == len(set(keys)) == 3
    assert await ended(small_world, workflow_id) == ("failed", "done")


async def test_keyed_undo_that_was_given_up_goes_again_under_the_same_key(small_world: World) -> None:
    script(small_world)
    worker = await small_world.worker()
    steps = {"a": made(1), "b": fails("a")}
    definition = undoable(steps, by="keyed", undo={"key_ttl": "10m"})
    workflow_id = await submitted(small_world, definition)
    small_world.tools.script["undo"] = [unknown()]
    while not small_world.tools.sent("undo"):
        await asyncio.gather(*(worker.run(call) for call in await small_world.due_calls()))
    await small_world.rows("UPDATE calls SET key_deadline = clock_timestamp() WHERE kind = 'compensation'")
    await play(small_world, worker)
    [given_up] = await compensations(small_world, workflow_id)

    await resolved(small_world, given_up["id"], "abandon")
    await settle_undo(small_world, workflow_id, "a", "retry")
    await play(small_world, worker)

    first, second = small_world.tools.sent("undo")
    assert given_up["state"] == "in_doubt"
    assert first.key == second.key
    assert await ended(small_world, workflow_id) == ("failed", "done")


async def test_undo_whose_arguments_cannot_be_made_is_work_for_an_operator(small_world: World) -> None:
    script(small_world)
    worker = await small_world.worker()
    workflow_id = await submitted(small_world, undoable(CHAIN))
    small_world.tools.script["make"] = [{"id": "one"}, {"no": "id"}]

    await play(small_world, worker)
    waiting = await small_world.workflow(workflow_id)
    await settle_undo(small_world, workflow_id, "b", "retry")
    again = await small_world.workflow(workflow_id)
    await settle_undo(small_world, workflow_id, "b", "done")
    await play(small_world, worker)

    assert (waiting["status"], waiting["attention"]) == ("compensating", ["compensation_failed"])
    assert (again["undos_failed"], again["attention"]) == (1, ["compensation_failed"])
    assert [request.arguments["n"] for request in small_world.tools.sent("undo")] == [1]
    assert await ended(small_world, workflow_id) == ("failed", "done")


async def test_every_item_gets_its_turn_when_all_undos_fail(small_world: World) -> None:
    script(small_world)
    worker = await small_world.worker()
    workflow_id = await submitted(
        small_world, undoable({"each": EACH, "then": fails("each")}), list=list(range(3 * UNDOS_AT_ONCE))
    )
    small_world.tools.script["undo"] = [refused(409)] * (3 * UNDOS_AT_ONCE)

    await play(small_world, worker)

    assert set((await undos(small_world, workflow_id)).values()) == {"failed"}
    assert (await small_world.workflow(workflow_id))["undos_failed"] == 3 * UNDOS_AT_ONCE


async def test_every_item_gets_its_turn_when_no_undo_can_be_made(small_world: World) -> None:
    script(small_world)
    worker = await small_world.worker()
    workflow_id = await submitted(
        small_world, undoable({"each": EACH, "then": fails("each")}), list=list(range(3 * UNDOS_AT_ONCE))
    )
    small_world.tools.script["make"] = [{"no": "id"}] * (3 * UNDOS_AT_ONCE)

    await play(small_world, worker)

    assert set((await undos(small_world, workflow_id)).values()) == {"failed"}
    assert small_world.tools.sent("undo") == []


# --- a compensation in doubt ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdict", "sent", "end"),
    [
        ("happened", 1, ("failed", "done")),
        ("did_not_happen", 2, ("failed", "done")),
        ("abandon", 1, ("compensating", None)),
    ],
)
async def test_undo_in_doubt_is_settled_by_a_person(
    small_world: World, verdict: str, sent: int, end: tuple[str, str | None]
) -> None:
    script(small_world)
    worker = await small_world.worker()
    workflow_id = await submitted(small_world, undoable({"a": made(1), "b": fails("a")}, by="at_most_once"))
    small_world.tools.script["undo"] = [unknown()]
    await play(small_world, worker)
    waiting = await small_world.workflow(workflow_id)
    [call] = await compensations(small_world, workflow_id)

    await small_world.end_quarantines()
    await resolved(small_world, call["id"], verdict)
    await play(small_world, worker)

    assert (waiting["status"], waiting["doubts"], call["state"]) == ("compensating", 1, "in_doubt")
    assert len(small_world.tools.sent("undo")) == sent
    assert await ended(small_world, workflow_id) == end
    if verdict == "abandon":
        assert await undos(small_world, workflow_id) == {"a": "failed"}
        await settle_undo(small_world, workflow_id, "a", "skip")
        assert await ended(small_world, workflow_id) == ("failed", "skipped")


@pytest.mark.parametrize("by", ["idempotent", "keyed"])
async def test_undo_of_a_repeatable_class_is_repeated_with_the_same_bytes(small_world: World, by: str) -> None:
    script(small_world)
    worker = await small_world.worker()
    workflow_id = await submitted(small_world, undoable({"a": made(1), "b": fails("a")}, by=by))
    small_world.tools.script["undo"] = [unknown(), not_sent(), ok({})]

    await play(small_world, worker)

    first, *others = small_world.tools.sent("undo")
    assert {(request.key, str(request.arguments)) for request in others} == {(first.key, str(first.arguments))}
    assert await ended(small_world, workflow_id) == ("failed", "done")


async def test_probe_that_finds_the_undo_settles_it(small_world: World) -> None:
    script(small_world)
    worker = await small_world.worker()
    small_world.tools.script |= {"undo": [unknown()], "look": [{"gone": True}]}
    workflow_id = await submitted(small_world, probed())

    await play(small_world, worker)

    assert await ended(small_world, workflow_id) == ("failed", "done")
    assert len(small_world.tools.sent("undo")) == 1
    assert [request.arguments for request in small_world.tools.sent("look")] == [{"id": "id-1"}]


async def test_undo_that_its_probe_does_not_find_is_made_again_only_after_the_quarantine(small_world: World) -> None:
    script(small_world)
    worker = await small_world.worker()
    small_world.tools.script |= {"undo": [unknown()], "look": [{"gone": False}] * 3}
    workflow_id = await submitted(small_world, probed())

    for _ in range(4):
        await small_world.hurry()
        await asyncio.gather(*(worker.run(call) for call in await small_world.due_calls()))
    early = len(small_world.tools.sent("undo"))
    await small_world.end_quarantines()
    await play(small_world, worker)

    assert early == 1
    assert len(small_world.tools.sent("undo")) == 2
    assert await ended(small_world, workflow_id) == ("failed", "done")


async def test_undo_whose_probe_is_unclear_is_in_doubt_for_a_person(small_world: World) -> None:
    script(small_world)
    worker = await small_world.worker()
    small_world.tools.script |= {"undo": [unknown()], "look": [refused(500)] * 100}
    workflow_id = await submitted(small_world, probed())
    while not await compensations(small_world, workflow_id):
        await asyncio.gather(*(worker.run(call) for call in await small_world.due_calls()))

    for _ in range(3):
        await small_world.hurry()
        await asyncio.gather(*(worker.run(call) for call in await small_world.due_calls()))
    await small_world.rows(
        "UPDATE calls SET not_before = clock_timestamp() - interval '1 hour' WHERE state = 'probing'"
    )
    await play(small_world, worker)
    [call] = await compensations(small_world, workflow_id)
    await resolved(small_world, call["id"], "happened")

    assert call["state"] == "in_doubt"
    assert await ended(small_world, workflow_id) == ("failed", "done")


async def test_late_answer_of_an_undo_stops_its_probe(small_world: World) -> None:
    script(small_world)
    first, second = await small_world.worker("one"), await small_world.worker("two")
    workflow_id = await submitted(small_world, probed())
    for step in ("a", "b"):
        await second.run((await small_world.call(workflow_id, step))["id"])
    [undo] = await compensations(small_world, workflow_id)

    async def probed_meanwhile() -> Answer:
        await small_world.lose(first)
        await small_world.silence()
        await small_world.sweep(second)
        return ok({})

    small_world.tools.script["undo"] = [lambda _: probed_meanwhile()]
    await first.run(undo["id"])

    assert await ended(small_world, workflow_id) == ("failed", "done")
    probes = await small_world.rows("SELECT state FROM calls WHERE kind = 'probe'")
    assert [probe["state"] for probe in probes] == ["cancelled"]
    assert small_world.tools.sent("look") == []


async def test_effect_that_was_probed_itself_is_undone_by_a_first_call(small_world: World) -> None:
    script(small_world)
    worker = await small_world.worker()
    probe = {"tool": "look", "with": {"n": "${{ arguments.n }}"}, "found": "output.there"}
    definition = undoable({"a": made(1), "b": fails("a")}, effect="checkable", by="keyed", make={"probe": probe})
    small_world.tools.script |= {"make": [unknown()], "look": [{"there": True, "id": "found"}]}
    workflow_id = await submitted(small_world, definition)

    await play(small_world, worker)

    [call] = await compensations(small_world, workflow_id)
    assert (call["generation"], call["retry_of"]) == (1, None)
    assert small_world.tools.sent("undo")[0].arguments["id"] == "found"
    assert await ended(small_world, workflow_id) == ("failed", "done")
