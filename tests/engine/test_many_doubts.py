"""One word about many doubts: what the filter means and nothing else, each refusal told, dying in between goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from app.domain import ids
from app.engine import resolve
from app.engine.resolve import Bulk, Filter
from app.errors import InvalidValue
from tests.engine.clones import clones
from tests.engine.operations import TENANT, audited, expect_the_laws
from tests.engine.world import World, one, tool, unknown

TOOLS = {"do": tool("at_most_once"), "book": tool("at_most_once")}
FAN = {
    "name": "fan",
    "tools": TOOLS,
    "steps": {
        "each": {"for_each": "${{ input.list }}", "tool": "do", "with": {"n": "${{ item }}"}},
        "other": {"tool": "book", "with": {}},
    },
}
IN_DOUBT = "SELECT count(*) AS n FROM calls WHERE state = 'in_doubt'"


@pytest.fixture
async def lawful(small_world: World) -> AsyncIterator[World]:
    yield small_world
    await expect_the_laws(small_world)


async def doubtful(world: World, definition: dict[str, Any], *, list: Any = (1, 2), key: str = "k") -> UUID:
    """Every call of it is in doubt."""
    world.tools.script |= {"do": [unknown()] * 50, "book": [unknown()] * 50}
    worker = await world.worker()
    workflow_id = await world.submit(definition, input={"list": [*list]}, key=key)
    await world.run(worker)
    world.tools.script.clear()
    return workflow_id


async def settled(
    world: World, outcome: str = "happened", *, limit: int = 1_000, dry_run: bool = False, filter: Filter | None = None
) -> Bulk:
    return await resolve.resolve_many(
        world.api,
        TENANT,
        filter=filter or Filter(),
        outcome=outcome,
        note="all seen",
        by="kim",
        limit=limit,
        dry_run=dry_run,
    )


def numbers(bulk: Bulk) -> tuple[int, int, list[str]]:
    return bulk.matched, bulk.resolved, [refused.code for refused in bulk.refused]


@pytest.mark.parametrize(
    ("filter", "left"),
    [
        (Filter(tool="book"), ["each.0", "each.1"]),
        (Filter(step="other"), ["each.0", "each.1"]),
        (Filter(step="each"), ["other"]),
        (Filter(step="each.1"), ["each.0", "other"]),
        (Filter(tool="book", step="each"), ["each.0", "each.1", "other"]),
        (Filter(tool="none"), ["each.0", "each.1", "other"]),
        (Filter(), []),
    ],
)
async def test_filter_by_tool_and_step_settles_what_it_means_and_nothing_else(
    lawful: World, filter: Filter, left: list[str]
) -> None:
    await doubtful(lawful, FAN)

    bulk = await settled(lawful, filter=filter)

    rows = await lawful.rows("SELECT step FROM calls WHERE state = 'in_doubt' ORDER BY step")
    assert [row["step"] for row in rows] == left
    assert numbers(bulk) == (3 - len(left), 3 - len(left), [])
    assert await audited(lawful) == [("effect.happened", "kim")] * bulk.resolved


async def test_filter_by_workflow_and_by_time_leaves_the_others_in_doubt(lawful: World) -> None:
    old = await doubtful(lawful, one("at_most_once"), key="a")
    new = await doubtful(lawful, one("at_most_once"), key="b")
    await lawful.rows("UPDATE calls SET doubt_since = doubt_since - interval '1 day' WHERE workflow_id = %s", old)
    since: datetime = (await lawful.call(new, "s"))["doubt_since"]

    matched = [
        (await settled(lawful, dry_run=True, filter=filter)).matched
        for filter in (
            Filter(workflow_id=old), Filter(workflow_id=new), Filter(since=since), Filter(until=since),
            Filter(since=since + timedelta(seconds=1)), Filter(since=since - timedelta(days=2), until=since),
        )
    ]  # fmt: skip
    await settled(lawful, filter=Filter(until=since))

    assert matched == [1, 1, 1, 1, 0, 1]
    assert (await lawful.workflow(old))["status"] == "succeeded"
    assert (await lawful.call(new, "s"))["state"] == "in_doubt"


async def test_dry_run_says_what_would_be_settled_and_settles_nothing(lawful: World) -> None:
    workflow_id = await doubtful(lawful, FAN)
    before = await lawful.workflow(workflow_id)

    dry = await settled(lawful, dry_run=True)
    after = await lawful.workflow(workflow_id)
    wet = await settled(lawful)

    assert (before, numbers(dry)) == (after, numbers(wet))
    assert (await lawful.workflow(workflow_id))["status"] == "succeeded"


async def test_limit_takes_the_oldest_doubts_first_and_the_same_again_takes_the_next(lawful: World) -> None:
    await doubtful(lawful, FAN, list=range(4))
    oldest = await lawful.rows("SELECT id FROM calls WHERE state = 'in_doubt' ORDER BY doubt_since, id LIMIT 2")

    first = await settled(lawful, limit=2)
    done = await lawful.rows("SELECT id FROM calls WHERE state = 'succeeded' ORDER BY doubt_since, id")
    second = await settled(lawful, limit=2)
    third = await settled(lawful, limit=2)

    assert done == oldest
    assert [numbers(bulk) for bulk in (first, second, third)] == [(2, 2, []), (2, 2, []), (1, 1, [])]


async def test_doubts_still_in_quarantine_are_refused_one_by_one_and_the_others_settled(lawful: World) -> None:
    workflow_id = await doubtful(lawful, FAN)
    await lawful.rows("UPDATE calls SET not_before = clock_timestamp() - interval '1 ms' WHERE step = 'each.0'")

    bulk = await settled(lawful, "did_not_happen")

    assert numbers(bulk) == (3, 1, ["quarantine_active", "quarantine_active"])
    named = {refused.call_id for refused in bulk.refused}
    assert named == {(await lawful.call(workflow_id, step))["id"] for step in ("each.1", "other")}
    assert (await lawful.call(workflow_id, "each.0"))["state"] == "due"


async def test_probe_as_the_verdict_asks_every_tool_that_has_one_and_refuses_the_rest(lawful: World) -> None:
    declared = {"tool": "look", "with": {"n": "${{ arguments.n }}"}, "found": "output.found"}
    tools = {"look": tool("read_only"), "do": tool("checkable", probe=declared), "book": tool("at_most_once")}
    steps = {
        "each": {**FAN["steps"]["each"], "on_unknown_outcome": "ask"},  # type: ignore[index]
        "other": FAN["steps"]["other"],  # type: ignore[index]
    }
    workflow_id = await doubtful(lawful, {"name": "probed", "tools": tools, "steps": steps})
    lawful.tools.script["look"] = [{"found": True}] * 2

    bulk = await settled(lawful, "probe")
    await lawful.run(await lawful.worker("later"))

    assert numbers(bulk) == (3, 2, ["invalid_value"])
    states = {step: (await lawful.call(workflow_id, step))["state"] for step in ("each.0", "each.1", "other")}
    assert states == {"each.0": "succeeded", "each.1": "succeeded", "other": "in_doubt"}
    assert len(lawful.tools.sent("do")) == 2


async def test_word_that_is_no_verdict_is_refused_and_never_taken_for_one(lawful: World) -> None:
    workflow_id = await doubtful(lawful, one("at_most_once"))
    call = (await lawful.call(workflow_id, "s"))["id"]

    with pytest.raises(InvalidValue):
        await settled(lawful, "happend")
    with pytest.raises(InvalidValue):
        await resolve.resolve(lawful.api, TENANT, call, outcome="", result=None, note="?", by="kim")

    assert (await lawful.call(workflow_id, "s"))["state"] == "in_doubt"


async def test_doubts_of_another_tenant_are_not_settled(lawful: World) -> None:
    workflow_id = await doubtful(lawful, one("at_most_once"))

    bulk = await resolve.resolve_many(
        lawful.api, ids.derived("another"), filter=Filter(workflow_id=workflow_id), outcome="happened", note="",
        by="eve", limit=10, dry_run=False,
    )  # fmt: skip

    assert numbers(bulk) == (0, 0, [])


async def test_three_hundred_doubts_of_a_hundred_workflows_are_settled_by_one_word(lawful: World) -> None:
    workflow_id = await doubtful(lawful, FAN)
    await clones(lawful, workflow_id, 99)

    bulk = await settled(lawful, "happened")

    assert numbers(bulk) == (300, 300, [])
    ended = await lawful.rows("SELECT status, effects_done, doubts, count(*) AS n FROM workflows GROUP BY 1, 2, 3")
    assert ended == [{"status": "succeeded", "effects_done": 3, "doubts": 0, "n": 100}]
    assert len(await audited(lawful)) == 300


async def test_dying_in_the_middle_leaves_the_rest_in_doubt_and_the_same_again_goes_on_there(lawful: World) -> None:
    workflow_id = await doubtful(lawful, FAN)
    copies = await clones(lawful, workflow_id, 19)
    stands_in_the_way = sorted(copy.workflow_id for copy in copies)[9]

    async with lawful.api.database.hot("in the way") as held:
        async with held.transaction():
            await held.execute("SELECT FROM workflows WHERE id = %s FOR UPDATE", (stands_in_the_way,))
            dying = asyncio.create_task(settled(lawful))
            await until_it_waits(lawful)
            dying.cancel()
            [gone] = await asyncio.gather(dying, return_exceptions=True)
        left = (await lawful.row(IN_DOUBT))["n"]
    partly = await lawful.rows("SELECT id FROM workflows WHERE doubts NOT IN (0, 3)")
    again = await settled(lawful)

    assert isinstance(gone, asyncio.CancelledError)
    assert (0 < left < 60, partly) == (True, []), "each workflow's doubts are one transaction"
    assert numbers(again) == (left, left, [])
    assert len(await audited(lawful)) == 60


async def until_it_waits(world: World) -> None:
    """Until somebody waits for a lock that another holds."""
    waits = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with asyncio.timeout(30):
        while not await world.rows(waits):
            continue
