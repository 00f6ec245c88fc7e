"""What undoing a thousand effects costs, and what a workflow says of its effects at the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from app.domain import ids
from app.engine import resolve
from tests.engine.sagas import (
    UNDO,
    ended,
    fails,
    made,
    script,
    submitted,
    undoable,
)
from tests.engine.walking import keeps_its_laws
from tests.engine.world import Answer, World, ok, tool


@pytest.fixture
async def small_world(small_world: World) -> AsyncIterator[World]:
    """Whatever a test does: its rows are judged in the end."""
    yield small_world
    await keeps_its_laws(small_world)


# --- what is said at the end ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "compensation"),
    [
        ({"a": {"tool": "look", "with": {}}, "z": fails("a")}, "not_needed"),
        ({"z": fails()}, "not_needed"),
        ({"a": made(1), "z": fails("a")}, "done"),
        ({"a": made(1), "b": {"tool": "plain", "with": {}}, "z": fails("a", "b")}, "partial"),
        ({"b": {"tool": "plain", "with": {}}, "z": fails("b")}, "skipped"),
    ],
)
async def test_failed_workflow_says_what_became_of_its_effects(
    small_world: World, steps: dict[str, Any], compensation: str
) -> None:
    script(small_world)
    worker = await small_world.worker()
    workflow_id = await submitted(small_world, undoable(steps))

    await small_world.run(worker)

    assert await ended(small_world, workflow_id) == ("failed", compensation)


async def test_succeeded_workflow_undoes_nothing(small_world: World) -> None:
    script(small_world)
    worker = await small_world.worker()
    workflow_id = await submitted(small_world, undoable({"a": made(1), "b": made(2, "a")}))

    await small_world.run(worker)

    assert await ended(small_world, workflow_id) == ("succeeded", None)
    assert small_world.tools.sent("undo") == []


async def test_answer_that_arrives_after_the_end_is_told_and_makes_the_undoing_partial(small_world: World) -> None:
    script(small_world)
    first, second = await small_world.worker("one"), await small_world.worker("two")
    once = tool("at_most_once", compensate={"tool": "undo", "with": UNDO})
    steps = {"a": made(1), "b": {"tool": "once", "with": {"n": 2}, "needs": ["a"]}, "c": fails("a")}
    workflow_id = await submitted(small_world, undoable(steps, tools={"once": once}))
    await second.run((await small_world.call(workflow_id, "a"))["id"])

    async def denied_meanwhile() -> Answer:
        await second.run((await small_world.call(workflow_id, "c"))["id"])
        await small_world.lose(first)
        await small_world.silence()
        await small_world.sweep(second)
        await small_world.end_quarantines()
        call = await small_world.call(workflow_id, "b")
        await resolve.resolve(
            small_world.api, ids.DEFAULT_TENANT, call["id"], outcome="did_not_happen", result=None, note="", by="kim"
        )
        return ok({"id": "late"})

    small_world.tools.script["once"] = [lambda _: denied_meanwhile()]
    await first.run((await small_world.call(workflow_id, "b"))["id"])
    await small_world.run(second)

    workflow = await small_world.workflow(workflow_id)
    assert (workflow["status"], workflow["compensation"], workflow["attention"]) == (
        "failed",
        "partial",
        ["contradicted"],
    )
    assert [request.arguments["n"] for request in small_world.tools.sent("undo")] == [1]


# --- size ----------------------------------------------------------------------------------------------------------

EFFECTS = 1_000
HUNDRED = 100


async def work_done(world: World) -> tuple[int, int]:
    """(scans, rows read) of the tables that grow with a workflow, as Postgres counts them once nobody is connected."""
    for database in world.databases:
        await database.close()
    world.databases.clear()
    others = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    while await world.rows(others):
        pass  # their numbers are told when they leave
    counted = await world.row(
        "SELECT sum(seq_scan + coalesce(idx_scan, 0))::int AS scans, "
        "sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::int AS rows FROM pg_stat_user_tables "
        "WHERE relname IN ('calls', 'steps', 'attempts', 'workflows')"
    )
    return counted["scans"], counted["rows"]


async def undo_some(world: World, workflow_id: UUID, *, left: int) -> tuple[float, float]:
    """(scans, rows read) for each effect that is undone until no more than `left` are."""
    before = (await world.workflow(workflow_id))["undos"]
    await world.rows("ANALYZE")  # as a server does by itself after a while: the plan is that of a table of this size
    scans, rows = await work_done(world)
    worker = await world.worker(f"worker.{left}")
    while (await world.workflow(workflow_id))["undos"] > left:
        await worker.lease.beat()  # on a busy machine eight hundred of them take longer than a lease
        await asyncio.gather(*(worker.run(call) for call in await world.due_calls()))
    undone = before - (await world.workflow(workflow_id))["undos"]
    more_scans, more_rows = await work_done(world)
    return (more_scans - scans) / undone, (more_rows - rows) / undone


async def test_each_of_a_thousand_effects_costs_the_same_to_undo(small_world: World) -> None:
    script(small_world)
    worker = await small_world.worker()
    item = {"for_each": "${{ input.list }}", "max_parallel": 100, "tool": "make", "with": {"n": "${{ item }}"}}
    definition = undoable({"each": item, "then": fails("each")})
    workflow_id = await submitted(small_world, definition, list=list(range(EFFECTS)))
    while (await small_world.workflow(workflow_id))["status"] != "compensating":
        await asyncio.gather(*(worker.run(call) for call in await small_world.due_calls()))

    first = await undo_some(small_world, workflow_id, left=EFFECTS - HUNDRED)
    await undo_some(small_world, workflow_id, left=HUNDRED)
    last = await undo_some(small_world, workflow_id, left=0)

    assert first[0] == pytest.approx(last[0], rel=0.5), "scans, and so statements"
    assert max(first[1], last[1]) < EFFECTS / 10, "rows"
    assert await ended(small_world, workflow_id) == ("failed", "done")
    assert len(small_world.tools.sent("undo")) == EFFECTS
