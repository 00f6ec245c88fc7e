"""What a definition says about unknown outcomes and odd answers: tightened, taken at its word, never loosened."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from app.domain import certainty, ids
from app.domain.observations import Observation
from app.domain.outcomes import Outcome
from app.domain.states import EffectClass
from app.engine import cancel, record
from app.ports.world import ToolRequest
from tests.engine.ledger_laws import check_laws
from tests.engine.world import Worker, World, not_sent, ok, one, probed, refused, settle, unknown


@pytest.fixture
async def ledger(small_world: World) -> AsyncIterator[World]:
    yield small_world
    await check_laws(small_world)


def answering(status: int) -> Any:
    """A tool that answers with this status, judged as the HTTP port judges it."""

    def answer(request: ToolRequest) -> Outcome:
        verdict = certainty.judge(
            Observation.ANSWERED,
            status=status,
            effect=EffectClass(request.tool.effect),
            tool=request.tool.name,
            declared=certainty.declarations(request.tool),
        )
        return Outcome(certainty=verdict.outcome, failure=verdict.failure, status_code=status, sent_after=0.001)

    return answer


def with_step(definition: dict[str, Any], **step: Any) -> dict[str, Any]:
    definition["steps"]["s"] |= step
    return definition


def of_class(effect: str, **step: Any) -> dict[str, Any]:
    return with_step(probed(effect) if effect == "checkable" else one(effect), **step)


async def run(world: World, definition: dict[str, Any], *answers: Any) -> tuple[UUID, Worker]:
    world.tools.script["do"] = list(answers)
    worker = await world.worker()
    workflow_id = await world.submit(definition)
    await world.run(worker)
    return workflow_id, worker


# --- on_unknown_outcome --------------------------------------------------------------------------------------------

EFFECTS = ["idempotent", "keyed", "checkable", "at_most_once"]


@pytest.mark.parametrize("effect", EFFECTS)
async def test_person_is_asked_whatever_the_class_allows_when_the_step_says_ask(ledger: World, effect: str) -> None:
    workflow_id, _ = await run(ledger, of_class(effect, on_unknown_outcome="ask"), unknown())

    assert (await ledger.call(workflow_id, "s"))["state"] == "in_doubt"
    assert len(ledger.tools.ledger) == 1


@pytest.mark.parametrize("effect", ["keyed", "checkable"])
async def test_probe_is_asked_before_any_repeat_when_the_step_says_probe(ledger: World, effect: str) -> None:
    ledger.tools.script["look"] = [{"found": True, "id": 7}]

    workflow_id, _ = await run(ledger, with_step(probed(effect), on_unknown_outcome="probe"), unknown())

    assert (await ledger.step(workflow_id, "s"))["output"] == {"found": True, "id": 7}
    assert len(ledger.tools.sent("do")) == 1


@pytest.mark.parametrize("effect", EFFECTS)
async def test_effect_is_given_up_and_counted_when_the_step_says_abandon(ledger: World, effect: str) -> None:
    workflow_id, _ = await run(ledger, of_class(effect, on_unknown_outcome="abandon"), unknown())

    call, workflow = await ledger.call(workflow_id, "s"), await ledger.workflow(workflow_id)
    assert (call["state"], call["resolved"]["outcome"]) == ("abandoned", "abandon")
    assert (workflow["status"], workflow["failure"]["kind"]) == ("failed", "unknown_outcome")
    assert (workflow["effects_abandoned"], workflow["effects_done"], workflow["doubts"]) == (1, 0, 0)
    assert len(ledger.tools.ledger) == 1


async def test_workflow_goes_on_without_an_effect_it_gave_up_when_the_step_may_fail(ledger: World) -> None:
    definition = of_class("at_most_once", on_unknown_outcome="abandon", on_error="continue")
    definition["steps"]["later"] = {"needs": ["s"], "set": {"x": 1}}

    workflow_id, _ = await run(ledger, definition, unknown())

    workflow = await ledger.workflow(workflow_id)
    assert (workflow["status"], workflow["effects_abandoned"]) == ("succeeded", 1)


async def test_answer_that_comes_after_an_effect_was_given_up_is_a_contradiction(ledger: World) -> None:
    doomed, survivor = await ledger.worker("doomed"), await ledger.worker("survivor")
    workflow_id = await ledger.submit(of_class("at_most_once", on_unknown_outcome="abandon"))
    [call_id] = await ledger.due_calls()
    lost = await doomed.claim(call_id)
    await ledger.lose(doomed, proof=True)
    await ledger.sweep(survivor)

    between = await ledger.workflow(workflow_id)
    await record.record(survivor.services, lost, ok({"id": 1}))

    workflow = await ledger.workflow(workflow_id)
    assert (between["status"], between["attention"]) == ("failed", [])
    assert (workflow["attention"], workflow["effects_abandoned"]) == (["contradicted"], 1)
    assert (await ledger.call(workflow_id, "s"))["state"] == "abandoned"


async def test_effect_in_flight_is_given_up_in_a_drain_as_its_step_declares(ledger: World) -> None:
    worker = await ledger.worker()
    workflow_id = await ledger.submit(of_class("idempotent", on_unknown_outcome="abandon"))
    [call_id] = await ledger.due_calls()
    claimed = await worker.claim(call_id)
    await cancel.cancel(ledger.api, ids.DEFAULT_TENANT, workflow_id, reason=None, by="kim")

    await record.record(worker.services, claimed, unknown())

    workflow = await ledger.workflow(workflow_id)
    assert (workflow["status"], workflow["effects_abandoned"], workflow["compensation"]) == ("cancelled", 1, "skipped")


@pytest.mark.parametrize(("wish", "state"), [("ask", "in_doubt"), ("abandon", "abandoned")])
async def test_repeatable_call_is_not_given_up_before_its_lost_sender_is_silent_when_it_is_not_repeated(
    ledger: World, wish: str, state: str
) -> None:
    doomed, survivor = await ledger.worker("doomed"), await ledger.worker("survivor")
    workflow_id = await ledger.submit(of_class("idempotent", on_unknown_outcome=wish))
    [call_id] = await ledger.due_calls()
    await doomed.claim(call_id)
    await ledger.lose(doomed)
    await ledger.sweep(survivor)

    before = (await ledger.call(workflow_id, "s"))["state"]
    await ledger.silence()
    await ledger.sweep(survivor)

    assert (before, (await ledger.call(workflow_id, "s"))["state"]) == ("intended", state)


@pytest.mark.parametrize("wish", ["ask", "abandon"])
async def test_call_of_which_nothing_was_sent_is_made_again_whatever_the_step_says(ledger: World, wish: str) -> None:
    workflow_id, _ = await run(ledger, of_class("at_most_once", on_unknown_outcome=wish), not_sent(), {"id": 1})

    assert (await ledger.workflow(workflow_id))["status"] == "succeeded"


# --- on_5xx, on_3xx, on_408 ----------------------------------------------------------------------------------------

ODD = [("on_5xx", 503), ("on_3xx", 302), ("on_408", 408)]


@pytest.mark.parametrize(("declared", "status"), ODD)
@pytest.mark.parametrize("effect", EFFECTS)
async def test_answer_declared_as_not_executed_is_repeated_with_the_same_key(
    ledger: World, effect: str, declared: str, status: int
) -> None:
    definition = of_class(effect)
    definition["tools"]["do"][declared] = "not_executed"
    definition["steps"]["s"]["retry"] = {"tool_error": {"max_retries": 1}}

    workflow_id, _ = await run(ledger, definition, answering(status), {"id": 1})

    first, second = ledger.tools.sent("do")
    call = await ledger.call(workflow_id, "s")
    assert (first.key, first.arguments) == (second.key, second.arguments)
    assert (call["state"], call["generation"], call["attempts"]) == ("succeeded", 1, 2)
    assert ledger.tools.sent("look") == []


@pytest.mark.parametrize(("declared", "status"), ODD)
async def test_same_answer_without_the_declaration_is_a_doubt(ledger: World, declared: str, status: int) -> None:
    workflow_id, _ = await run(ledger, of_class("at_most_once"), answering(status))

    assert (await ledger.call(workflow_id, "s"))["state"] == "in_doubt"
    assert len(ledger.tools.ledger) == 1


async def test_call_that_is_never_executed_fails_for_certain_when_its_retries_are_used(ledger: World) -> None:
    definition = one("at_most_once", on_5xx="not_executed")

    workflow_id, _ = await run(ledger, definition, *[answering(503)] * 10)

    workflow = await ledger.workflow(workflow_id)
    assert (workflow["status"], workflow["failure"]["kind"], workflow["doubts"]) == ("failed", "server_error", 0)
    assert len(ledger.tools.ledger) == 6


async def test_not_executed_says_nothing_about_an_attempt_that_is_unknown(ledger: World) -> None:
    definition = one("keyed", on_5xx="not_executed")

    workflow_id, _ = await run(ledger, definition, unknown(), *[answering(503)] * 10)

    call = await ledger.call(workflow_id, "s")
    assert (call["state"], call["generation"]) == ("in_doubt", 1)
    assert len({request.key for request in ledger.tools.ledger}) == 1


async def test_conflict_of_a_keyed_call_means_that_the_tool_is_still_at_it_and_the_same_key_goes_again(
    ledger: World,
) -> None:
    workflow_id, _ = await run(ledger, one("keyed"), answering(409), {"id": 1})

    first, second = ledger.tools.ledger
    assert first.key == second.key
    assert (await ledger.call(workflow_id, "s"))["state"] == "succeeded"


# --- on_repeat_status ----------------------------------------------------------------------------------------------

GONE = {"on_repeat_status": {"404": "succeeded", "410": "failed"}}


@pytest.mark.parametrize("effect", ["idempotent", "keyed"])
async def test_repeat_that_finds_nothing_left_to_do_means_that_the_first_attempt_did_it(
    ledger: World, effect: str
) -> None:
    workflow_id, _ = await run(ledger, one(effect, **GONE), unknown(), answering(404))

    call, workflow = await ledger.call(workflow_id, "s"), await ledger.workflow(workflow_id)
    assert (call["state"], workflow["status"], workflow["effects_done"]) == ("succeeded", "succeeded", 1)


async def test_same_status_on_a_first_attempt_is_a_failure(ledger: World) -> None:
    workflow_id, _ = await run(ledger, one("idempotent", **GONE), answering(404))

    workflow = await ledger.workflow(workflow_id)
    assert (workflow["status"], workflow["failure"]["kind"], workflow["effects_done"]) == ("failed", "tool_error", 0)


async def test_same_status_after_attempts_that_certainly_did_nothing_is_a_failure(ledger: World) -> None:
    definition = one("idempotent", on_5xx="not_executed", **GONE)

    workflow_id, _ = await run(ledger, definition, not_sent(), answering(503), answering(404))

    assert (await ledger.workflow(workflow_id))["failure"]["kind"] == "tool_error"


async def test_repeat_after_the_probe_said_absent_is_a_first_attempt(ledger: World) -> None:
    ledger.tools.script |= {"do": [unknown(), answering(404)], "look": [{"found": False}]}
    worker = await ledger.worker()
    workflow_id = await ledger.submit(probed(**GONE))

    await ledger.once(worker)
    await ledger.end_quarantines()
    await ledger.run(worker)

    assert len(ledger.tools.sent("do")) == 2
    assert (await ledger.call(workflow_id, "s"))["state"] == "failed"


async def test_repeat_status_declared_as_failed_ends_the_call_for_certain(ledger: World) -> None:
    workflow_id, _ = await run(ledger, one("idempotent", **GONE), unknown(), answering(410))

    call, workflow = await ledger.call(workflow_id, "s"), await ledger.workflow(workflow_id)
    assert (call["state"], workflow["failure"]["kind"], workflow["doubts"]) == ("failed", "tool_error", 0)
    assert call["resolved"]["by"] == "on_repeat_status: 410"


async def test_repeat_status_that_is_not_declared_is_a_doubt(ledger: World) -> None:
    workflow_id, _ = await run(ledger, one("idempotent", **GONE), unknown(), answering(422))

    assert (await ledger.call(workflow_id, "s"))["state"] == "in_doubt"


async def test_success_after_the_declaration_said_failed_is_a_contradiction(ledger: World) -> None:
    doomed, survivor = await ledger.worker("doomed"), await ledger.worker("survivor")
    workflow_id = await ledger.submit(one("idempotent", **GONE))
    [call_id] = await ledger.due_calls()
    lost = await doomed.claim(call_id)
    await ledger.lose(doomed)
    await ledger.sweep(survivor)
    ledger.tools.script["do"] = [answering(410)]
    await ledger.run(survivor)

    await record.record(survivor.services, lost, ok({"id": 1}))

    workflow = await ledger.workflow(workflow_id)
    assert (workflow["status"], workflow["attention"]) == ("failed", ["contradicted"])


# --- generations ---------------------------------------------------------------------------------------------------


async def test_generation_goes_up_after_a_definite_failure_and_stays_after_an_unknown_outcome(ledger: World) -> None:
    definition = with_step(one("keyed"), retry={"tool_error": {"max_retries": 2}})

    workflow_id, _ = await run(ledger, definition, refused(422), unknown(), {"id": 1})

    first, second, third = [request.key for request in ledger.tools.ledger]
    assert (first != second, second == third) == (True, True)
    assert (await ledger.call(workflow_id, "s"))["generation"] == 2


async def test_definite_failure_after_an_unknown_attempt_is_never_believed(ledger: World) -> None:
    definition = with_step(one("keyed"), retry={"tool_error": {"max_retries": 5}})

    workflow_id, _ = await run(ledger, definition, unknown(), refused(422), {"id": 1})

    call = await ledger.call(workflow_id, "s")
    assert (call["state"], call["generation"], len(ledger.tools.ledger)) == ("in_doubt", 1, 2)


async def test_word_that_nothing_happened_keeps_the_generation(ledger: World) -> None:
    definition = with_step(one("keyed"), on_unknown_outcome="ask")
    workflow_id, worker = await run(ledger, definition, unknown(), {"id": 1})
    await ledger.end_quarantines()

    await settle(ledger, workflow_id, "did_not_happen")
    await ledger.run(worker)

    assert len({request.key for request in ledger.tools.ledger}) == 1
    assert (await ledger.call(workflow_id, "s"))["generation"] == 1
