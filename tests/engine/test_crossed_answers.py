"""What a review found: a second wait that was ended by the first, a guard that stood in a reopening's way, events that
told what did not come to be."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.domain.facts import CallSettled
from app.engine import record
from tests.engine.awaiting import report, slow, state, waiting
from tests.engine.ledger_laws import check_laws
from tests.engine.operations import cancelled, paused, retried
from tests.engine.world import World, accepted, ok, refused, says, settle, tool, unknown, uses


@pytest.fixture
async def ledger(small_world: World) -> AsyncIterator[World]:
    yield small_world
    await check_laws(small_world)


async def test_late_report_about_the_first_request_leaves_the_wait_for_the_second(ledger: World) -> None:
    workflow_id, worker = await waiting(ledger, slow("keyed"), accepted())
    await ledger.ripen(worker, "result")
    await ledger.once(worker)

    await report(ledger, workflow_id, succeeded=False)
    between = [row["kind"] for row in await ledger.rows("SELECT kind FROM dues WHERE kind IN ('result', 'attempt')")]
    await ledger.ripen(worker, "result")

    assert (between, len(ledger.tools.ledger)) == (["result"], 2)
    assert await state(ledger, workflow_id) == "due"


async def test_acceptance_that_comes_while_the_call_is_repeated_counts_for_a_later_quarantine(ledger: World) -> None:
    definition = slow("keyed")
    definition["steps"]["s"]["retry"] = {"timeout": {"max_retries": 0}}
    doomed, survivor = await ledger.worker("doomed"), await ledger.worker("survivor")
    workflow_id = await ledger.submit(definition)
    [call_id] = await ledger.due_calls()
    first = await doomed.claim(call_id)
    await ledger.lose(doomed)
    await ledger.sweep(survivor)
    second = await survivor.claim(call_id)

    await record.record(survivor.services, first, accepted())
    await record.record(survivor.services, second, unknown())

    call = await ledger.call(workflow_id, "s")
    assert call["state"] == "in_doubt"
    assert (call["not_before"] - call["doubt_since"]).total_seconds() == pytest.approx(610, abs=60)


async def test_reopened_wish_that_was_done_meanwhile_is_answered_from_the_record(ledger: World) -> None:
    definition: dict[str, Any] = {
        "name": "agent",
        "tools": {"do": tool("at_most_once", on_repeat="return_recorded")},
        "steps": {"a": {"agent": {"model": "fast", "tools": ["do"]}, "prompt": "Go."}},
    }
    worker = await ledger.worker()
    workflow_id = await ledger.submit(definition)
    ledger.model.answers = [uses(("do", {"n": 1}), ("do", {"n": 1})), says("done")]
    await worker.run((await ledger.call(workflow_id, "a"))["id"])

    async def meanwhile() -> Any:
        await cancelled(ledger, workflow_id)
        return {"id": 7}

    ledger.tools.script["do"] = [lambda _: meanwhile()]
    await worker.run((await ledger.call(workflow_id, "a", 2))["id"])
    await retried(ledger, workflow_id)
    await ledger.run(worker)

    assert (await ledger.workflow(workflow_id))["status"] == "succeeded"
    assert len(ledger.tools.ledger) == 1
    assert (await ledger.call(workflow_id, "a", 4))["result"] == {"id": 7}


async def told_state(world: World, call_id: Any) -> str:
    [last] = await world.rows(
        "SELECT to_state FROM events WHERE call_id = %s AND to_state IS NOT NULL ORDER BY seq DESC LIMIT 1", call_id
    )
    return str(last["to_state"])


async def test_late_refusal_of_a_doubt_is_told_as_the_end_it_is(ledger: World) -> None:
    worker, survivor = await ledger.worker("doomed"), await ledger.worker("survivor")
    workflow_id = await ledger.submit(slow("at_most_once"))
    [call_id] = await ledger.due_calls()
    claimed = await worker.claim(call_id)
    await ledger.lose(worker)
    await ledger.silence()
    await ledger.sweep(survivor)
    before = await state(ledger, workflow_id)

    await record.record(survivor.services, claimed, refused(422))

    assert (before, await state(ledger, workflow_id)) == ("in_doubt", "failed")
    assert await told_state(ledger, call_id) == "failed"


async def test_word_that_it_did_not_happen_is_told_as_held_while_the_workflow_is_paused(ledger: World) -> None:
    ledger.tools.script["do"] = [unknown()]
    worker = await ledger.worker()
    workflow_id = await ledger.submit(slow("at_most_once"))
    await ledger.once(worker)
    await paused(ledger, workflow_id)
    await ledger.end_quarantines()

    await settle(ledger, workflow_id, "did_not_happen")

    call = await ledger.call(workflow_id, "s")
    assert (call["state"], call["held_reason"]) == ("held", "pause")
    assert await told_state(ledger, call["id"]) == "held"


async def test_report_of_a_tool_whose_acceptance_was_lost_settles_the_doubt(ledger: World) -> None:
    ledger.tools.script["do"] = [unknown()]
    worker = await ledger.worker()
    workflow_id = await ledger.submit(slow("at_most_once"))
    await ledger.once(worker)
    before = await state(ledger, workflow_id)

    await report(ledger, workflow_id, result={"id": 1})
    events = await ledger.events(workflow_id)
    await report(ledger, workflow_id, result={"id": 1})

    workflow = await ledger.workflow(workflow_id)
    assert (before, workflow["status"], workflow["effects_done"]) == ("in_doubt", "succeeded", 1)
    assert (await ledger.step(workflow_id, "s"))["output"] == {"id": 1}
    assert await ledger.events(workflow_id) == events


async def test_report_against_a_persons_word_is_never_silent(ledger: World) -> None:
    ledger.tools.script["do"] = [unknown()]
    worker = await ledger.worker()
    workflow_id = await ledger.submit(slow("at_most_once"))
    await ledger.once(worker)
    await settle(ledger, workflow_id, "abandon")

    await report(ledger, workflow_id, result={"id": 1})
    await report(ledger, workflow_id, result={"id": 1})

    assert (await ledger.events(workflow_id)).count("effect.contradicted") == 1
    assert await state(ledger, workflow_id) == "abandoned"


async def test_timeout_that_nothing_can_keep_is_no_hot_loop(ledger: World) -> None:
    definition = slow("at_most_once")
    definition["tools"]["do"]["timeout"] = "1ms"
    worker = await ledger.worker()
    workflow_id = await ledger.submit(definition)
    await ledger.once(worker)

    due = await ledger.row(
        "SELECT due_at - updated_at AS pause FROM dues d JOIN workflows w ON w.id = d.workflow_id WHERE d.kind = 'call'"
    )
    assert (await state(ledger, workflow_id), ledger.tools.ledger) == ("due", [])
    assert due["pause"].total_seconds() == pytest.approx(1)


async def test_success_that_was_kept_without_a_decision_ends_the_doubt_about_a_later_request(ledger: World) -> None:
    definition = slow("keyed")
    definition["steps"]["s"]["retry"] = {"timeout": {"max_retries": 0}}
    doomed, survivor = await ledger.worker("doomed"), await ledger.worker("survivor")
    workflow_id = await ledger.submit(definition)
    [call_id] = await ledger.due_calls()
    first = await doomed.claim(call_id)
    await ledger.lose(doomed)
    await ledger.sweep(survivor)
    second = await survivor.claim(call_id)
    fact = CallSettled(call_id=call_id, attempt_id=first.attempt_id, step="s", outcome=ok({"id": 1}))

    await record.keep_evidence(survivor.services, workflow_id, [fact])
    await record.record(survivor.services, second, unknown())
    before = await state(ledger, workflow_id)
    await ledger.ripen(survivor, "apply")

    assert (before, await state(ledger, workflow_id)) == ("in_doubt", "succeeded")
    assert (await ledger.step(workflow_id, "s"))["output"] == {"id": 1}
