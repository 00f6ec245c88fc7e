"""Results that come late, to a workflow that ends, or to evidence without its decision."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from app.domain import ids
from app.domain.facts import CallSettled
from app.engine import accept_result, cancel, pause, record, result_tokens
from app.store.claims import Claimed
from tests.engine.awaiting import checked, report, slow, state, waiting
from tests.engine.ledger_laws import check_laws
from tests.engine.world import Worker, World, accepted, settle, unknown


@pytest.fixture
async def ledger(small_world: World) -> AsyncIterator[World]:
    yield small_world
    await check_laws(small_world)


# --- late ----------------------------------------------------------------------------------------------------------


async def test_late_result_settles_the_doubt(ledger: World) -> None:
    workflow_id, worker = await waiting(ledger, slow("at_most_once"))
    await ledger.ripen(worker, "result")

    await report(ledger, workflow_id, result={"id": 1})

    workflow = await ledger.workflow(workflow_id)
    assert (workflow["status"], workflow["doubts"], workflow["attention"]) == ("succeeded", 0, [])
    assert (await ledger.step(workflow_id, "s"))["output"] == {"id": 1}


async def test_late_report_of_a_failure_settles_the_doubt_too(ledger: World) -> None:
    workflow_id, worker = await waiting(ledger, slow("at_most_once"))
    await ledger.ripen(worker, "result")

    await report(ledger, workflow_id, succeeded=False)

    assert (await ledger.workflow(workflow_id))["failure"]["kind"] == "tool_error"


async def test_late_result_of_the_first_request_settles_the_call_while_the_second_waits(ledger: World) -> None:
    workflow_id, worker = await waiting(ledger, slow("keyed"), accepted())
    await ledger.ripen(worker, "result")
    await ledger.once(worker)

    await report(ledger, workflow_id, n=1, result={"id": 1})
    await report(ledger, workflow_id, n=2, result={"id": 1})

    workflow = await ledger.workflow(workflow_id)
    assert (workflow["status"], workflow["effects_done"], workflow["attention"]) == ("succeeded", 1, [])


async def test_late_failure_of_the_first_request_settles_nothing_while_the_second_waits(ledger: World) -> None:
    workflow_id, worker = await waiting(ledger, slow("keyed"), accepted())
    await ledger.ripen(worker, "result")
    await ledger.once(worker)

    await report(ledger, workflow_id, n=1, succeeded=False)
    between = await state(ledger, workflow_id)
    await report(ledger, workflow_id, n=2, result={"id": 1})

    assert (between, await state(ledger, workflow_id)) == ("intended", "succeeded")


async def test_result_after_the_effect_was_given_up_is_a_contradiction(ledger: World) -> None:
    workflow_id, worker = await waiting(ledger, slow("at_most_once"))
    await ledger.ripen(worker, "result")
    await settle(ledger, workflow_id, "abandon")

    await report(ledger, workflow_id, result={"id": 1})

    workflow = await ledger.workflow(workflow_id)
    assert (workflow["status"], workflow["attention"]) == ("failed", ["contradicted"])


async def lost_before_the_record(world: World, definition: dict[str, Any]) -> tuple[UUID, Claimed, Worker]:
    """The tool said 202 to a worker that is gone; the call is looked at by another."""
    doomed, survivor = await world.worker("doomed"), await world.worker("survivor")
    workflow_id = await world.submit(definition)
    [call_id] = await world.due_calls()
    claimed = await doomed.claim(call_id)
    await world.lose(doomed, proof=True)
    await world.sweep(survivor)
    return workflow_id, claimed, survivor


async def test_result_counts_when_the_worker_died_between_the_acceptance_and_its_record(ledger: World) -> None:
    workflow_id, claimed, survivor = await lost_before_the_record(ledger, slow("at_most_once"))
    token = await result_tokens.make(survivor.services, call_id=claimed.call_id, attempt_id=claimed.attempt_id)

    between = await state(ledger, workflow_id)
    await accept_result.accept(ledger.api, claimed.call_id, token=token, succeeded=True, result={"id": 1}, message=None)

    assert (between, await state(ledger, workflow_id)) == ("in_doubt", "succeeded")


@pytest.mark.parametrize(
    ("definition", "parked"), [(slow("at_most_once"), "in_doubt"), (checked(), "probing")], ids=["doubt", "probing"]
)
async def test_late_acceptance_prolongs_the_quarantine_by_the_time_the_tool_may_take(
    ledger: World, definition: dict[str, Any], parked: str
) -> None:
    workflow_id, claimed, survivor = await lost_before_the_record(ledger, definition)

    await record.record(survivor.services, claimed, accepted())

    call = await ledger.call(workflow_id, "s")
    assert call["state"] == parked
    assert (call["not_before"] - call["doubt_since"]).total_seconds() >= 610


# --- drains and pauses ---------------------------------------------------------------------------------------------


async def test_cancelled_workflow_waits_for_the_result_and_counts_it(ledger: World) -> None:
    workflow_id, _ = await waiting(ledger, slow("at_most_once"))

    await cancel.cancel(ledger.api, ids.DEFAULT_TENANT, workflow_id, reason=None, by="kim")
    between = (await ledger.workflow(workflow_id))["status"]
    await report(ledger, workflow_id, result={"id": 1})

    workflow = await ledger.workflow(workflow_id)
    assert (between, workflow["status"], workflow["effects_done"]) == ("cancelling", "cancelled", 1)


async def test_reported_failure_ends_a_cancelled_workflow(ledger: World) -> None:
    workflow_id, _ = await waiting(ledger, slow("at_most_once"))
    await cancel.cancel(ledger.api, ids.DEFAULT_TENANT, workflow_id, reason=None, by="kim")

    await report(ledger, workflow_id, succeeded=False)

    workflow = await ledger.workflow(workflow_id)
    assert (workflow["status"], workflow["effects_done"]) == ("cancelled", 0)
    assert await state(ledger, workflow_id) == "cancelled"


async def test_cancelled_workflow_ends_in_doubt_when_no_result_comes(ledger: World) -> None:
    workflow_id, worker = await waiting(ledger, slow("at_most_once"))
    await cancel.cancel(ledger.api, ids.DEFAULT_TENANT, workflow_id, reason=None, by="kim")

    await ledger.ripen(worker, "result")

    workflow = await ledger.workflow(workflow_id)
    assert (workflow["status"], workflow["doubts"]) == ("cancelling", 1)


async def test_result_is_taken_while_the_workflow_is_paused(ledger: World) -> None:
    definition = slow("at_most_once")
    definition["steps"]["t"] = {"needs": ["s"], "tool": "do", "with": {"n": 2}}
    workflow_id, _ = await waiting(ledger, definition)

    await pause.pause(ledger.api, ids.DEFAULT_TENANT, workflow_id, reason=None, by="kim")
    await report(ledger, workflow_id, result={"id": 1})

    assert (await ledger.step(workflow_id, "s"))["state"] == "succeeded"
    assert (await ledger.call(workflow_id, "t"))["held_reason"] == "pause"


# --- evidence without its decision ---------------------------------------------------------------------------------


async def kept(world: World, definition: dict[str, Any]) -> tuple[UUID, Worker]:
    """The acceptance was stored, but what follows from it could not be decided."""
    worker = await world.worker()
    workflow_id = await world.submit(definition)
    [call_id] = await world.due_calls()

    async def not_decided(outcome: Any) -> Any:
        claimed = await world.row("SELECT attempt_id FROM calls WHERE id = %s", call_id)
        fact = CallSettled(call_id=call_id, attempt_id=claimed["attempt_id"], step="s", outcome=outcome)
        await record.keep_evidence(worker.services, workflow_id, [fact])
        return outcome

    world.tools.script["do"] = [lambda _: not_decided(accepted())]
    await worker.run(call_id)
    return workflow_id, worker


@pytest.mark.parametrize("definition", [slow("at_most_once"), checked()], ids=["plain", "probed"])
async def test_acceptance_that_was_kept_without_a_decision_still_takes_its_result(
    ledger: World, definition: dict[str, Any]
) -> None:
    workflow_id, worker = await kept(ledger, definition)

    await check_laws(ledger)
    await ledger.sweep(worker)
    between = await state(ledger, workflow_id)
    await report(ledger, workflow_id, result={"id": 1})

    assert between == "intended"
    assert await state(ledger, workflow_id) == "succeeded"


@pytest.mark.parametrize(
    ("definition", "parked"), [(slow("at_most_once"), "in_doubt"), (checked(), "probing")], ids=["plain", "probed"]
)
async def test_acceptance_that_was_kept_without_a_decision_is_decided_when_its_result_is_overdue(
    ledger: World, definition: dict[str, Any], parked: str
) -> None:
    workflow_id, worker = await kept(ledger, definition)

    await ledger.ripen(worker, "result")

    assert await state(ledger, workflow_id) == parked
    assert await ledger.rows("SELECT * FROM dues WHERE kind = 'apply'") == []


async def test_unknown_answer_after_an_acceptance_that_was_lost_is_decided_by_class(ledger: World) -> None:
    """The first request's 202 never came back; the second is accepted and reported."""
    ledger.tools.script["do"] = [unknown(), accepted()]
    worker = await ledger.worker()
    workflow_id = await ledger.submit(slow("keyed"))
    await ledger.run(worker)

    await report(ledger, workflow_id, n=2, result={"id": 1})

    workflow = await ledger.workflow(workflow_id)
    assert (workflow["status"], workflow["duplicates_prevented"]) == ("succeeded", 1)
    assert len({request.key for request in ledger.tools.ledger}) == 1
