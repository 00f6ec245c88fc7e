"""Tools that answer 202: nobody is held, the result comes later, or it does not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.domain import ids
from app.domain.facts import ResultTimedOut, WorkerLost
from app.engine import record, sweep
from app.errors import AlreadySettled, ResultTokenInvalid
from tests.engine.awaiting import checked, report, slow, state, waiting
from tests.engine.ledger_laws import check_laws
from tests.engine.world import World, accepted


@pytest.fixture
async def ledger(small_world: World) -> AsyncIterator[World]:
    yield small_world
    await check_laws(small_world)


# --- waiting -------------------------------------------------------------------------------------------------------


async def test_accepted_call_waits_for_its_result_and_holds_no_worker(ledger: World) -> None:
    workflow_id, _ = await waiting(ledger, slow("at_most_once"))

    call, attempt = await ledger.call(workflow_id, "s"), await ledger.row("SELECT * FROM attempts")
    due = await ledger.row("SELECT * FROM dues WHERE ref = %s", call["id"])
    assert (call["state"], attempt["outcome"], attempt["status_code"]) == ("intended", None, 202)
    assert (due["kind"], due["worker"]) == ("result", None)
    assert (due["due_at"] - attempt["intended_at"]).total_seconds() == pytest.approx(600, abs=60)
    assert (await ledger.workflow(workflow_id))["status"] == "running"
    [request] = ledger.tools.ledger
    assert ids.encode("call", call["id"]) in (request.result_url or "")


async def test_worker_of_an_accepted_call_may_die_without_anything_happening(ledger: World) -> None:
    workflow_id, worker = await waiting(ledger, slow("keyed"))
    survivor = await ledger.worker("survivor")

    await ledger.lose(worker, proof=True)
    await ledger.silence()
    await ledger.sweep(survivor)
    between = await state(ledger, workflow_id)
    await report(ledger, workflow_id, result={"id": 1})

    assert between == "intended"
    assert (await ledger.step(workflow_id, "s"))["output"] == {"id": 1}
    assert len(ledger.tools.ledger) == 1


async def test_loss_that_was_noticed_before_the_acceptance_was_recorded_is_not_acted_upon(ledger: World) -> None:
    worker, survivor = await ledger.worker("doomed"), await ledger.worker("survivor")
    workflow_id = await ledger.submit(slow("keyed"))
    [call_id] = await ledger.due_calls()
    claimed = await worker.claim(call_id)
    await ledger.lose(worker)

    await record.record(survivor.services, claimed, accepted())
    noticed = WorkerLost(call_id=call_id, attempt_id=claimed.attempt_id, step="s")
    await sweep.bring(survivor.services, {workflow_id: [noticed]})

    assert await state(ledger, workflow_id) == "intended"


async def test_acceptance_is_recorded_once_when_it_is_told_twice(ledger: World) -> None:
    worker = await ledger.worker()
    workflow_id = await ledger.submit(slow("keyed"))
    [call_id] = await ledger.due_calls()
    claimed = await worker.claim(call_id)

    await record.record(worker.services, claimed, accepted())
    await record.record(worker.services, claimed, accepted())

    assert (await ledger.events(workflow_id)).count("effect.accepted") == 1


# --- the result ----------------------------------------------------------------------------------------------------

CLASSES = ["idempotent", "keyed", "at_most_once"]


@pytest.mark.parametrize("effect", CLASSES)
async def test_result_ends_the_step_and_the_same_again_is_a_replay(ledger: World, effect: str) -> None:
    workflow_id, _ = await waiting(ledger, slow(effect))

    await report(ledger, workflow_id, result={"id": 1})
    before = await ledger.events(workflow_id)
    await report(ledger, workflow_id, result={"id": 2})

    workflow = await ledger.workflow(workflow_id)
    assert (workflow["status"], workflow["effects_done"]) == ("succeeded", 1)
    assert (await ledger.step(workflow_id, "s"))["output"] == {"id": 1}
    assert await ledger.events(workflow_id) == before


async def test_reported_failure_fails_the_step_in_the_tools_words(ledger: World) -> None:
    workflow_id, _ = await waiting(ledger, slow("at_most_once"))

    await report(ledger, workflow_id, succeeded=False)

    failure = (await ledger.workflow(workflow_id))["failure"]
    assert (failure["kind"], failure["message"]) == ("tool_error", "no paper left")


@pytest.mark.parametrize("first", [True, False])
async def test_other_outcome_than_the_one_reported_is_refused(ledger: World, first: bool) -> None:
    workflow_id, _ = await waiting(ledger, slow("keyed"))
    await report(ledger, workflow_id, succeeded=first)
    before = await ledger.workflow(workflow_id)

    with pytest.raises(AlreadySettled):
        await report(ledger, workflow_id, succeeded=not first)

    assert await ledger.workflow(workflow_id) == before


async def test_result_before_its_acceptance_was_recorded_counts(ledger: World) -> None:
    worker = await ledger.worker()
    workflow_id = await ledger.submit(slow("at_most_once"))
    [call_id] = await ledger.due_calls()

    async def reports_at_once() -> Any:
        await report(ledger, workflow_id, result={"id": 1})
        return accepted()

    ledger.tools.script["do"] = [lambda _: reports_at_once()]
    await worker.run(call_id)

    workflow = await ledger.workflow(workflow_id)
    assert (workflow["status"], workflow["attention"]) == ("succeeded", [])
    assert (await ledger.step(workflow_id, "s"))["output"] == {"id": 1}


async def test_token_of_another_call_or_of_nobody_is_refused(ledger: World) -> None:
    workflow_id, worker = await waiting(ledger, slow("keyed"), accepted())
    other = await ledger.submit(slow("keyed"), key="other")
    await ledger.once(worker)
    wrong = [ledger.tools.ledger[1].result_token, "srt_" + "0" * 96, "srt_", "", "x" * 100]

    for token in wrong:
        with pytest.raises(ResultTokenInvalid):
            await report(ledger, workflow_id, token=token or " ")

    assert (await state(ledger, workflow_id), await state(ledger, other)) == ("intended", "intended")


async def test_reported_failure_is_tried_again_by_policy_and_the_first_wait_ends_nothing_of_the_second(
    ledger: World,
) -> None:
    definition = slow("keyed")
    definition["steps"]["s"]["retry"] = {"tool_error": {"max_retries": 1}}
    workflow_id, worker = await waiting(ledger, definition)

    await report(ledger, workflow_id, succeeded=False)
    await check_laws(ledger)  # nothing of the first wait is left
    await ledger.hurry()
    [call_id] = await ledger.due_calls()
    claimed = await worker.claim(call_id)
    overdue = ResultTimedOut(call_id=call_id, attempt_id=claimed.attempt_id, step="s")
    await sweep.bring(worker.services, {workflow_id: [overdue]})

    call = await ledger.call(workflow_id, "s")
    assert (call["state"], call["attempts"], call["generation"]) == ("intended", 2, 2)


# --- no result -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("effect", ["idempotent", "keyed"])
async def test_repeatable_call_is_repeated_with_the_same_key_when_no_result_comes(ledger: World, effect: str) -> None:
    workflow_id, worker = await waiting(ledger, slow(effect), {"id": 1})

    await ledger.ripen(worker, "result")
    await ledger.run(worker)

    first, second = ledger.tools.ledger
    assert first.key == second.key
    assert first.result_token != second.result_token
    assert (await ledger.workflow(workflow_id))["status"] == "succeeded"


async def test_at_most_once_is_in_doubt_with_a_quarantine_when_no_result_comes(ledger: World) -> None:
    workflow_id, worker = await waiting(ledger, slow("at_most_once"))

    await ledger.ripen(worker, "result")

    call = await ledger.call(workflow_id, "s")
    assert (call["state"], len(ledger.tools.ledger)) == ("in_doubt", 1)
    assert (call["not_before"] - call["doubt_since"]).total_seconds() == pytest.approx(10, abs=0.01)


@pytest.mark.parametrize("wish", ["ask", "abandon"])
async def test_step_that_wants_no_repeat_gets_none_when_no_result_comes(ledger: World, wish: str) -> None:
    definition = slow("keyed")
    definition["steps"]["s"]["on_unknown_outcome"] = wish
    workflow_id, worker = await waiting(ledger, definition)

    before = await state(ledger, workflow_id)
    await ledger.ripen(worker, "result")

    assert (before, await state(ledger, workflow_id)) == ("intended", "in_doubt" if wish == "ask" else "abandoned")
    assert len(ledger.tools.ledger) == 1


@pytest.mark.parametrize("effect", ["checkable", "keyed"])
async def test_probe_finds_an_accepted_effect_before_its_result_is_overdue(ledger: World, effect: str) -> None:
    ledger.tools.script["look"] = [{"found": False}, {"found": True, "id": 7}]
    workflow_id, worker = await waiting(ledger, checked(effect))

    between = await ledger.call(workflow_id, "s")
    await ledger.run(worker)

    accepted_at = (await ledger.row("SELECT received_at FROM attempts WHERE status_code = 202"))["received_at"]
    assert between["state"] == "probing"
    assert (between["not_before"] - accepted_at).total_seconds() >= 600
    assert (await ledger.step(workflow_id, "s"))["output"] == {"found": True, "id": 7}
    assert len(ledger.tools.sent("do")) == 1


async def test_accepted_effect_that_is_absent_when_its_result_is_overdue_is_repeated_once(ledger: World) -> None:
    ledger.tools.script["look"] = [{"found": False}] * 3
    workflow_id, worker = await waiting(ledger, checked())

    await ledger.once(worker)
    before = len(ledger.tools.sent("do"))
    await ledger.end_quarantines()
    await ledger.run(worker)

    assert (before, len(ledger.tools.sent("do"))) == (1, 2)
    assert await state(ledger, workflow_id) == "succeeded"


async def test_result_settles_an_accepted_effect_that_is_being_probed(ledger: World) -> None:
    workflow_id, _ = await waiting(ledger, checked())

    await report(ledger, workflow_id, result={"id": 1})

    assert (await ledger.step(workflow_id, "s"))["output"] == {"id": 1}
    assert await ledger.due_calls() == []
    [told] = await ledger.rows("SELECT data FROM events WHERE type = 'effect.resolved'")
    assert told["data"]["by"] == "its report"  # it was promised: nothing about it is late


async def test_reported_failure_of_an_accepted_effect_that_is_probed_is_not_called_late(ledger: World) -> None:
    workflow_id, _ = await waiting(ledger, checked())

    await report(ledger, workflow_id, succeeded=False)

    [told] = await ledger.rows("SELECT data FROM events WHERE type = 'effect.resolved'")
    assert told["data"] == {"outcome": "did_not_happen", "by": "its report", "note": "no paper left"}
