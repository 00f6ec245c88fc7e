"""What a record surely reads comes with the lock, in the same round trip, and is what it would have read under it."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import psycopg
import pytest
from uuid_utils.compat import uuid7

from app.domain.facts import CallSettled
from app.domain.reads import Reads
from app.engine import record
from app.engine.claim import Asked, later
from app.store import claims, locking
from tests.engine.locks import until_waiting
from tests.engine.test_intents_with_outcomes import submitted, two
from tests.engine.world import Worker, World, ok, one

PATIENCE = 20.0
EXPECTED = {
    "state": "succeeded",
    "attempts": 2,
    "status": "succeeded",
    "outcomes": ["succeeded", None],
    "moves": [None, "intended → due", "intended → succeeded"],
}


async def repeated(world: World) -> tuple[Worker, Any, Worker, UUID]:
    """A call whose first attempt is lost, with what its worker knows of it: it is due again."""
    first, second = await world.worker("first"), await world.worker("second")
    await world.submit(one("idempotent"))
    [call_id] = await world.due_calls()
    claimed = await first.claim(call_id)
    await first.services.plans.get(claimed.tenant_id, claimed.plan_digest)  # else nothing is read ahead
    await world.lose(first)
    await world.ripen(second, "call")
    await world.ripen(second, "attempt")
    await world.hurry()
    assert await world.due_calls() == [call_id]
    return first, claimed, second, call_id


async def claimed_meanwhile(world: World, *, at_once: bool) -> list[dict[str, Any]]:
    """A late answer is recorded while the repeat is claimed: before it, or by a transaction that is just open."""
    first, claimed, second, call_id = await repeated(world)
    asked = Asked(call_id=call_id, attempt_id=uuid7())
    async with second.services.database.hot("other") as connection:
        await connection.execute("BEGIN")
        await claims.told(await later(second.services, connection, [asked], worker=second.lease.worker_id))
        if not at_once:
            await connection.execute("COMMIT")
        recording = asyncio.create_task(record.record(first.services, claimed, ok({"id": 1})))
        if at_once:
            await until_waiting(world, 1, purpose="record")
            await connection.execute("COMMIT")
        await recording
    return await world.rows(
        "SELECT c.state, c.attempts, w.status, (SELECT array_agg(a.outcome ORDER BY a.n) FROM attempts a "
        "WHERE a.call_id = c.id) AS outcomes, (SELECT array_agg(e.from_state || ' → ' || e.to_state ORDER BY e.seq) "
        "FROM events e WHERE e.call_id = c.id) AS moves FROM calls c JOIN workflows w ON w.id = c.workflow_id"
    )


@pytest.mark.parametrize("at_once", [False, True])
async def test_late_answer_that_meets_a_claim_not_yet_committed_waits_and_sees_it(
    small_world: World, at_once: bool
) -> None:
    """Read without a lock the call would seem to be due still, and the attempt that is under way would be nobody's."""
    found = await claimed_meanwhile(small_world, at_once=at_once)

    assert found == [EXPECTED]


async def test_steps_and_calls_come_with_the_lock_but_for_those_that_a_claim_may_change(small_world: World) -> None:
    worker = await small_world.worker()
    workflow_id, call_id = await submitted(small_world, two())
    ahead = {workflow_id: Reads(steps={"first", "second"}, calls={call_id})}
    made = []
    for _ in range(2):
        async with worker.services.database.hot("other") as connection, connection.pipeline():
            found, _ = await locking.snapshots(connection, [workflow_id], skip_locked=True, ahead=ahead)
        made.append(found[workflow_id])
        await worker.claim(call_id)

    due, intended = made
    assert (set(due.steps), set(due.calls)) == ({"first", "second"}, set())
    assert (set(intended.steps), set(intended.calls)) == ({"first", "second"}, {call_id})
    assert intended.calls[call_id].state == "intended"


async def test_nothing_of_a_workflow_that_somebody_holds_is_waited_for_or_kept(small_world: World) -> None:
    worker = await small_world.worker()
    workflow_id, call_id = await submitted(small_world, two())
    await worker.claim(call_id)
    ahead = {workflow_id: Reads(steps={"first"}, calls={call_id})}
    async with await psycopg.AsyncConnection.connect(small_world.url) as holder:
        await holder.execute("SELECT FROM workflows WHERE id = %s FOR UPDATE", (workflow_id,))
        await holder.execute("UPDATE calls SET attempts = attempts WHERE id = %s", (call_id,))

        async with worker.services.database.hot("other") as connection, connection.pipeline():
            found = await asyncio.wait_for(
                locking.snapshots(connection, [workflow_id], skip_locked=True, ahead=ahead), PATIENCE
            )

    assert found == ({}, None)


async def test_record_reads_ahead_what_its_plan_says_when_it_is_at_hand(small_world: World) -> None:
    worker = await small_world.worker()
    _, call_id = await submitted(small_world, two())
    claimed = await worker.claim(call_id)
    fact = CallSettled(call_id=call_id, attempt_id=claimed.attempt_id, step="first", outcome=ok({"n": 1}))

    before = record.ahead(worker.services, claimed, fact)
    await worker.services.plans.get(claimed.tenant_id, claimed.plan_digest)
    after = record.ahead(worker.services, claimed, fact)

    assert (before.steps, before.calls) == (set(), set())
    assert (after.steps, after.calls) == ({"first", "second"}, {call_id})
