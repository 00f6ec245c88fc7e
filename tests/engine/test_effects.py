"""Effect classes: what follows from an unknown outcome, a refusal, a lost worker, a person's word, a late answer."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from app.domain import ids
from app.engine import resolve
from app.errors import AlreadyResolved, NotInDoubt, QuarantineActive
from tests.engine.world import Answer, World, not_sent, ok, rate_limited, refused, tool, unknown


def one(effect: str, *, key: str | None = None, **more: Any) -> dict[str, Any]:
    step: dict[str, Any] = {"tool": "do", "with": {"n": 1}}
    if key is not None:
        step["idempotency_key"] = key
    return {"name": "one", "tools": {"do": tool(effect, **more)}, "steps": {"s": step}}


async def settle(world: World, workflow_id: UUID, outcome: str, **more: Any) -> None:
    call = await world.call(workflow_id, "s")
    await resolve.resolve(
        world.api,
        ids.DEFAULT_TENANT,
        call["id"],
        outcome=outcome,
        result=more.get("result"),
        note="looked",
        by="kim",
    )


@pytest.mark.parametrize("effect", ["read_only", "idempotent", "keyed"])
async def test_repeatable_class_is_repeated_with_the_same_key_after_an_unknown_outcome(
    small_world: World, effect: str
) -> None:
    small_world.tools.script["do"] = [unknown(), {"done": True}]
    worker = await small_world.worker()

    workflow_id = await small_world.submit(one(effect))
    await small_world.run(worker)

    first, second = small_world.tools.ledger
    assert first.key == second.key
    assert (first.key is None) == (effect != "keyed")
    call = await small_world.call(workflow_id, "s")
    assert (call["state"], call["generation"], call["attempts"]) == ("succeeded", 1, 2)
    assert call["recovery"][0]["kind"] == "timeout"
    assert call["recovery"][0]["result"] == "succeeded"
    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"


async def test_at_most_once_is_never_repeated_after_an_unknown_outcome(small_world: World) -> None:
    small_world.tools.script["do"] = [unknown()]
    worker = await small_world.worker()

    workflow_id = await small_world.submit(one("at_most_once"))
    await small_world.run(worker)

    assert len(small_world.tools.ledger) == 1
    call, workflow = await small_world.call(workflow_id, "s"), await small_world.workflow(workflow_id)
    assert (call["state"], workflow["status"], workflow["doubts"]) == ("in_doubt", "waiting", 1)
    assert (call["not_before"] - call["doubt_since"]).total_seconds() == pytest.approx(10, abs=0.5)
    assert workflow["attention"] == ["outcome_unknown"]
    assert "effect.in_doubt" in await small_world.events(workflow_id)


@pytest.mark.parametrize("effect", ["read_only", "idempotent", "keyed", "at_most_once"])
async def test_every_class_is_tried_again_when_nothing_was_sent(small_world: World, effect: str) -> None:
    small_world.tools.script["do"] = [not_sent(), {"done": True}]
    worker = await small_world.worker()

    workflow_id = await small_world.submit(one(effect))
    await small_world.run(worker)

    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"
    assert (await small_world.call(workflow_id, "s"))["generation"] == 1


@pytest.mark.parametrize("effect", ["idempotent", "keyed", "at_most_once"])
async def test_rate_limited_call_waits_as_long_as_it_was_told_with_the_same_key(
    small_world: World, effect: str
) -> None:
    small_world.tools.script["do"] = [rate_limited(30), {"done": True}]
    worker = await small_world.worker()

    workflow_id = await small_world.submit(one(effect))
    await small_world.run(worker, hurry=False)
    due = await small_world.row("SELECT extract(epoch FROM due_at - clock_timestamp()) AS s FROM dues WHERE kind = 'call'")
    await small_world.run(worker)

    assert 28 < due["s"] < 31
    assert len({request.key for request in small_world.tools.ledger}) == 1
    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"


async def test_definite_refusal_fails_a_tool_step_at_once(small_world: World) -> None:
    small_world.tools.script["do"] = [refused(404)]
    worker = await small_world.worker()

    workflow_id = await small_world.submit(one("keyed"))
    await small_world.run(worker)

    workflow = await small_world.workflow(workflow_id)
    assert (workflow["status"], workflow["failure"]["kind"], workflow["failure"]["step"]) == ("failed", "tool_error", "s")
    assert len(small_world.tools.ledger) == 1


@pytest.mark.parametrize("effect", ["idempotent", "keyed"])
async def test_refusal_after_an_unknown_attempt_is_a_doubt_and_not_a_failure(small_world: World, effect: str) -> None:
    # DELETE executed, reply lost, second try 404: that it failed would be a guess.
    small_world.tools.script["do"] = [unknown(), refused(404)]
    worker = await small_world.worker()

    workflow_id = await small_world.submit(one(effect))
    await small_world.run(worker)

    assert (await small_world.call(workflow_id, "s"))["state"] == "in_doubt"


async def test_idempotent_call_that_stays_unknown_ends_in_doubt_when_its_retries_are_used(small_world: World) -> None:
    small_world.tools.script["do"] = [unknown()] * 20
    worker = await small_world.worker()

    workflow_id = await small_world.submit(one("idempotent"))
    await small_world.run(worker)

    assert len(small_world.tools.ledger) == 6
    assert (await small_world.call(workflow_id, "s"))["state"] == "in_doubt"


async def test_read_only_call_that_stays_unknown_fails_when_its_retries_are_used(small_world: World) -> None:
    small_world.tools.script["do"] = [unknown()] * 20
    worker = await small_world.worker()

    workflow_id = await small_world.submit(one("read_only"))
    await small_world.run(worker)

    assert len(small_world.tools.ledger) == 6
    assert (await small_world.workflow(workflow_id))["failure"]["kind"] == "timeout"


# --- lost workers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("effect", ["read_only", "idempotent", "keyed"])
async def test_repeatable_class_runs_again_as_soon_as_its_worker_is_lost(small_world: World, effect: str) -> None:
    first, second = await small_world.worker("one"), await small_world.worker("two")
    workflow_id = await small_world.submit(one(effect))
    [call_id] = await small_world.due_calls()

    await first.claim(call_id)
    await small_world.lose(first)
    await small_world.sweep(second)
    await small_world.run(second)

    assert len(small_world.tools.ledger) == 1
    call = await small_world.call(workflow_id, "s")
    assert (call["state"], call["attempts"], call["recovery"][0]["kind"]) == ("succeeded", 2, "worker_lost")


async def test_at_most_once_stays_intended_until_its_lost_sender_is_silent(small_world: World) -> None:
    first, second = await small_world.worker("one"), await small_world.worker("two")
    workflow_id = await small_world.submit(one("at_most_once"))
    [call_id] = await small_world.due_calls()

    await first.claim(call_id)
    await small_world.lose(first)
    await small_world.sweep(second)
    before = (await small_world.call(workflow_id, "s"))["state"]
    await small_world.silence()
    await small_world.sweep(second)

    assert before == "intended"
    assert (await small_world.call(workflow_id, "s"))["state"] == "in_doubt"
    assert await small_world.due_calls() == []


async def test_at_most_once_is_in_doubt_at_once_when_its_death_was_witnessed(small_world: World) -> None:
    first, second = await small_world.worker("one"), await small_world.worker("two")
    workflow_id = await small_world.submit(one("at_most_once"))
    [call_id] = await small_world.due_calls()

    await first.claim(call_id)
    await small_world.lose(first, proof=True)
    await small_world.sweep(second)

    call = await small_world.call(workflow_id, "s")
    reaped = await small_world.row("SELECT reaped_at FROM workers WHERE name = 'one'")
    assert call["state"] == "in_doubt"
    assert (call["not_before"] - reaped["reaped_at"]).total_seconds() == pytest.approx(10, abs=0.01)


async def test_lapsed_lease_is_not_claimable_before_the_sweep_decides(small_world: World) -> None:
    first, second = await small_world.worker("one"), await small_world.worker("two")
    await small_world.submit(one("at_most_once"))
    [call_id] = await small_world.due_calls()

    await first.claim(call_id)
    await small_world.lose(first)
    await second.run(call_id)

    assert small_world.tools.ledger == []


async def test_living_worker_that_never_answers_loses_its_attempt(small_world: World) -> None:
    first, second = await small_world.worker("one"), await small_world.worker("two")
    workflow_id = await small_world.submit(one("at_most_once"))
    [call_id] = await small_world.due_calls()

    await first.claim(call_id)
    await small_world.silence()
    await small_world.sweep(second)

    assert (await small_world.call(workflow_id, "s"))["state"] == "in_doubt"


async def test_call_that_loses_worker_after_worker_is_held_as_poisoned(small_world: World) -> None:
    survivor = await small_world.worker("survivor")
    workflow_id = await small_world.submit(one("idempotent"))
    [call_id] = await small_world.due_calls()

    for n in range(5):
        doomed = await small_world.worker(f"doomed.{n}")
        await doomed.claim(call_id)
        await small_world.lose(doomed)
        await small_world.sweep(survivor)

    call, workflow = await small_world.call(workflow_id, "s"), await small_world.workflow(workflow_id)
    assert (call["state"], call["held_reason"]) == ("held", "poisoned")
    assert (workflow["status"], workflow["attention"]) == ("waiting", ["poisoned"])


async def test_claim_whose_reply_was_lost_is_found_again_by_its_attempt_id(small_world: World) -> None:
    from app.engine import perform

    worker = await small_world.worker()
    await small_world.submit(one("at_most_once"))
    [call_id] = await small_world.due_calls()
    asked = perform.Asked(call_id=call_id, attempt_id=UUID(int=7))

    [(first, _)] = await perform.claim(worker.services, [asked])
    [(again, _)] = await perform.claim(worker.services, [asked])
    [(other, _)] = await perform.claim(worker.services, [perform.Asked(call_id=call_id, attempt_id=UUID(int=8))])

    assert first is not None and again is not None
    assert (first.attempt_id, again.attempt_id, other) == (UUID(int=7), UUID(int=7), None)
    assert await small_world.row("SELECT count(*) AS n FROM attempts") == {"n": 1}


async def test_doorbell_rung_twice_makes_one_attempt(small_world: World) -> None:
    import asyncio

    worker, other = await small_world.worker("one"), await small_world.worker("two")
    await small_world.submit(one("at_most_once"))
    [call_id] = await small_world.due_calls()

    await asyncio.gather(worker.run(call_id), worker.run(call_id), other.run(call_id), other.run(call_id))
    await worker.run(call_id)

    assert len(small_world.tools.ledger) == 1


# --- late evidence -------------------------------------------------------------------------------------------------


async def answer_late(world: World, effect: str, outcome: Answer, *, repeat_claimed: bool = False) -> UUID:
    """A worker sends, is called lost, and its answer arrives afterwards."""
    first, second = await world.worker("one"), await world.worker("two")
    workflow_id = await world.submit(one(effect))
    [call_id] = await world.due_calls()

    async def lost_meanwhile() -> Answer:
        await world.lose(first)
        await world.silence()
        await world.sweep(second)
        if repeat_claimed:
            await second.claim(call_id)
        return outcome

    world.tools.script["do"] = [lambda _: lost_meanwhile()]
    await first.run(call_id)
    return workflow_id


@pytest.mark.parametrize("effect", ["read_only", "idempotent", "keyed", "at_most_once"])
async def test_late_success_settles_the_call_and_revokes_the_unsent_repeat(small_world: World, effect: str) -> None:
    workflow_id = await answer_late(small_world, effect, ok({"id": 7}))

    call, workflow = await small_world.call(workflow_id, "s"), await small_world.workflow(workflow_id)
    assert (call["state"], workflow["status"]) == ("succeeded", "succeeded")
    assert (await small_world.step(workflow_id, "s"))["output"] == {"id": 7}
    assert await small_world.due_calls() == []
    assert len(small_world.tools.ledger) == 1


async def test_late_success_settles_while_the_repeat_is_in_flight_and_that_one_is_evidence_only(
    small_world: World,
) -> None:
    workflow_id = await answer_late(small_world, "keyed", ok({"id": 7}), repeat_claimed=True)

    assert (await small_world.call(workflow_id, "s"))["state"] == "succeeded"
    assert await small_world.rows("SELECT * FROM dues WHERE workflow_id = %s", workflow_id) == []


async def test_late_not_sent_testimony_returns_a_doubt_to_due(small_world: World) -> None:
    workflow_id = await answer_late(small_world, "at_most_once", not_sent())

    assert (await small_world.call(workflow_id, "s"))["state"] == "due"
    assert (await small_world.workflow(workflow_id))["doubts"] == 0


async def test_late_failure_settles_nothing_while_another_attempt_is_open(small_world: World) -> None:
    workflow_id = await answer_late(small_world, "keyed", refused(404), repeat_claimed=True)

    assert (await small_world.call(workflow_id, "s"))["state"] == "intended"
    assert (await small_world.workflow(workflow_id))["status"] == "running"


# --- doubts --------------------------------------------------------------------------------------------------------


async def doubtful(world: World, **more: Any) -> UUID:
    world.tools.script["do"] = [unknown()]
    worker = await world.worker()
    workflow_id = await world.submit(one("at_most_once", **more))
    await world.run(worker)
    return workflow_id


async def test_doubt_resolved_as_happened_ends_the_step_with_the_given_result(small_world: World) -> None:
    workflow_id = await doubtful(small_world)

    await settle(small_world, workflow_id, "happened", result={"id": 5})

    workflow = await small_world.workflow(workflow_id)
    assert (workflow["status"], workflow["attention"]) == ("succeeded", [])
    assert (await small_world.step(workflow_id, "s"))["output"] == {"id": 5}


async def test_that_it_did_not_happen_is_believed_only_after_the_quarantine(small_world: World) -> None:
    workflow_id = await doubtful(small_world)
    worker = await small_world.worker("two")

    with pytest.raises(QuarantineActive) as refused_now:
        await settle(small_world, workflow_id, "did_not_happen")
    await small_world.end_quarantines()
    await settle(small_world, workflow_id, "did_not_happen")
    await small_world.run(worker)

    assert "not_before" in refused_now.value.extra
    assert len(small_world.tools.ledger) == 2
    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"


async def test_abandoned_doubt_fails_the_workflow_and_claims_nothing(small_world: World) -> None:
    workflow_id = await doubtful(small_world)

    await settle(small_world, workflow_id, "abandon")

    call, workflow = await small_world.call(workflow_id, "s"), await small_world.workflow(workflow_id)
    assert (call["state"], workflow["status"], workflow["failure"]["kind"]) == ("abandoned", "failed", "unknown_outcome")


async def test_same_verdict_again_changes_nothing_and_another_is_refused(small_world: World) -> None:
    workflow_id = await doubtful(small_world)

    await settle(small_world, workflow_id, "happened")
    before = await small_world.events(workflow_id)
    await settle(small_world, workflow_id, "happened")

    assert await small_world.events(workflow_id) == before
    with pytest.raises(AlreadyResolved):
        await settle(small_world, workflow_id, "abandon")


async def test_effect_that_is_not_in_doubt_cannot_be_resolved(small_world: World) -> None:
    worker = await small_world.worker()
    workflow_id = await small_world.submit(one("at_most_once"))
    await small_world.run(worker)

    with pytest.raises(NotInDoubt):
        await settle(small_world, workflow_id, "happened")


async def test_answer_that_contradicts_a_persons_word_is_an_event_and_never_silent(small_world: World) -> None:
    first, second = await small_world.worker("one"), await small_world.worker("two")
    workflow_id = await small_world.submit(one("at_most_once"))
    [call_id] = await small_world.due_calls()

    async def abandoned_meanwhile() -> Answer:
        await small_world.lose(first)
        await small_world.silence()
        await small_world.sweep(second)
        await settle(small_world, workflow_id, "abandon")
        return ok({"id": 1})

    small_world.tools.script["do"] = [lambda _: abandoned_meanwhile()]
    await first.run(call_id)

    workflow = await small_world.workflow(workflow_id)
    assert (workflow["status"], workflow["attention"]) == ("failed", ["contradicted"])
    assert "effect.contradicted" in await small_world.events(workflow_id)


# --- keys ----------------------------------------------------------------------------------------------------------


async def test_business_key_goes_out_verbatim_and_another_workflow_with_it_is_refused(small_world: World) -> None:
    worker = await small_world.worker()

    first = await small_world.submit(one("keyed", key="meeting:7"), key="a")
    await small_world.run(worker)
    second = await small_world.submit(one("keyed", key="meeting:7"), key="b")
    await small_world.run(worker)

    assert [request.key for request in small_world.tools.ledger] == ["meeting:7"]
    assert (await small_world.workflow(first))["status"] == "succeeded"
    failed = await small_world.workflow(second)
    assert (failed["status"], failed["failure"]["kind"]) == ("failed", "key_conflict")


async def test_business_key_is_free_again_after_a_definite_failure_under_the_next_generation(small_world: World) -> None:
    small_world.tools.script["do"] = [refused(422), {"ok": True}]
    worker = await small_world.worker()

    await small_world.submit(one("keyed", key="meeting:7"), key="a")
    await small_world.run(worker)
    second = await small_world.submit(one("keyed", key="meeting:7"), key="b")
    await small_world.run(worker)

    assert [request.key for request in small_world.tools.ledger] == ["meeting:7", "meeting:7#2"]
    assert (await small_world.workflow(second))["status"] == "succeeded"


async def test_keyed_call_whose_key_may_be_forgotten_is_in_doubt_instead_of_repeated(small_world: World) -> None:
    small_world.tools.script["do"] = [unknown()]
    worker = await small_world.worker()
    workflow_id = await small_world.submit(one("keyed", key_ttl="10m"))
    [call_id] = await small_world.due_calls()

    await worker.run(call_id)
    await small_world.rows("UPDATE calls SET key_deadline = clock_timestamp() + interval '1 second'")
    await small_world.run(worker)

    assert len(small_world.tools.ledger) == 1
    assert (await small_world.call(workflow_id, "s"))["state"] == "in_doubt"
