"""Whatever operators, crashes and late answers do: none of it is the word that a held call waits for."""

from __future__ import annotations

import asyncio

import pytest

from app.domain import ids
from app.engine import cancel, operate_step, pause, record, resolve, retry, switch
from app.errors import ApprovalClosed, NotPossible
from tests.engine.people import EDITED, PAY, PAYS, agent, asked, laws, paid, pays, rest, say, say_next
from tests.engine.rewinding import recovered, restored
from tests.engine.world import World, ok, uses

# --- no way around -------------------------------------------------------------------------------------------------


async def test_operator_cannot_hurry_a_call_that_waits_for_a_word(small_world: World) -> None:
    worker = await small_world.worker()
    workflow_id = await small_world.submit(pays())

    with pytest.raises(NotPossible) as refusal:
        await operate_step.operate(
            small_world.api, ids.DEFAULT_TENANT, workflow_id, "s", action="retry-now", output=None, note=None, by="op"
        )
    await rest(small_world, worker)

    assert refusal.value.extra["possible"] == ["approve", "reject"]
    assert (paid(small_world), len(await asked(small_world, workflow_id))) == ([], 1)


@pytest.mark.parametrize("action", ["skip", "complete", "fail"])
async def test_operator_who_ends_the_step_ends_the_question_and_sends_nothing(small_world: World, action: str) -> None:
    worker = await small_world.worker()
    workflow_id = await small_world.submit(pays())
    [approval] = await asked(small_world, workflow_id)

    await operate_step.operate(
        small_world.api, ids.DEFAULT_TENANT, workflow_id, "s", action=action, output={"by": "hand"}, note=None, by="op"
    )
    with pytest.raises(ApprovalClosed):
        await say(small_world, approval, "approve")
    await rest(small_world, worker)

    assert paid(small_world) == []
    assert (await small_world.workflow(workflow_id))["ended_at"] is not None
    await laws(small_world)


async def test_resuming_releases_nothing_and_a_word_in_the_pause_is_kept(small_world: World) -> None:
    worker = await small_world.worker()
    workflow_id = await small_world.submit(pays())

    for again in (False, True):
        await pause.pause(small_world.api, ids.DEFAULT_TENANT, workflow_id, reason=None, by="op")
        if again:
            await say_next(small_world, workflow_id, "approve")
            await rest(small_world, worker)
        assert paid(small_world) == []
        await laws(small_world)
        await pause.resume(small_world.api, ids.DEFAULT_TENANT, workflow_id, reason=None, by="op")
        await rest(small_world, worker)
        assert paid(small_world) == ([PAY] if again else [])
        await laws(small_world)


async def test_call_made_in_a_pause_is_asked_about_and_not_released_by_its_end(small_world: World) -> None:
    worker = await small_world.worker()
    workflow_id = await small_world.submit(agent())
    [model] = await small_world.due_calls()
    claimed = await worker.claim(model)
    await pause.pause(small_world.api, ids.DEFAULT_TENANT, workflow_id, reason=None, by="op")

    await record.record(worker.services, claimed, uses((PAYS, PAY)))
    question = await asked(small_world, workflow_id)
    await pause.resume(small_world.api, ids.DEFAULT_TENANT, workflow_id, reason=None, by="op")
    await rest(small_world, worker)

    assert (len(question), paid(small_world)) == (1, [])
    await laws(small_world)


@pytest.mark.parametrize("scope", ["tool:pay", "tenant"])
async def test_switch_that_is_released_releases_nothing_that_waits_for_a_word(small_world: World, scope: str) -> None:
    worker = await small_world.worker()
    workflow_id = await small_world.submit(pays())

    for again in (False, True):
        await switch.hold(small_world.api, ids.DEFAULT_TENANT, scope=scope, reason=None, by="op")
        if again:
            await say_next(small_world, workflow_id, "approve")
        await rest(small_world, worker)
        assert paid(small_world) == []
        await switch.release(small_world.api, ids.DEFAULT_TENANT, scope=scope, by="op")
        await rest(small_world, worker)
        assert paid(small_world) == ([PAY] if again else [])
    await laws(small_world)


