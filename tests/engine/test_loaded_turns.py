"""Of an agent's step a decision reads the calls of the turn it is in: all of them, and none of the turns before."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import psycopg

from app.domain.states import FailureKind
from app.store import loading
from app.store.database import HOT_OPTIONS
from tests.engine.conversing import agent, asks, cut, fails, paused, text, use
from tests.engine.world import World, refused, says, tool

TOOLS = {"look": tool("read_only"), "mail": tool("keyed")}
STORY: list[Any] = [
    asks(use("look", {"n": 1}), use("mail", {"to": "ana"}), use("look", {"n": 2})),
    cut(text("Well"), use("look", {"n": 0})),
    asks(use("look", {"n": 3})),
    fails(FailureKind.OVERLOADED),
    asks(text("Without it."), use("mail", {"to": "bo"})),
    paused("It was "),
    says('{"n"'),
    says('{"to": 2}'),
]
"""Parallel tools, one of which fails, half a tool call, an overload, a pause, no JSON, and the answer."""


async def loaded(world: World, workflow_id: UUID) -> list[UUID]:
    given = {"workflows": [workflow_id], "paths": ["a"]}
    async with await psycopg.AsyncConnection.connect(world.url, autocommit=True) as connection:
        rows = await (await connection.execute(f"SELECT id FROM ({loading._LOAD_TURNS}) t", given)).fetchall()
    return sorted(row[0] for row in rows)


async def of_the_turn(world: World, workflow_id: UUID) -> list[UUID]:
    rows = await world.rows(
        "SELECT c.id FROM calls c JOIN steps s ON s.workflow_id = c.workflow_id AND s.path = c.step "
        "WHERE c.workflow_id = %s AND c.turn = s.turn",
        workflow_id,
    )
    return sorted(row["id"] for row in rows)


async def test_every_call_of_the_turn_is_loaded_whatever_went_wrong_in_it(small_world: World) -> None:
    small_world.model.answers = list(STORY)
    small_world.tools.script = {"look": [refused(422), refused(422)]}
    worker = await small_world.worker()
    story = agent(tools=TOOLS, schema={"to": {"type": "integer"}}, retry={"tool_error": {"max_retries": 1}})
    workflow_id = await small_world.submit(story, input={"who": "kim"})
    most, turns = 0, set()

    for _ in range(60):
        there = await of_the_turn(small_world, workflow_id)
        assert await loaded(small_world, workflow_id) == there
        most = max(most, len(there))
        turns.add((await small_world.step(workflow_id, "a"))["turn"])
        await small_world.hurry()
        due = await small_world.due_calls()
        if not due:
            break
        await worker.run(due[0])

    assert (await small_world.workflow(workflow_id))["output"] == {"said": {"to": 2}}
    repeats = await small_world.rows(
        "SELECT turn FROM calls WHERE workflow_id = %s AND retry_of IS NOT NULL", workflow_id
    )
    assert most >= 4
    assert len(turns) > 3
    assert len(repeats) >= 3


async def test_calls_of_earlier_turns_are_not_looked_at_when_there_are_many(small_world: World) -> None:
    turns = 30
    small_world.model.answers = [asks(use("look", {"n": n})) for n in range(turns)] + [says("done")]
    worker = await small_world.worker()
    workflow_id = await small_world.submit(agent(tools=TOOLS, max_turns=turns + 5), input={"who": "kim"})
    await small_world.run(worker)

    given = {"workflows": [workflow_id], "paths": ["a"]}
    options = " ".join(f"-c {name}={value}" for name, value in HOT_OPTIONS.items())
    async with await psycopg.AsyncConnection.connect(small_world.url, autocommit=True, options=options) as connection:
        plan = f"EXPLAIN (ANALYZE, FORMAT JSON) {loading._LOAD_TURNS}"
        row = await (await connection.execute(plan, given)).fetchone()

    assert row is not None
    looked_at = list(scans(row[0][0]["Plan"]))
    assert looked_at, json.dumps(row[0])
    assert sum(looked_at) <= 8


def scans(node: dict[str, Any]) -> Any:
    """Of each scan of the table of calls: the rows it fetched, those that it passed over included."""
    if node.get("Relation Name") == "calls":
        rows = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
        yield rows * node["Actual Loops"]
    for below in node.get("Plans", ()):
        yield from scans(below)
