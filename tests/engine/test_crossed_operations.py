"""Operators in the lost time of a restore, switches before probes, and items that had no time to begin."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from app.domain.facts import ItemEnded, StepTimedOut, SwitchReleased
from app.engine import sweep, switch
from app.store import orphans, snapshots
from tests.engine import people
from tests.engine.operations import TENANT, call_states, each, expect_refusal, expect_the_laws, operated, retried
from tests.engine.probing import ABSENT, probing
from tests.engine.rewinding import recovered, restored, restored_with, steps
from tests.engine.world import World, settle


@pytest.fixture
async def lawful(small_world: World) -> AsyncIterator[World]:
    yield small_world
    await expect_the_laws(small_world)


async def wrong(world: World) -> orphans.Orphans:
    async with snapshots.one_instant(world.api.database) as connection:
        return await orphans.count(connection)


# --- steps ended by hand after a restore ---------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["skip", "complete", "fail"])
@pytest.mark.parametrize("effect", ["idempotent", "keyed"])
async def test_operator_cannot_end_a_step_by_hand_when_its_effect_may_be_in_the_lost_time(
    lawful: World, effect: str, action: str
) -> None:
    worker, workflow_id = await restored_with(lawful, effect)
    await recovered(lawful)

    await expect_refusal(operated(lawful, workflow_id, "s", action), ["retry-now", "cancel"])
    await lawful.run(worker)

    assert (await lawful.workflow(workflow_id))["status"] == "succeeded"


async def test_operator_cannot_skip_a_step_whose_effect_is_parked_when_it_is_claimed(lawful: World) -> None:
    worker = await lawful.worker()
    workflow_id = await lawful.submit(steps("first", "s", tools={"first": "read_only", "s": "at_most_once"}))
    await restored(lawful)
    await recovered(lawful)
    [call] = await lawful.due_calls()
    await worker.run(call)  # the second call is made, and may be one that was sent in the lost time

    await expect_refusal(operated(lawful, workflow_id, "s", "skip"), ["retry-now", "cancel"])
    await lawful.run(worker)
    in_doubt = (await lawful.call(workflow_id, "s"))["state"]
    await settle(lawful, workflow_id, "happened")

    assert in_doubt == "in_doubt"
    assert (await lawful.workflow(workflow_id))["status"] == "succeeded"


async def test_operator_hears_what_to_answer_when_the_effect_in_the_lost_time_waits_for_a_person(lawful: World) -> None:
    workflow_id = await lawful.submit(people.pays())
    await restored(lawful)
    await recovered(lawful)

    await expect_refusal(operated(lawful, workflow_id, "s", "skip"), ["approve", "reject", "cancel"])

    assert (await call_states(lawful, workflow_id))["s#1"] == "held(approval)"


# --- what a person refuses after a restore -------------------------------------------------------------------------


async def test_rejected_effect_is_given_up_when_it_may_have_been_approved_in_the_lost_time(lawful: World) -> None:
    worker = await lawful.worker()
    workflow_id = await lawful.submit(people.pays())
    await restored(lawful)
    await recovered(lawful)

    await people.say_next(lawful, workflow_id, "reject")

    await lawful.run(worker)

    workflow = await lawful.workflow(workflow_id)
    assert (await lawful.call(workflow_id, "s"))["state"] == "abandoned"
    assert (workflow["status"], workflow["effects_abandoned"], lawful.tools.ledger) == ("failed", 1, [])


# --- the checker and the switch ------------------------------------------------------------------------------------


async def test_checker_finds_nothing_wrong_when_a_probe_is_switched_off(lawful: World) -> None:
    workflow_id, worker = await probing(lawful, ABSENT)
    await switch.hold(lawful.api, TENANT, scope="tool:look", reason=None, by="kim")

    await lawful.run(worker)

    assert (await call_states(lawful, workflow_id))["s#2"] == "held(operator)"
    assert (await wrong(lawful)).workflows == 0


# --- items that never began ----------------------------------------------------------------------------------------


async def test_item_that_had_not_begun_when_its_step_ran_out_of_time_has_its_output_after_a_retry(
    lawful: World,
) -> None:
    worker = await lawful.worker()
    workflow_id = await lawful.submit(each("idempotent", timeout="1h"), input={"list": [1, 2, 3]})
    first = await lawful.call(workflow_id, "s.0")
    looked = SwitchReleased(call_id=first["id"], step="s.0")  # reads the next item, and changes nothing
    await sweep.bring(worker.services, {workflow_id: [looked, StepTimedOut(step="s")]})
    assert (await lawful.workflow(workflow_id))["status"] == "failed"

    await retried(lawful, workflow_id)
    await lawful.run(worker)

    assert (await lawful.step(workflow_id, "s"))["output"] == [{"ok": True}] * 3


async def test_no_item_begins_when_its_step_has_run_out_of_time_and_another_item_is_in_flight(lawful: World) -> None:
    worker = await lawful.worker()
    workflow_id = await lawful.submit(each(timeout="1h"), input={"list": [1, 2, 3]})
    first = await lawful.call(workflow_id, "s.0")
    await worker.claim(first["id"])

    # One sweep brings both: the time is over, and an item ends that left room for another.
    await sweep.bring(worker.services, {workflow_id: [StepTimedOut(step="s"), ItemEnded(step="s")]})

    states = await call_states(lawful, workflow_id)
    assert states == {"s.0#1": "intended", "s.1#1": "cancelled"}
