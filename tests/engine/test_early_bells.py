"""A bell says where to look, not that the time has come: what waits for its time is not sent by an early one."""

from __future__ import annotations

from tests.engine.world import World, one, probed, rate_limited, unknown


async def test_bell_that_rings_early_sends_nothing_while_a_call_waits_as_it_was_told(small_world: World) -> None:
    small_world.tools.script["do"] = [rate_limited(600), {"done": True}]
    worker = await small_world.worker()
    workflow_id = await small_world.submit(one("at_most_once"))
    await small_world.run(worker, hurry=False)
    call = await small_world.call(workflow_id, "s")

    await worker.run(call["id"])

    assert (call["state"], len(small_world.tools.ledger)) == ("due", 1)
    assert (await small_world.call(workflow_id, "s"))["attempts"] == 1


async def test_bell_that_rings_early_asks_no_probe_while_it_waits_for_the_quarantine(small_world: World) -> None:
    small_world.tools.script |= {"do": [unknown()], "look": [{"found": False}, {"found": False}]}
    worker = await small_world.worker()
    workflow_id = await small_world.submit(probed(settle_time="600s"))
    await small_world.run(worker, hurry=False)
    effect = await small_world.call(workflow_id, "s")

    await worker.run(effect["probe_id"])

    assert (effect["state"], len(small_world.tools.sent("look"))) == ("probing", 1)
