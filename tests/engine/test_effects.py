"""Effect classes: what follows from an unknown outcome, a refusal, a request that never left."""

from __future__ import annotations

import pytest

from tests.engine.world import World, not_sent, one, rate_limited, refused, unknown


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
    due = await small_world.row(
        "SELECT extract(epoch FROM due_at - clock_timestamp()) AS s FROM dues WHERE kind = 'call'"
    )
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
    assert (workflow["status"], workflow["failure"]["kind"], workflow["failure"]["step"]) == (
        "failed",
        "tool_error",
        "s",
    )
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
