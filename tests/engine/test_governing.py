"""Rate limits of a model: a 429 that one worker gets is known to all, and what is left is shared out fairly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

from app.domain import ids
from app.domain.outcomes import Outcome
from app.domain.quotas import Allowances, Window
from tests.engine.outages import AGENT, held, look_at_all, swept
from tests.engine.world import World, rate_limited, says

SCOPE = "model:none/claude-haiku-5-5"


def left(requests: int, *, of: int = 600) -> Outcome:
    """An answer whose headers say how many requests are left."""
    return replace(says("done"), limits=Allowances(requests=Window(limit=of, remaining=requests)))


async def limits(world: World) -> dict[str, Any]:
    return await world.row("SELECT * FROM limits WHERE scope = %s", SCOPE)


async def call_of(world: World, workflow_id: UUID) -> UUID:
    return UUID(str((await world.call(workflow_id, "a"))["id"]))


async def test_429_of_one_worker_keeps_the_calls_of_another_from_asking(small_world: World) -> None:
    first, second = await small_world.worker("worker.1"), await small_world.worker("worker.2")
    small_world.model.answers = [rate_limited(30)]
    limited = await small_world.submit(AGENT, key="limited")
    await small_world.run(first, hurry=False)

    sibling = await small_world.submit(AGENT, key="sibling")
    await small_world.run(second, hurry=False)

    call, row = await small_world.call(sibling, "a"), await limits(small_world)
    assert len(small_world.model.requests) == 1
    assert (call["held_reason"], call["attempts"], call["recovery"][0]["rule"]) == ("quota", 0, "rate_limit")
    assert (row["blocked_until"] - row["updated_at"]).total_seconds() == 30
    assert (await small_world.call(limited, "a"))["state"] == "due"
    assert await small_world.rows("SELECT 1 AS one FROM breakers") == []


async def test_held_calls_go_once_the_provider_takes_requests_again(small_world: World) -> None:
    worker = await small_world.worker()
    small_world.model.answers = [rate_limited(30)]
    found = [await small_world.submit(AGENT, key=str(n)) for n in range(4)]
    calls = [await call_of(small_world, each) for each in found]
    for call in calls:
        await worker.run(call)
    waiting = await held(small_world, "quota")
    early = await small_world.sweep(worker)

    await small_world.rows("UPDATE limits SET blocked_until = clock_timestamp()")
    await look_at_all(small_world)
    await small_world.hurry()
    await swept(small_world, worker)

    statuses = [(await small_world.workflow(each))["status"] for each in found]
    assert (waiting, early.calls) == (3, [])
    assert statuses == ["succeeded"] * 4


async def test_answers_that_leave_plenty_write_nothing(small_world: World) -> None:
    worker = await small_world.worker()
    small_world.model.answers = [left(500)] * 5

    for n in range(5):
        await small_world.submit(AGENT, key=str(n))
    await small_world.run(worker, hurry=False)

    assert await small_world.rows("SELECT 1 AS one FROM limits") == []


async def test_near_its_limit_a_model_gets_as_many_calls_as_are_left_and_the_rest_wait(small_world: World) -> None:
    worker = await small_world.worker()
    small_world.model.answers = [left(3)]
    await small_world.submit(AGENT, key="first")
    await small_world.run(worker, hurry=False)
    for n in range(8):
        await small_world.submit(AGENT, key=str(n))
    await small_world.run(worker, hurry=False)
    waiting, asked = await held(small_world, "quota"), len(small_world.model.requests)

    await small_world.rows("UPDATE limits SET refilled_at = clock_timestamp(), requests_left = 3.0, requests = 3")
    await swept(small_world, worker)

    assert (waiting, asked) == (8, 1)
    assert len(small_world.model.requests) - asked == 3
    assert await held(small_world, "quota") == 5
    assert (await limits(small_world))["requests_left"] < 1


async def test_what_is_left_is_shared_out_tenant_by_tenant(small_world: World) -> None:
    worker = await small_world.worker()
    small_world.model.answers = [left(1)]
    await small_world.submit(AGENT, key="first")
    await small_world.run(worker, hurry=False)
    found = [await small_world.submit(AGENT, key=str(n)) for n in range(9)]
    await small_world.run(worker, hurry=False)
    late = found[-1]
    await small_world.rows(
        "UPDATE dues SET tenant_id = %s, due_at = clock_timestamp() WHERE kind = 'dependency' AND workflow_id = %s",
        ids.derived("another tenant"),
        late,
    )

    await small_world.rows("UPDATE limits SET refilled_at = clock_timestamp(), requests_left = 2.0, requests = 2")
    await small_world.sweep(worker)

    gone = await small_world.rows("SELECT workflow_id FROM calls WHERE state = 'due'")
    assert len(gone) == 2
    assert late in [row["workflow_id"] for row in gone]


async def test_admitted_call_that_meets_a_429_waits_in_line_again(small_world: World) -> None:
    worker = await small_world.worker()
    small_world.model.answers = [left(1), rate_limited(20)]
    await small_world.submit(AGENT, key="first")
    await small_world.run(worker, hurry=False)
    workflow_id = await small_world.submit(AGENT, key="second")
    await small_world.run(worker, hurry=False)
    await small_world.rows("UPDATE limits SET refilled_at = clock_timestamp(), requests_left = 1.0")
    await swept(small_world, worker)

    await small_world.rows("UPDATE limits SET blocked_until = NULL, requests_left = 0, requests = 1")
    await small_world.hurry()
    await small_world.run(worker, hurry=False)

    call = await small_world.call(workflow_id, "a")
    assert (call["attempts"], call["held_reason"]) == (1, "quota")
    assert [record["rule"] for record in call["recovery"]] == ["rate_limit", "rate_limited", "rate_limit"]


async def test_tools_and_other_models_know_nothing_of_it(small_world: World) -> None:
    worker = await small_world.worker()
    small_world.model.answers = [rate_limited(30)]
    await small_world.submit(AGENT, key="limited")
    await small_world.run(worker, hurry=False)
    document = {"name": "other", "steps": {"a": {"agent": {"model": "smart"}, "prompt": "Hi"}}}

    other = await small_world.submit(document, key="other")
    await small_world.run(worker, hurry=False)

    assert (await small_world.workflow(other))["status"] == "succeeded"
