"""When the sweep rings: two seconds after whoever made a call due could have rung it, at once while nobody can."""

from __future__ import annotations

from tests.engine.world import World, one


async def test_sweep_leaves_a_call_that_was_just_rung_to_whoever_heard_it(small_world: World) -> None:
    worker = await small_world.worker("one")
    await small_world.submit(one("idempotent"))

    swept = await small_world.sweep(worker)

    assert swept.calls == []


async def test_sweep_finds_a_new_call_at_once_while_the_broker_is_away(small_world: World) -> None:
    worker = await small_world.worker("one")
    await small_world.submit(one("idempotent"))
    [call_id] = await small_world.due_calls()
    small_world.bell.broker_away = True

    swept = await small_world.sweep(worker)
    again = await small_world.sweep(worker)

    assert swept.calls == [call_id]
    assert again.calls == []


async def test_sweep_makes_the_due_of_a_claimed_call_its_attempts_due(small_world: World) -> None:
    worker = await small_world.worker("one")
    workflow_id = await small_world.submit(one("idempotent"))
    [call_id] = await small_world.due_calls()
    await worker.claim(call_id)
    await small_world.rows("UPDATE dues SET ring_at = clock_timestamp() WHERE kind = 'call'")

    swept = await small_world.sweep(worker)

    [due] = await small_world.rows(
        "SELECT d.kind, d.worker, d.due_at > a.send_deadline AS waits FROM dues d JOIN attempts a ON a.call_id = d.ref "
        "WHERE d.workflow_id = %s AND d.kind IN ('call', 'attempt')",
        workflow_id,
    )
    assert swept.calls == []
    assert due == {"kind": "attempt", "worker": worker.lease.worker_id, "waits": True}


async def test_loss_of_a_worker_is_seen_before_the_due_of_its_new_call_is_ripe(small_world: World) -> None:
    worker, survivor = await small_world.worker("one"), await small_world.worker("two")
    workflow_id = await small_world.submit(one("idempotent"))
    [call_id] = await small_world.due_calls()
    await worker.claim(call_id)
    await small_world.lose(worker, proof=True)

    await small_world.sweep(survivor)

    assert (await small_world.call(workflow_id, "s"))["state"] == "due"
