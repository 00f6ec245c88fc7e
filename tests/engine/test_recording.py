"""Record never loses evidence: locked workflows, lost connections, decisions that fail; and the sweep that heals."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.rows import dict_row

from app.domain.facts import CallSettled
from app.domain.outcomes import Outcome
from app.engine import record, sweep
from app.store import dues
from tests.engine.locks import until_waiting
from tests.engine.world import World, not_sent, ok, tool


def one(effect: str = "at_most_once") -> dict[str, Any]:
    return {"name": "one", "tools": {"do": tool(effect)}, "steps": {"s": {"tool": "do", "with": {"n": 1}}}}


async def test_locked_workflow_does_not_stop_the_others_of_its_batch(small_world: World) -> None:
    worker = await small_world.worker()
    ids = [await small_world.submit(one(), key=f"k{n}") for n in range(4)]
    async with await psycopg.AsyncConnection.connect(small_world.url) as holder:
        await holder.execute("SELECT 1 FROM workflows WHERE id = %s FOR UPDATE", (ids[0],))

        running = [asyncio.create_task(worker.run(call)) for call in await small_world.due_calls()]
        for _ in range(500):
            ended = await small_world.row("SELECT count(*) AS n FROM workflows WHERE status = 'succeeded'")
            if ended["n"] == 3:
                break
        await holder.rollback()
        await asyncio.gather(*running)

    assert ended["n"] == 3
    assert (await small_world.workflow(ids[0]))["status"] == "succeeded"


async def test_outcome_is_recorded_once_however_often_it_is_told(small_world: World) -> None:
    worker = await small_world.worker()
    workflow_id = await small_world.submit(one())
    [call_id] = await small_world.due_calls()
    claimed = await worker.claim(call_id)

    await record.record(worker.services, claimed, ok({"id": 1}))
    events = await small_world.events(workflow_id)
    await record.record(worker.services, claimed, ok({"id": 1}))

    assert await small_world.events(workflow_id) == events
    assert (await small_world.workflow(workflow_id))["effects_done"] == 1


async def test_connection_lost_at_commit_neither_loses_nor_doubles_the_outcome(small_world: World) -> None:
    worker = await small_world.worker()
    workflow_id = await small_world.submit(one())
    [call_id] = await small_world.due_calls()
    claimed = await worker.claim(call_id)
    async with worker.services.database.hot("record") as connection:
        await connection.execute("SELECT 1")
    await small_world.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'surefoot record' "
        "AND datname = current_database()"
    )

    await record.record(worker.services, claimed, ok({"id": 1}))

    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"


@pytest.mark.parametrize(
    ("outcome", "left"), [(ok(1), ["call of b"]), (not_sent(), ["call of a"])], ids=["goes-on", "repeated"]
)
async def test_outcome_that_arrives_while_a_sweep_makes_the_due_its_attempts_leaves_none_of_that(
    small_world: World, outcome: Outcome, left: list[str]
) -> None:
    """In one statement a record deletes the dues it sees; one that is just being made of another would stay, and be in
    the way of the next one of that call: every sweep would fail."""
    worker, other = await small_world.worker("one"), await small_world.worker("two")
    steps = {"a": {"tool": "do", "with": {"n": 1}}, "b": {"tool": "do", "with": {"n": 2}, "needs": ["a"]}}
    workflow_id = await small_world.submit(one("idempotent") | {"steps": steps})
    [call_id] = await small_world.due_calls()
    claimed = await worker.claim(call_id)
    await worker.services.plans.get(claimed.tenant_id, claimed.plan_digest)  # with it the record reads ahead
    await small_world.hurry()
    async with await psycopg.AsyncConnection.connect(small_world.url, row_factory=dict_row) as sweeping:
        await dues.in_flight(sweeping, limit=10, lease=60.0)
        recording = asyncio.create_task(record.record(worker.services, claimed, outcome))
        await until_waiting(small_world, 1, purpose="record")
        await sweeping.commit()
        await recording

    found = await small_world.rows(
        "SELECT d.kind || ' of ' || c.step AS what FROM dues d JOIN calls c ON c.id = d.ref WHERE d.workflow_id = %s",
        workflow_id,
    )
    assert [row["what"] for row in found] == left
    await small_world.hurry()
    assert (await other.claim((await small_world.due_calls())[0])) is not None


FULL_DISK = """
CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE disk_full; END $$;
CREATE TRIGGER full_disk BEFORE UPDATE ON steps FOR EACH ROW EXECUTE FUNCTION full_disk()"""


async def test_evidence_is_kept_when_the_decision_fails_and_decided_by_a_later_sweep(small_world: World) -> None:
    small_world.tools.script["do"] = [{"id": 7}]
    worker = await small_world.worker()
    workflow_id = await small_world.submit(one())
    [call_id] = await small_world.due_calls()
    await small_world.rows(FULL_DISK)

    await worker.run(call_id)
    between = await small_world.call(workflow_id, "s")
    attempt = await small_world.row("SELECT outcome, evidence FROM attempts")
    await small_world.rows("DROP TRIGGER full_disk ON steps")
    await small_world.rows("UPDATE dues SET ring_at = clock_timestamp() WHERE kind = 'apply'")
    await small_world.sweep(worker)

    assert (between["state"], attempt["outcome"]) == ("intended", "succeeded")
    assert (await small_world.step(workflow_id, "s"))["output"] == {"id": 7}
    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"
    assert len(small_world.tools.ledger) == 1
    assert await small_world.rows("SELECT * FROM dues") == []


async def test_late_answer_whose_decision_failed_settles_the_doubt_at_a_later_sweep(small_world: World) -> None:
    first, second = await small_world.worker("one"), await small_world.worker("two")
    workflow_id = await small_world.submit(one())
    [call_id] = await small_world.due_calls()

    async def lost_meanwhile() -> Any:
        await small_world.lose(first)
        await small_world.silence()
        await small_world.sweep(second)
        await small_world.rows(FULL_DISK)
        return ok({"id": 7})

    small_world.tools.script["do"] = [lambda _: lost_meanwhile()]
    await first.run(call_id)
    between = await small_world.call(workflow_id, "s")
    await small_world.rows("DROP TRIGGER full_disk ON steps")
    await small_world.rows("UPDATE dues SET ring_at = clock_timestamp() WHERE kind = 'apply'")
    await small_world.sweep(second)

    assert between["state"] == "in_doubt"
    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"
    assert (await small_world.step(workflow_id, "s"))["output"] == {"id": 7}
    assert await small_world.rows("SELECT * FROM dues") == []


async def test_outcome_of_an_attempt_that_is_not_there_leaves_nothing_to_decide(small_world: World) -> None:
    """The database was set back while it was on its way."""
    worker = await small_world.worker()
    workflow_id = await small_world.submit(one())
    [call_id] = await small_world.due_calls()
    claimed = await worker.claim(call_id)

    await record.record(worker.services, replace(claimed, attempt_id=UUID(int=9)), ok({"id": 1}))

    assert await small_world.rows("SELECT * FROM dues WHERE kind = 'apply'") == []
    assert (await small_world.call(workflow_id, "s"))["state"] == "intended"


async def test_several_outcomes_of_one_workflow_are_one_transaction(small_world: World) -> None:
    definition = {
        "name": "fan",
        "tools": {"do": tool("idempotent")},
        "steps": {
            "each": {"for_each": "${{ input.n }}", "max_parallel": 8, "tool": "do", "with": {"n": "${{ item }}"}}
        },
    }
    worker = await small_world.worker()
    workflow_id = await small_world.submit(definition, input={"n": list(range(8))})
    claimed = [await worker.claim(call) for call in await small_world.due_calls()]
    batch = [
        record.Settled(
            workflow_id=workflow_id,
            fact=CallSettled(call_id=c.call_id, attempt_id=c.attempt_id, step=c.step, outcome=ok(1)),
        )
        for c in claimed
    ]

    answers = await record.record_batch(worker.services, batch)

    assert answers == [None] * 8
    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"
    transactions = await small_world.row(
        "SELECT count(DISTINCT tx::text) AS n FROM events WHERE type = 'agent.tool.executed'"
    )
    assert transactions["n"] == 1


async def test_doorbells_that_nobody_heard_are_rung_by_the_sweep(small_world: World) -> None:
    worker = await small_world.worker()
    await small_world.submit(one())
    small_world.bell.rung.clear()

    early = await small_world.sweep(worker)
    await small_world.rows("UPDATE dues SET ring_at = clock_timestamp() WHERE kind = 'call'")
    late = await small_world.sweep(worker)
    again = await small_world.sweep(worker)

    assert (early.calls, len(late.calls), again.calls) == ([], 1, [])
    assert [ref for _, ref in small_world.bell.rung] == late.calls


async def test_sweep_does_not_let_one_tenant_stand_before_another(small_world: World) -> None:
    worker = await small_world.worker()
    await small_world.submit(one(), key="big")
    small = await small_world.submit(one(), key="small")
    await small_world.rows(
        "INSERT INTO dues (kind, ref, tenant_id, workflow_id, lane, due_at, ring_at) "
        "SELECT 'call', gen_random_uuid(), tenant_id, workflow_id, 'calls', "
        "due_at - interval '1 hour', ring_at - interval '9 s' "
        "FROM dues, generate_series(1, 50) WHERE kind = 'call' AND workflow_id <> %s",
        small,
    )
    await small_world.rows("UPDATE dues SET tenant_id = %s WHERE workflow_id = %s", UUID(int=9), small)
    await small_world.rows("UPDATE dues SET ring_at = clock_timestamp() - interval '1 s' WHERE kind = 'call'")

    swept = await sweep.sweep(worker.services, free_slots=1)

    assert (await small_world.call(small, "s"))["id"] in swept.calls
