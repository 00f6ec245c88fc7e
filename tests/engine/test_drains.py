"""Fail, cancel, time out: nothing new is started, what is in flight is settled, doubts included."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from app.domain import ids
from app.engine import cancel, resolve
from app.errors import NotFound, NotPossible
from tests.engine.world import Answer, World, ok, refused, tool, unknown


def two(effect: str = "at_most_once", **step: Any) -> dict[str, Any]:
    return {
        "name": "two",
        "tools": {"do": tool(effect), "fail": tool("read_only")},
        "steps": {
            "a": {"tool": "do", "with": {"n": 1}, **step},
            "b": {"tool": "fail", "with": {}},
            "later": {"needs": ["a", "b"], "set": {"x": 1}},
        },
    }


async def stop(world: World, workflow_id: Any) -> None:
    await cancel.cancel(world.api, ids.DEFAULT_TENANT, workflow_id, reason="enough", by="kim")


async def test_failure_cancels_what_no_attempt_may_have_sent(small_world: World) -> None:
    small_world.tools.script["fail"] = [refused(404)]
    worker = await small_world.worker()
    workflow_id = await small_world.submit(two())

    await worker.run((await small_world.call(workflow_id, "b"))["id"])
    await small_world.run(worker)

    workflow = await small_world.workflow(workflow_id)
    assert (workflow["status"], workflow["failure"]["step"], workflow["compensation"]) == ("failed", "b", "not_needed")
    assert (await small_world.call(workflow_id, "a"))["state"] == "cancelled"
    assert small_world.tools.sent("do") == []
    assert await small_world.rows("SELECT * FROM dues") == []


async def test_failure_waits_for_the_effect_in_flight_and_keeps_its_output(small_world: World) -> None:
    other = await small_world.worker("other")
    worker = await small_world.worker()
    workflow_id = await small_world.submit(two())
    b = (await small_world.call(workflow_id, "b"))["id"]
    seen = {}

    async def fails_meanwhile() -> Answer:
        await other.run(b)
        seen["status"] = (await small_world.workflow(workflow_id))["status"]
        return ok({"id": 1})

    small_world.tools.script["fail"] = [refused(404)]
    small_world.tools.script["do"] = [lambda _: fails_meanwhile()]
    await worker.run((await small_world.call(workflow_id, "a"))["id"])

    assert seen["status"] == "failing"
    workflow = await small_world.workflow(workflow_id)
    assert (workflow["status"], workflow["effects_done"]) == ("failed", 1)
    assert (await small_world.step(workflow_id, "a"))["output"] == {"id": 1}
    assert (await small_world.step(workflow_id, "later"))["state"] == "cancelled"


async def test_drain_waits_for_a_doubt_and_ends_when_a_person_settles_it(small_world: World) -> None:
    small_world.tools.script |= {"do": [unknown()], "fail": [refused(404)]}
    worker = await small_world.worker()
    workflow_id = await small_world.submit(two())

    await small_world.run(worker)
    before = (await small_world.workflow(workflow_id))["status"]
    await small_world.end_quarantines()
    await resolve.resolve(
        small_world.api,
        ids.DEFAULT_TENANT,
        (await small_world.call(workflow_id, "a"))["id"],
        outcome="did_not_happen",
        result=None,
        note="not there",
        by="kim",
    )

    assert before == "failing"
    assert (await small_world.workflow(workflow_id))["status"] == "failed"
    assert len(small_world.tools.sent("do")) == 1


@pytest.mark.parametrize("effect", ["idempotent", "keyed"])
async def test_call_that_may_have_happened_is_finished_while_draining(small_world: World, effect: str) -> None:
    small_world.tools.script |= {"do": [unknown(), {"id": 1}], "fail": [refused(404)]}
    worker = await small_world.worker()
    workflow_id = await small_world.submit(two(effect))

    await worker.run((await small_world.call(workflow_id, "a"))["id"])
    await worker.run((await small_world.call(workflow_id, "b"))["id"])
    draining = (await small_world.workflow(workflow_id))["status"]
    await small_world.run(worker)

    assert draining == "failing"
    assert len(small_world.tools.sent("do")) == 2
    assert (await small_world.workflow(workflow_id))["status"] == "failed"


async def test_cancel_before_anything_was_sent_ends_at_once(small_world: World) -> None:
    worker = await small_world.worker()
    workflow_id = await small_world.submit(two())

    await stop(small_world, workflow_id)
    once = await small_world.workflow(workflow_id)
    await stop(small_world, workflow_id)
    await small_world.run(worker)

    workflow = await small_world.workflow(workflow_id)
    assert (workflow["status"], workflow["cancel"]["reason"]) == ("cancelled", "enough")
    assert workflow["revision"] == once["revision"]
    assert small_world.tools.ledger == []


async def test_cancel_never_interrupts_a_sent_effect(small_world: World) -> None:
    worker = await small_world.worker()
    workflow_id = await small_world.submit(two())

    async def cancelled_meanwhile() -> Answer:
        await stop(small_world, workflow_id)
        return ok({"id": 1})

    small_world.tools.script["do"] = [lambda _: cancelled_meanwhile()]
    await worker.run((await small_world.call(workflow_id, "a"))["id"])

    workflow = await small_world.workflow(workflow_id)
    assert (workflow["status"], workflow["effects_done"]) == ("cancelled", 1)
    assert (await small_world.step(workflow_id, "a"))["state"] == "succeeded"


async def test_cancel_of_an_ended_or_unknown_workflow_says_so(small_world: World) -> None:
    worker = await small_world.worker()
    workflow_id = await small_world.submit(two())
    await small_world.run(worker)

    with pytest.raises(NotPossible):
        await stop(small_world, workflow_id)
    with pytest.raises(NotFound):
        await stop(small_world, ids.derived("nobody"))


async def test_cancel_of_a_failing_workflow_ends_as_cancelled(small_world: World) -> None:
    small_world.tools.script |= {"do": [unknown()], "fail": [refused(404)]}
    worker = await small_world.worker()
    workflow_id = await small_world.submit(two())
    await small_world.run(worker)

    await stop(small_world, workflow_id)
    await resolve.resolve(
        small_world.api,
        ids.DEFAULT_TENANT,
        (await small_world.call(workflow_id, "a"))["id"],
        outcome="happened",
        result=None,
        note="there",
        by="kim",
    )

    assert (await small_world.workflow(workflow_id))["status"] == "cancelled"


async def test_deadline_fails_the_workflow_in_words(small_world: World) -> None:
    worker = await small_world.worker()
    workflow_id = await small_world.submit(two(), deadline=timedelta(seconds=60))

    await small_world.rows("UPDATE dues SET ring_at = clock_timestamp() WHERE kind = 'deadline'")
    await small_world.sweep(worker)

    workflow = await small_world.workflow(workflow_id)
    assert (workflow["status"], workflow["failure"]["kind"]) == ("failed", "deadline_exceeded")


async def pass_time(world: World, worker: Any) -> None:
    await world.rows("UPDATE dues SET ring_at = clock_timestamp() WHERE kind = 'step_timeout'")
    await world.sweep(worker)


async def test_step_timeout_fails_a_step_of_which_nothing_was_sent(small_world: World) -> None:
    worker = await small_world.worker()
    workflow_id = await small_world.submit(two(timeout="1m"))

    await pass_time(small_world, worker)

    workflow = await small_world.workflow(workflow_id)
    assert (workflow["status"], workflow["failure"]["kind"]) == ("failed", "step_timeout")


async def test_step_timeout_with_an_effect_in_flight_drains_into_a_doubt_and_never_says_failed(
    small_world: World,
) -> None:
    worker = await small_world.worker()
    workflow_id = await small_world.submit(two(timeout="1m"))

    async def late() -> Answer:
        await pass_time(small_world, worker)
        return unknown()

    small_world.tools.script["do"] = [lambda _: late()]
    await worker.run((await small_world.call(workflow_id, "a"))["id"])

    assert (await small_world.call(workflow_id, "a"))["state"] == "in_doubt"
    assert (await small_world.step(workflow_id, "a"))["state"] == "running"


async def test_step_timeout_lets_the_effect_in_flight_end_and_then_fails_the_step(small_world: World) -> None:
    worker = await small_world.worker()
    workflow_id = await small_world.submit(two(timeout="1m"))

    async def late() -> Answer:
        await pass_time(small_world, worker)
        return ok({"id": 1})

    small_world.tools.script["do"] = [lambda _: late()]
    await worker.run((await small_world.call(workflow_id, "a"))["id"])
    await small_world.run(worker)

    workflow = await small_world.workflow(workflow_id)
    assert (workflow["status"], workflow["failure"]["kind"], workflow["effects_done"]) == ("failed", "step_timeout", 1)


async def test_timeout_of_a_for_each_ends_its_items(small_world: World) -> None:
    definition = {
        "name": "fan",
        "tools": {"do": tool("idempotent")},
        "steps": {
            "each": {
                "for_each": "${{ input.names }}",
                "max_parallel": 2,
                "timeout": "1m",
                "tool": "do",
                "with": {"name": "${{ item }}"},
            },
        },
    }
    worker = await small_world.worker()
    workflow_id = await small_world.submit(definition, input={"names": ["a", "b", "c"]})
    [first, *_] = await small_world.due_calls()

    async def late() -> Answer:
        await pass_time(small_world, worker)
        return ok(1)

    small_world.tools.script["do"] = [lambda _: late()]
    await worker.run(first)
    await small_world.run(worker)

    workflow = await small_world.workflow(workflow_id)
    assert (workflow["status"], workflow["failure"]["kind"]) == ("failed", "step_timeout")
    assert len(small_world.tools.ledger) == 1
