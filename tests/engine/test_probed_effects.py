"""Effects while they are probed: late evidence, drains, pauses, people, forgotten keys."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from app.domain import ids
from app.engine import cancel, pause, record, resolve
from app.errors import AlreadyResolved, InvalidValue, NotInDoubt
from tests.engine.ledger_laws import check_laws
from tests.engine.probing import ABSENT, FAR, THERE, lost_and_probing, next_probe, probing, state
from tests.engine.world import Worker, World, not_sent, ok, one, probed, refused, settle, tool, unknown


@pytest.fixture
async def ledger(small_world: World) -> AsyncIterator[World]:
    yield small_world
    await check_laws(small_world)


# --- late evidence while probing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("in_flight", [False, True])
async def test_late_success_settles_the_effect_and_cancels_its_open_probe(ledger: World, in_flight: bool) -> None:
    workflow_id, lost, survivor = await lost_and_probing(ledger)
    probe = await next_probe(ledger)
    asked = await survivor.claim(probe["id"]) if in_flight else None

    await record.record(survivor.services, lost, ok({"id": 3}))
    if asked is not None:
        await record.record(survivor.services, asked, ok(ABSENT))

    probe = await ledger.row("SELECT * FROM calls WHERE id = %s", probe["id"])
    workflow = await ledger.workflow(workflow_id)
    assert probe["state"] == "cancelled"
    assert (await ledger.step(workflow_id, "s"))["output"] == {"id": 3}
    assert (workflow["status"], workflow["effects_done"], workflow["attention"]) == ("succeeded", 1, [])


async def test_late_not_sent_testimony_makes_the_effect_due_and_cancels_the_probe(ledger: World) -> None:
    workflow_id, lost, survivor = await lost_and_probing(ledger)

    await record.record(survivor.services, lost, not_sent())
    between = await state(ledger, workflow_id)
    await ledger.run(survivor)

    assert between == "due"
    assert (len(ledger.tools.sent("look")), len(ledger.tools.sent("do"))) == (0, 1)
    assert await state(ledger, workflow_id) == "succeeded"


async def test_late_refusal_fails_the_step_and_cancels_the_probe(ledger: World) -> None:
    workflow_id, lost, survivor = await lost_and_probing(ledger)

    await record.record(survivor.services, lost, refused(422))

    workflow = await ledger.workflow(workflow_id)
    assert (workflow["status"], workflow["failure"]["kind"]) == ("failed", "tool_error")
    assert await ledger.due_calls() == []


async def test_late_unknown_prolongs_the_quarantine(ledger: World) -> None:
    workflow_id, lost, survivor = await lost_and_probing(ledger, settle_time="20s")
    await ledger.end_quarantines()

    await record.record(survivor.services, lost, unknown())

    attempt = await ledger.row("SELECT settled_at FROM attempts WHERE outcome = 'unknown'")
    call = await ledger.call(workflow_id, "s")
    assert (call["not_before"] - attempt["settled_at"]).total_seconds() == pytest.approx(20, abs=0.01)
    assert call["state"] == "probing"


async def test_late_success_after_the_probe_said_absent_is_told_as_a_contradiction(ledger: World) -> None:
    workflow_id, lost, survivor = await lost_and_probing(ledger)
    ledger.tools.script["look"] = [ABSENT]
    await ledger.end_quarantines()
    await ledger.once(survivor)

    await record.record(survivor.services, lost, ok({"id": 3}))

    workflow = await ledger.workflow(workflow_id)
    assert (workflow["status"], workflow["attention"]) == ("succeeded", ["contradicted"])
    assert ledger.tools.sent("do") == []  # the repeat was revoked before it was sent


# --- drains, pauses, people ----------------------------------------------------------------------------------------


def undone(**step: Any) -> dict[str, Any]:
    definition = probed(settle_time=FAR, step=step, compensate={"tool": "undo", "with": {"id": "${{ output.id }}"}})
    definition["tools"] |= {"undo": tool("idempotent"), "fail": tool("read_only")}
    return definition


async def begin_to_fail(world: World, workflow_id: UUID, worker: Worker, how: str) -> None:
    if how == "cancel":
        await cancel.cancel(world.api, ids.DEFAULT_TENANT, workflow_id, reason=None, by="kim")
    else:
        await world.ripen(worker, how)


@pytest.mark.parametrize("how", ["cancel", "deadline", "step_timeout"])
async def test_end_of_a_workflow_waits_for_the_probe_and_repeats_nothing_that_is_absent(
    ledger: World, how: str
) -> None:
    workflow_id, worker = await probing(ledger, ABSENT, ABSENT, definition=undone(timeout="1h"))

    await begin_to_fail(ledger, workflow_id, worker, how)
    await ledger.once(worker)
    between = await ledger.workflow(workflow_id)
    await ledger.end_quarantines()
    await ledger.run(worker)

    workflow = await ledger.workflow(workflow_id)
    assert between["ended_at"] is None
    assert workflow["status"] == ("cancelled" if how == "cancel" else "failed")
    assert (await state(ledger, workflow_id), workflow["effects_done"]) == ("cancelled", 0)
    assert (len(ledger.tools.sent("do")), ledger.tools.sent("undo")) == (1, [])


@pytest.mark.parametrize("how", ["cancel", "deadline", "step_timeout"])
async def test_effect_that_is_found_while_its_workflow_ends_is_done_and_undone(ledger: World, how: str) -> None:
    workflow_id, worker = await probing(ledger, THERE, definition=undone(timeout="1h"))

    await begin_to_fail(ledger, workflow_id, worker, how)
    await ledger.run(worker)

    workflow = await ledger.workflow(workflow_id)
    assert (workflow["effects_done"], workflow["effects_undone"], workflow["compensation"]) == (1, 1, "done")
    assert workflow["status"] == ("cancelled" if how == "cancel" else "failed")
    assert [request.arguments for request in ledger.tools.sent("undo")] == [{"id": 7}]


async def test_failure_of_another_branch_waits_for_the_probe(ledger: World) -> None:
    definition = undone()
    definition["steps"]["b"] = {"tool": "fail", "with": {}}
    ledger.tools.script["fail"] = [refused(404)]
    workflow_id, worker = await probing(ledger, THERE, definition=definition)

    between = await ledger.workflow(workflow_id)
    await ledger.run(worker)

    assert (between["status"], between["failure"]["step"]) == ("failing", "b")
    assert (await ledger.workflow(workflow_id))["compensation"] == "done"


async def test_step_that_timed_out_and_may_fail_lets_the_workflow_go_on_after_the_probe(ledger: World) -> None:
    workflow_id, worker = await probing(ledger, THERE, definition=undone(timeout="1h", on_error="continue"))

    await ledger.ripen(worker, "step_timeout")
    between = (await ledger.step(workflow_id, "s"))["state"]
    await ledger.run(worker)

    step, workflow = await ledger.step(workflow_id, "s"), await ledger.workflow(workflow_id)
    assert (between, step["state"], step["failure"]["kind"]) == ("running", "failed", "step_timeout")
    assert (workflow["status"], workflow["effects_done"]) == ("succeeded", 1)


async def test_pause_does_not_stop_probes_and_holds_the_repeat(ledger: World) -> None:
    workflow_id, worker = await probing(ledger, ABSENT)
    await pause.pause(ledger.api, ids.DEFAULT_TENANT, workflow_id, reason=None, by="kim")
    await ledger.end_quarantines()

    await ledger.run(worker)
    paused = await ledger.call(workflow_id, "s")
    await pause.resume(ledger.api, ids.DEFAULT_TENANT, workflow_id, reason=None, by="kim")
    await ledger.run(worker)

    assert (paused["state"], paused["held_reason"], paused["attempts"]) == ("held", "pause", 1)
    assert len(ledger.tools.sent("do")) == 2
    assert (await ledger.workflow(workflow_id))["status"] == "succeeded"


async def test_effect_that_is_found_in_a_pause_ends_its_step(ledger: World) -> None:
    workflow_id, worker = await probing(ledger, THERE)
    await pause.pause(ledger.api, ids.DEFAULT_TENANT, workflow_id, reason=None, by="kim")

    await ledger.run(worker)

    assert (await ledger.step(workflow_id, "s"))["state"] == "succeeded"


async def test_person_may_ask_the_probe_again_instead_of_looking(ledger: World) -> None:
    definition = probed(settle_time=FAR, step={"on_unknown_outcome": "ask"})
    workflow_id, worker = await probing(ledger, THERE, definition=definition)
    doubt = await ledger.call(workflow_id, "s")

    await settle(ledger, workflow_id, "probe")
    await settle(ledger, workflow_id, "probe")
    between = await ledger.call(workflow_id, "s")
    await ledger.run(worker)

    assert doubt["state"] == "in_doubt"
    assert (between["state"], between["not_before"]) == ("probing", doubt["not_before"])
    assert len(ledger.tools.sent("look")) == 1
    workflow = await ledger.workflow(workflow_id)
    assert (workflow["status"], workflow["attention"]) == ("succeeded", [])
    audited = await ledger.rows("SELECT actor, action FROM audit")
    assert audited == [{"actor": "kim", "action": "effect.probe"}]


async def test_person_cannot_settle_what_a_probe_is_settling(ledger: World) -> None:
    workflow_id, worker = await probing(ledger, THERE)

    with pytest.raises(NotInDoubt):
        await settle(ledger, workflow_id, "happened")
    await ledger.run(worker)
    await settle(ledger, workflow_id, "happened")  # as the probe said

    with pytest.raises(AlreadyResolved):
        await settle(ledger, workflow_id, "abandon")


async def test_probe_of_a_tool_that_declares_none_is_refused(ledger: World) -> None:
    ledger.tools.script["do"] = [unknown()]
    worker = await ledger.worker()
    workflow_id = await ledger.submit(one("at_most_once"))
    await ledger.run(worker)

    with pytest.raises(InvalidValue):
        await settle(ledger, workflow_id, "probe")


async def test_one_word_asks_the_probes_of_many_doubts(ledger: World) -> None:
    definition = probed(settle_time=FAR, step={"on_unknown_outcome": "ask"})
    worker = await ledger.worker()
    ledger.tools.script |= {"do": [unknown()] * 3, "look": [THERE] * 3}
    for n in range(3):
        await ledger.submit(definition, key=f"k{n}")
    await ledger.run(worker)

    bulk = await resolve.resolve_many(
        ledger.api, ids.DEFAULT_TENANT, filter=resolve.Filter(tool="do"), outcome="probe", note="outage", by="kim",
        limit=10, dry_run=False,
    )  # fmt: skip
    await ledger.run(worker)

    assert (bulk.matched, bulk.resolved, bulk.refused) == (3, 3, [])
    assert await ledger.rows("SELECT DISTINCT status FROM workflows") == [{"status": "succeeded"}]


# --- keys and probes -----------------------------------------------------------------------------------------------

KEYED = {"key_ttl": "24h", "settle_time": FAR}


async def test_keyed_call_is_repeated_and_not_probed_while_the_tool_remembers_its_key(ledger: World) -> None:
    workflow_id, worker = await probing(ledger, definition=probed("keyed", **KEYED))

    await ledger.run(worker)

    first, second = ledger.tools.sent("do")
    assert (first.key, ledger.tools.sent("look")) == (second.key, [])
    assert await state(ledger, workflow_id) == "succeeded"


async def forget_keys(world: World) -> None:
    await world.rows(
        "UPDATE calls SET key_deadline = clock_timestamp() + interval '1 s' WHERE key_deadline IS NOT NULL"
    )


@pytest.mark.parametrize("sent_by", [{}, {"key_header": None, "key_argument": "key"}])
async def test_keyed_call_is_probed_once_its_key_may_be_forgotten_and_absent_is_a_fresh_use(
    ledger: World, sent_by: dict[str, Any]
) -> None:
    definition = probed("keyed", probe={"with": {"key": "${{ key }}"}}, **KEYED, **sent_by)
    definition["tools"]["do"] = {k: v for k, v in definition["tools"]["do"].items() if v is not None}
    workflow_id, worker = await probing(ledger, ABSENT, definition=definition)
    await forget_keys(ledger)

    await ledger.once(worker)  # found out when it was to be claimed
    between = await state(ledger, workflow_id)
    await ledger.end_quarantines()
    await ledger.run(worker)

    call = await ledger.call(workflow_id, "s")
    [asked] = ledger.tools.sent("look")
    keys = {request.key for request in ledger.tools.sent("do")}
    assert (between, call["state"], call["generation"]) == ("probing", "succeeded", 1)
    assert (len(ledger.tools.sent("do")), keys) == (2, {asked.arguments["key"]})
    assert call["key_deadline"] > call["ended_at"]


async def test_quarantine_of_a_forgotten_key_waits_for_the_sender_that_was_given_up_early(ledger: World) -> None:
    """A keyed call is made again before its lost sender is known to be silent; without its key that is not enough."""
    doomed, survivor = await ledger.worker("doomed"), await ledger.worker("survivor")
    workflow_id = await ledger.submit(probed("keyed", timeout="5m", **KEYED))
    [call_id] = await ledger.due_calls()
    await doomed.claim(call_id)
    await ledger.lose(doomed)
    await ledger.sweep(survivor)
    await forget_keys(ledger)

    await ledger.once(survivor)

    call = await ledger.call(workflow_id, "s")
    attempt = await ledger.row("SELECT send_deadline FROM attempts")
    assert call["state"] == "probing"
    assert (call["not_before"] - attempt["send_deadline"]).total_seconds() == pytest.approx(600, abs=0.01)
