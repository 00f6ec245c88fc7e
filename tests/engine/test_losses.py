"""Lost workers and late evidence: who may run again, who waits, and whose answer still counts."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from app.engine import claim
from tests.engine.world import Answer, World, not_sent, ok, one, refused

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
    worker = await small_world.worker()
    await small_world.submit(one("at_most_once"))
    [call_id] = await small_world.due_calls()
    asked = claim.Asked(call_id=call_id, attempt_id=UUID(int=7))

    [(first, _)] = await claim.claim(worker.services, [asked])
    [(again, _)] = await claim.claim(worker.services, [asked])
    [(other, _)] = await claim.claim(worker.services, [claim.Asked(call_id=call_id, attempt_id=UUID(int=8))])

    assert first is not None
    assert again is not None
    assert (first.attempt_id, again.attempt_id, other) == (UUID(int=7), UUID(int=7), None)
    assert await small_world.row("SELECT count(*) AS n FROM attempts") == {"n": 1}


async def test_doorbell_rung_twice_makes_one_attempt(small_world: World) -> None:
    worker, other = await small_world.worker("one"), await small_world.worker("two")
    await small_world.submit(one("at_most_once"))
    [call_id] = await small_world.due_calls()

    await asyncio.gather(worker.run(call_id), worker.run(call_id), other.run(call_id), other.run(call_id))
    await worker.run(call_id)

    assert len(small_world.tools.ledger) == 1


async def test_bell_that_rings_twice_before_one_claim_is_answered_to_who_came_first(small_world: World) -> None:
    """Its place is the one by which the pool knows the call; where the second got the call, the first gave its place
    back, and the next call of the workflow was not claimed with the outcome but rung for."""
    worker = await small_world.worker()
    await small_world.submit(one("at_most_once"))
    [call_id] = await small_world.due_calls()
    early, late = (claim.Asked(call_id=call_id, attempt_id=UUID(int=n)) for n in (1, 2))

    [(first, _), (second, locked)] = await claim.claim(worker.services, [early, late])

    assert first is not None
    assert (first.attempt_id, second, locked) == (early.attempt_id, None, False)


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
