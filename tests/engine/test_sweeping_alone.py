"""One workflow that cannot be decided does not keep the sweep from the others."""

from __future__ import annotations

from tests.engine.world import World, one


async def test_sweep_decides_about_the_others_when_one_workflow_breaks_the_batch(small_world: World) -> None:
    broken, *others = [await small_world.submit(one("idempotent"), key=f"k-{n}") for n in range(3)]
    await small_world.rows("UPDATE workflows SET plan_digest = 'gone' WHERE id = %s", broken)
    worker = await small_world.worker()

    await small_world.ripen(worker, "deadline")

    assert [(await small_world.workflow(each))["failure"]["kind"] for each in others] == ["deadline_exceeded"] * 2
    assert (await small_world.workflow(broken))["status"] == "running"
