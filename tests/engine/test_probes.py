"""Probes: found is believed at once, absent only after the quarantine, unclear until a person is asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.domain.probing import MOST_REPEATS
from tests.engine.ledger_laws import check_laws
from tests.engine.probing import ABSENT, FAR, THERE, lost_effect, next_probe, pause_of, probing, state
from tests.engine.world import Answer, World, ok, probed, refused, unknown


@pytest.fixture
async def ledger(small_world: World) -> AsyncIterator[World]:
    yield small_world
    await check_laws(small_world)


# --- found, absent, unclear ----------------------------------------------------------------------------------------


async def test_probe_is_due_at_once_when_the_outcome_is_unknown(ledger: World) -> None:
    workflow_id, _ = await probing(ledger)

    call, probe = await ledger.call(workflow_id, "s"), await next_probe(ledger)
    workflow = await ledger.workflow(workflow_id)
    assert (call["state"], call["probe_id"], probe["target"]) == ("probing", probe["id"], call["id"])
    assert (call["not_before"] - call["doubt_since"]).total_seconds() == pytest.approx(600, abs=0.01)
    assert (workflow["status"], workflow["doubts"], workflow["attention"]) == ("running", 0, [])
    assert await pause_of(ledger) == 0


async def test_probe_asks_with_the_arguments_of_the_call_it_is_about(ledger: World) -> None:
    definition = probed(probe={"with": {"n": "${{ arguments.n }}", "who": "${{ input.who }}"}})
    ledger.tools.script |= {"do": [unknown()], "look": [THERE]}
    worker = await ledger.worker()
    await ledger.submit(definition, input={"who": "kim"})
    await ledger.run(worker)

    assert [request.arguments for request in ledger.tools.sent("look")] == [{"n": 1, "who": "kim"}]


async def test_found_effect_succeeds_at_once_with_what_the_probe_found(ledger: World) -> None:
    workflow_id, worker = await probing(ledger, THERE)

    await ledger.run(worker)

    call, workflow = await ledger.call(workflow_id, "s"), await ledger.workflow(workflow_id)
    assert (call["state"], call["resolved"]["outcome"], call["resolved"]["by"]) == ("succeeded", "happened", "probe")
    assert (workflow["status"], workflow["effects_done"]) == ("succeeded", 1)
    assert (await ledger.step(workflow_id, "s"))["output"] == THERE
    assert len(ledger.tools.sent("do")) == 1
    assert "effect.probed" in await ledger.events(workflow_id)


async def test_result_of_a_found_effect_is_made_as_the_probe_declares(ledger: World) -> None:
    definition = probed(probe={"result": {"id": "${{ output.id }}", "n": "${{ arguments.n }}"}})
    workflow_id, worker = await probing(ledger, THERE, definition=definition)

    await ledger.run(worker)

    assert (await ledger.step(workflow_id, "s"))["output"] == {"id": 7, "n": 1}


async def test_absent_effect_is_asked_about_again_with_growing_pauses_until_the_quarantine_is_over(
    ledger: World,
) -> None:
    workflow_id, worker = await probing(ledger, *[ABSENT] * 8)

    pauses = []
    for _ in range(8):
        await ledger.once(worker)
        pauses.append(await pause_of(ledger))

    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert await state(ledger, workflow_id) == "probing"
    assert len(ledger.tools.sent("do")) == 1


async def test_last_probe_before_the_end_of_the_quarantine_is_asked_exactly_then(ledger: World) -> None:
    workflow_id, worker = await probing(ledger, *[ABSENT] * 6, definition=probed(settle_time="20s"))

    for _ in range(6):
        await ledger.once(worker)

    due = await ledger.row("SELECT due_at FROM dues WHERE kind = 'call'")
    assert due["due_at"] == (await ledger.call(workflow_id, "s"))["not_before"]


async def test_absent_effect_is_repeated_exactly_once_after_the_quarantine(ledger: World) -> None:
    workflow_id, worker = await probing(ledger, ABSENT, ABSENT)

    await ledger.once(worker)
    before = len(ledger.tools.sent("do"))
    await ledger.end_quarantines()
    await ledger.run(worker)

    call = await ledger.call(workflow_id, "s")
    assert (before, len(ledger.tools.sent("do"))) == (1, 2)
    assert (call["state"], call["attempts"], call["generation"]) == ("succeeded", 2, 1)
    assert (await ledger.workflow(workflow_id))["status"] == "succeeded"


async def test_absence_that_was_seen_before_the_end_of_the_quarantine_is_not_believed_after_it(ledger: World) -> None:
    """A slow probe: the request may have arrived between its look and its answer."""
    workflow_id, worker = await probing(ledger)

    async def quarantine_ends_meanwhile() -> Answer:
        await ledger.end_quarantines()
        return ok(ABSENT)

    ledger.tools.script["look"] = [lambda _: quarantine_ends_meanwhile(), THERE]
    await ledger.once(worker)
    between = await state(ledger, workflow_id)
    await ledger.run(worker)

    assert between == "probing"
    assert len(ledger.tools.sent("do")) == 1
    assert (await ledger.step(workflow_id, "s"))["output"] == THERE


async def test_pauses_grow_anew_when_the_repeat_is_unknown_too(ledger: World) -> None:
    workflow_id, worker = await probing(ledger, *[ABSENT] * 6)
    for _ in range(4):
        await ledger.once(worker)

    await ledger.end_quarantines()
    ledger.tools.script["do"] = [unknown()]
    await ledger.once(worker)  # absent: to be repeated
    await ledger.once(worker)  # repeated: unknown
    await ledger.once(worker)  # absent

    assert await pause_of(ledger) == 1
    assert (await ledger.call(workflow_id, "s"))["attempts"] == 2


async def test_person_is_asked_when_repeat_after_repeat_came_to_nothing(ledger: World) -> None:
    ledger.tools.script |= {"do": [unknown()] * 9, "look": [ABSENT] * 9}
    worker = await ledger.worker()
    workflow_id = await ledger.submit(probed(settle_time="1ms"))

    await ledger.run(worker)

    call = await ledger.call(workflow_id, "s")
    assert (call["state"], len(ledger.tools.sent("do"))) == ("in_doubt", MOST_REPEATS + 1)
    assert "6 times in a row" in call["failure"]["message"]


UNCLEAR = {
    "the probe fails": (refused(404), {}, "404"),
    "found is no yes or no": ({"found": "perhaps"}, {}, "not true or false"),
    "found cannot be read": ({}, {}, "could not be read"),
    "the result cannot be made": ({"found": True}, {"result": {"id": "${{ output.id }}"}}, "could not be read"),
}


@pytest.mark.parametrize(("answer", "probe", "reason"), UNCLEAR.values(), ids=UNCLEAR.keys())
async def test_unclear_probe_is_asked_again_and_then_a_person_with_the_quarantine_as_it_was(
    ledger: World, answer: Answer, probe: dict[str, Any], reason: str
) -> None:
    definition = probed(probe={**probe, "deadline": "1m"}, settle_time=FAR)
    workflow_id, worker = await probing(ledger, *[answer] * 3, definition=definition)

    await ledger.once(worker)
    await ledger.once(worker)
    between = await state(ledger, workflow_id)
    await ledger.rows("UPDATE calls SET not_before = clock_timestamp() - interval '61 s' WHERE not_before IS NOT NULL")
    quarantine = (await ledger.call(workflow_id, "s"))["not_before"]
    await ledger.once(worker)

    call, workflow = await ledger.call(workflow_id, "s"), await ledger.workflow(workflow_id)
    assert (between, call["state"], call["not_before"]) == ("probing", "in_doubt", quarantine)
    assert reason in call["failure"]["message"]
    assert (workflow["status"], workflow["attention"]) == ("waiting", ["outcome_unknown"])
    assert len(ledger.tools.sent("do")) == 1


async def test_probe_whose_question_cannot_be_put_leaves_the_effect_in_doubt_with_its_quarantine(ledger: World) -> None:
    definition = probed(probe={"with": {"n": "${{ arguments.missing.name }}"}}, settle_time=FAR)
    workflow_id, _ = await probing(ledger, definition=definition)

    call = await ledger.call(workflow_id, "s")
    assert call["state"] == "in_doubt"
    assert "arguments could not be made" in call["failure"]["message"]
    assert (call["not_before"] - call["doubt_since"]).total_seconds() == pytest.approx(600, abs=0.01)
    assert ledger.tools.sent("look") == []


async def test_probe_whose_reply_is_lost_is_asked_again_as_the_same_call(ledger: World) -> None:
    workflow_id, worker = await probing(ledger, unknown(), THERE)

    await ledger.run(worker)

    assert len(ledger.tools.sent("look")) == 2
    assert await state(ledger, workflow_id) == "succeeded"


# --- lost workers --------------------------------------------------------------------------------------------------


async def test_probe_runs_again_when_its_worker_is_lost(ledger: World) -> None:
    workflow_id, survivor = await probing(ledger, THERE)
    doomed = await ledger.worker("doomed")

    await doomed.claim((await next_probe(ledger))["id"])
    await ledger.lose(doomed)
    await ledger.sweep(survivor)
    await ledger.run(survivor)

    assert await state(ledger, workflow_id) == "succeeded"
    assert len(ledger.tools.sent("look")) == 1


async def test_probe_that_loses_worker_after_worker_is_unclear_and_never_held(ledger: World) -> None:
    workflow_id, survivor = await probing(ledger, THERE)
    poison = (await next_probe(ledger))["id"]

    for n in range(ledger.settings.poison_after):
        doomed = await ledger.worker(f"doomed.{n}")
        await doomed.claim(poison)
        await ledger.lose(doomed)
        await ledger.sweep(survivor)
    between = await next_probe(ledger)
    await ledger.run(survivor)

    assert between["id"] != poison
    assert (await ledger.row("SELECT state FROM calls WHERE id = %s", poison))["state"] == "failed"
    assert (await ledger.workflow(workflow_id))["status"] == "succeeded"


async def test_effect_is_probed_only_when_its_lost_sender_is_silent(ledger: World) -> None:
    workflow_id, _, survivor = await lost_effect(ledger)

    before = await state(ledger, workflow_id)
    await ledger.silence()
    await ledger.sweep(survivor)

    assert before == "intended"
    assert await state(ledger, workflow_id) == "probing"


async def test_effect_is_probed_at_once_when_the_death_of_its_sender_was_witnessed(ledger: World) -> None:
    workflow_id, _, _ = await lost_effect(ledger, proof=True)

    call = await ledger.call(workflow_id, "s")
    reaped = await ledger.row("SELECT reaped_at FROM workers WHERE name = 'doomed'")
    assert call["state"] == "probing"
    assert (call["not_before"] - reaped["reaped_at"]).total_seconds() == pytest.approx(600, abs=0.01)