async def test_late_answer_to_the_first_releases_no_copy_that_waits(small_world: World) -> None:
    small_world.model.answers = [uses((PAYS, PAY), (PAYS, PAY)), "done"]
    worker, heir = await small_world.worker("first"), await small_world.worker("second")
    workflow_id = await small_world.submit(agent())
    await rest(small_world, worker)
    await say_next(small_world, workflow_id, "approve")
    [approved] = await small_world.due_calls()
    claimed = await worker.claim(approved)
    await small_world.lose(worker)
    await small_world.silence()
    await small_world.sweep(heir)
    in_doubt = await small_world.row("SELECT state FROM calls WHERE id = %s", approved)

    await record.record(heir.services, claimed, ok({"id": 1}))
    await rest(small_world, heir)

    settled = await small_world.row("SELECT state FROM calls WHERE id = %s", approved)
    assert (in_doubt["state"], settled["state"]) == ("in_doubt", "succeeded")
    assert ([row["kind"] for row in await asked(small_world, workflow_id)], paid(small_world)) == (["repeat"], [])
    await laws(small_world)


async def test_recovered_database_releases_nothing_that_waits_for_a_word(small_world: World) -> None:
    worker = await small_world.worker()
    workflow_id = await small_world.submit(pays())
    await restored(small_world)

    await recovered(small_world)
    await rest(small_world, worker)
    before = (paid(small_world), len(await asked(small_world, workflow_id)))
    await say_next(small_world, workflow_id, "approve")
    await rest(small_world, worker)

    assert before == ([], 1)
    assert (paid(small_world), (await small_world.call(workflow_id, "s"))["state"]) == ([], "in_doubt")


@pytest.mark.parametrize("before", ["reject", "approve", "edit", "nothing"])
async def test_reopened_workflow_asks_again_whatever_was_said_before(small_world: World, before: str) -> None:
    worker = await small_world.worker()
    workflow_id = await small_world.submit(pays())
    if before != "nothing":
        await say_next(small_world, workflow_id, before, values=EDITED if before == "edit" else None)
    if before != "reject":  # approved, but ended before it was sent
        await cancel.cancel(small_world.api, ids.DEFAULT_TENANT, workflow_id, reason=None, by="kim")

    await retry.retry(small_world.api, ids.DEFAULT_TENANT, workflow_id, note=None, by="op")
    await rest(small_world, worker)
    sent = paid(small_world)
    question = await say_next(small_world, workflow_id, "approve")
    await rest(small_world, worker)

    expected = EDITED if before == "edit" else PAY
    assert (sent, question["show"]["arguments"], paid(small_world)) == ([], expected, [expected])
    await laws(small_world)


async def test_agent_that_is_reopened_asks_again_about_each_of_its_copies(small_world: World) -> None:
    small_world.model.answers = [uses((PAYS, PAY), (PAYS, PAY)), "done"]
    worker = await small_world.worker()
    workflow_id = await small_world.submit(agent())
    await rest(small_world, worker)
    for question in await asked(small_world, workflow_id):
        await say(small_world, question, "approve")
    await cancel.cancel(small_world.api, ids.DEFAULT_TENANT, workflow_id, reason=None, by="kim")

    await retry.retry(small_world.api, ids.DEFAULT_TENANT, workflow_id, note=None, by="op")
    await rest(small_world, worker)

    assert [row["kind"] for row in await asked(small_world, workflow_id)] == ["tool", "repeat"]
    assert paid(small_world) == []
    await laws(small_world)


# --- crashes -------------------------------------------------------------------------------------------------------


async def test_approved_call_is_found_by_the_sweep_when_its_bell_was_lost(small_world: World) -> None:
    worker = await small_world.worker()
    workflow_id = await small_world.submit(pays())
    await say_next(small_world, workflow_id, "approve")

    await small_world.rows("UPDATE dues SET ring_at = clock_timestamp() WHERE kind = 'call'")
    swept = await small_world.sweep(worker)
    await asyncio.gather(*(worker.run(call) for call in [*swept.calls, *swept.calls]))

    assert (len(swept.calls), paid(small_world)) == (1, [PAY])


async def test_approved_call_is_not_sent_twice_on_one_word_when_its_worker_dies(small_world: World) -> None:
    worker, heir = await small_world.worker("first"), await small_world.worker("second")
    workflow_id = await small_world.submit(pays())
    await say_next(small_world, workflow_id, "approve")
    [call] = await small_world.due_calls()

    await worker.claim(call)
    await small_world.lose(worker)
    await small_world.silence()
    await rest(small_world, heir)
    doubt = (await small_world.call(workflow_id, "s"))["state"]
    await small_world.end_quarantines()
    await resolve.resolve(
        small_world.api, ids.DEFAULT_TENANT, call, outcome="did_not_happen", result=None, note="not there", by="kim"
    )
    await rest(small_world, heir)

    assert (doubt, paid(small_world)) == ("in_doubt", [PAY])
    assert len(await asked(small_world, workflow_id, status="decided")) == 1
