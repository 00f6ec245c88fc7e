"""Doubts and keys: a person's word, the quarantine, contradictions, ownership of business keys."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from app.errors import AlreadyResolved, NotInDoubt, QuarantineActive
from tests.engine.world import Answer, World, ok, one, refused, settle, unknown

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
    assert (call["state"], workflow["status"], workflow["failure"]["kind"]) == (
        "abandoned",
        "failed",
        "unknown_outcome",
    )


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


async def test_business_key_goes_out_verbatim_and_only_the_same_arguments_may_use_it_again(
    small_world: World,
) -> None:
    other_arguments = one("keyed", key="meeting:7")
    other_arguments["steps"]["s"]["with"] = {"n": 2}
    worker = await small_world.worker()

    first = await small_world.submit(one("keyed", key="meeting:7"), key="a")
    await small_world.run(worker)
    second = await small_world.submit(one("keyed", key="meeting:7"), key="b")
    third = await small_world.submit(other_arguments, key="c")
    await small_world.run(worker)

    assert [request.key for request in small_world.tools.ledger] == ["meeting:7"]
    assert [(await small_world.workflow(each))["status"] for each in (first, second)] == ["succeeded"] * 2
    failed = await small_world.workflow(third)
    assert (failed["status"], failed["failure"]["kind"]) == ("failed", "key_conflict")


async def test_business_key_is_free_again_after_a_definite_failure_under_the_next_generation(
    small_world: World,
) -> None:
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
