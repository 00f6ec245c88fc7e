"""The oracle can fail: a workflow that went well, one row of it broken by hand, and the law that notices."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from app.domain import ids
from tests.chaos import oracle
from tests.chaos.oracle import effects, rows, snapshot, submissions
from tests.chaos.oracle.ledgers import Ledgers, Reply, Submission, ToolEntry
from tests.chaos.oracle.verdicts import violations
from tests.engine.world import World, one

LEAK = """INSERT INTO budgets (workflow_id, scope, tenant_id, on_exceeded, limit_tokens, reserved_tokens)
SELECT id, '', tenant_id, 'fail', 10, 5 FROM workflows"""
BREAKS = [
    ("S6", "UPDATE attempts SET outcome = NULL"),
    ("S6", "UPDATE calls SET attempts = 2"),
    ("S6", "DELETE FROM events WHERE type = 'agent.tool.executed'"),
    ("S7", "DELETE FROM events WHERE seq = 2"),
    ("S7", "UPDATE events SET from_state = 'failed' WHERE type = 'workflow.succeeded'"),
    ("S7", "UPDATE events SET to_state = 'failed' WHERE type = 'workflow.succeeded'"),
    ("S8", "UPDATE steps SET ended_at = NULL, state = 'running'"),
    ("S8", "UPDATE workflows SET status = 'running', ended_at = NULL, open_calls = 1"),
    ("S9", "UPDATE workflows SET spent_microusd = 5"),
    ("S9", LEAK),
    ("L1", "UPDATE workflows SET status = 'running', ended_at = NULL, open_calls = 1"),
    ("L2", "UPDATE workers SET lease_until = clock_timestamp() - interval '1 hour'"),
]


async def _done(world: World) -> ToolEntry:
    """One effect, done; the line a tool would have written about it."""
    worker = await world.worker()
    workflow_id = await world.submit(one("at_most_once"))
    await world.run(worker)
    call = await world.call(workflow_id, "s")
    return _line(call)


def _line(call: dict[str, Any]) -> ToolEntry:
    return ToolEntry(
        tool="email.send",
        key=None,
        arguments={"subject": "a"},
        executed=True,
        status=200,
        at=datetime.now(UTC),
        call=ids.encode("call", call["id"]),
        attempt=1,
        workflow=ids.encode("wf", call["workflow_id"]),
    )


def _laws(world: World, ledgers: Ledgers) -> set[str]:
    with snapshot.at_one_instant(world.url) as seen:
        return {violation.law for violation in violations(oracle.judge(ledgers, seen))}


def _break(world: World, sql: str) -> None:
    with psycopg.connect(world.url, autocommit=True) as connection:
        connection.execute(sql)


async def test_no_law_objects_when_everything_went_well(small_world: World) -> None:
    entry = await _done(small_world)

    assert _laws(small_world, Ledgers(tools=[entry])) == set()


@pytest.mark.parametrize(("law", "sql"), BREAKS)
async def test_a_law_objects_when_a_row_was_broken(small_world: World, law: str, sql: str) -> None:
    entry = await _done(small_world)

    _break(small_world, sql)

    assert law in _laws(small_world, Ledgers(tools=[entry]))


async def test_s4_objects_when_the_tool_knows_nothing_of_a_success(small_world: World) -> None:
    await _done(small_world)

    with snapshot.at_one_instant(small_world.url) as seen:
        assert [each.law for each in effects.no_phantoms([], seen).violations] == ["S4"]


async def test_s4_objects_when_a_failure_was_executed(small_world: World) -> None:
    entry = await _done(small_world)
    _break(small_world, "UPDATE calls SET state = 'failed'")

    with snapshot.at_one_instant(small_world.url) as seen:
        assert [each.law for each in effects.no_phantoms([entry], seen).violations] == ["S4"]


async def test_s1_and_s2_object_when_a_202_has_no_workflow_or_a_key_has_two(small_world: World) -> None:
    lost = Submission(key="k", tag="t", replies=[Reply(status=202, workflow="wf_00000000000000000000000001")])
    torn = Submission(
        key="l", tag="t", replies=[Reply(status=202, workflow="wf_1"), Reply(status=202, workflow="wf_2")]
    )

    with snapshot.at_one_instant(small_world.url) as seen:
        assert [each.law for each in submissions.no_loss([lost], seen).violations] == ["S1"]
        assert [each.law for each in submissions.one_per_key([torn], seen).violations] == ["S2"]


async def test_laws_look_only_at_these_workflows_when_told_which(small_world: World) -> None:
    await _done(small_world)
    _break(small_world, "UPDATE calls SET attempts = 2")

    with snapshot.at_one_instant(small_world.url, workflows=[]) as seen:
        assert rows.single_writer(seen).violations == []
