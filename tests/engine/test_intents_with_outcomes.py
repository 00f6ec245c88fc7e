"""The next call of a workflow is claimed by the transaction that records the one before it, and never lost between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest

from app.domain import ids
from app.domain.facts import CallSettled
from app.domain.outcomes import Outcome
from app.domain.states import AttemptOutcome, Lane
from app.engine import claim, follow, record, switch
from app.ports.world import ToolRequest
from tests.engine.cut_wire import COMMITTED, wire_to
from tests.engine.locks import until_waiting
from tests.engine.pools import Pool, pool_of
from tests.engine.world import Worker, World, ok, tool, world

AWAY = 2.0
"""Seconds: longer than the tries of one transaction take together."""


@pytest.fixture
async def near(database_url: str) -> AsyncIterator[World]:
    """The world that looks at the database directly."""
    async with world(database_url) as made:
        yield made


def two(effect: str = "at_most_once") -> dict[str, Any]:
    steps = {"first": {"tool": "do", "with": {"n": 1}}, "second": {"tool": "do", "with": {"n": 2}, "needs": ["first"]}}
    return {"name": "two", "tools": {"do": tool(effect)}, "steps": steps}


async def submitted(world: World, definition: dict[str, Any]) -> tuple[UUID, UUID]:
    """A workflow, and its only call that is due."""
    workflow_id = await world.submit(definition)
    [call_id] = await world.due_calls()
    world.bell.rung.clear()
    return workflow_id, call_id


async def second(world: World) -> dict[str, Any]:
    found: dict[str, Any] = await world.row(
        "SELECT c.id, c.state, c.attempts, a.worker, a.outcome FROM calls c "
        "LEFT JOIN attempts a ON a.call_id = c.id AND a.id = c.attempt_id WHERE c.step = 'second'"
    )
    return found


async def test_next_call_is_claimed_by_the_transaction_that_records_the_one_before(small_world: World) -> None:
    worker = await small_world.worker()
    pool = pool_of(worker)
    _, first = await submitted(small_world, two())

    await worker.run(first)

    intended = await second(small_world)
    assert (intended["state"], intended["attempts"], intended["worker"]) == ("intended", 1, worker.lease.worker_id)
    assert (pool.taken, pool.offered, small_world.bell.rung) == ([intended["id"]], [], [])
    assert pool.after == [[first]]
    same = await small_world.row(
        "SELECT count(DISTINCT x) AS n FROM (SELECT a.xmin::text AS x FROM attempts a WHERE a.call_id = %s "
        "UNION ALL SELECT e.xmin::text FROM events e WHERE e.call_id = %s AND e.to_state = 'succeeded') AS written",
        intended["id"],
        first,
    )
    assert same == {"n": 1}


async def test_call_that_was_claimed_with_the_record_is_sent_once_however_often_it_is_rung(small_world: World) -> None:
    worker, other = await small_world.worker(), await small_world.worker("other")
    pool = pool_of(worker)
    workflow_id, first = await submitted(small_world, two())
    await worker.run(first)
    [next_call] = pool.taken

    await other.run(next_call)
    await worker.run(next_call)
    await worker.run(next_call)

    assert [request.arguments["n"] for request in small_world.tools.ledger] == [1, 2]
    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"
    assert worker.services.ready == {}


async def test_whole_workflow_goes_on_in_one_place_without_a_bell(small_world: World) -> None:
    steps = {f"s{n}": {"tool": "do", "with": {"n": n}, "needs": [f"s{n - 1}"] if n else []} for n in range(6)}
    worker = await small_world.worker()
    pool = pool_of(worker)
    workflow_id, first = await submitted(small_world, {"name": "six", "tools": {"do": tool("keyed")}, "steps": steps})

    await worker.run(first)
    await pool.run(worker)

    assert [request.arguments["n"] for request in small_world.tools.ledger] == list(range(6))
    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"
    assert small_world.bell.rung == []


async def test_branches_beside_the_one_that_goes_on_here_are_rung_for(small_world: World) -> None:
    branches = {name: {"tool": "do", "with": {"n": 1}, "needs": ["first"]} for name in ("a", "b", "c")}
    document = {**two(), "steps": {"first": {"tool": "do", "with": {"n": 0}}, **branches}}
    worker = await small_world.worker()
    pool = pool_of(worker)
    _, first = await submitted(small_world, document)

    await worker.run(first)

    assert (len(pool.taken), len(small_world.bell.rung), pool.offered) == (1, 2, [])
    assert {lane for lane, _ in small_world.bell.rung} == {Lane.CALLS}
    assert {ref for _, ref in small_world.bell.rung} == set(await small_world.due_calls())


@pytest.mark.parametrize("why", ["no place", "draining"])
async def test_nothing_is_claimed_with_the_record_where_it_could_not_run_next(small_world: World, why: str) -> None:
    worker = await small_world.worker()
    pool = pool_of(worker, places=why != "no place", room=False)
    _, first = await submitted(small_world, two())
    claimed = await worker.claim(first)
    if why == "draining":
        worker.lease.draining.set()

    await record.record(worker.services, claimed, ok({"n": 1}))

    left = await second(small_world)
    assert (left["state"], left["attempts"], pool.taken) == ("due", 0, [])
    assert small_world.bell.rung == [(Lane.CALLS, left["id"])]


async def test_switch_that_stands_before_the_next_call_holds_it(small_world: World) -> None:
    worker = await small_world.worker()
    pool = pool_of(worker)
    _, first = await submitted(small_world, two())
    claimed = await worker.claim(first)
    await switch.hold(small_world.api, ids.DEFAULT_TENANT, scope="tool:do", by="kim", reason="look at it first")

    await record.record(worker.services, claimed, ok({"n": 1}))
    assert (pool.taken, len(pool.offered)) == ([], 1)
    await worker.run(pool.offered[0])

    held = await second(small_world)
    assert (held["state"], held["attempts"]) == ("held", 0)
    assert small_world.tools.ledger == []


async def test_call_claimed_with_a_record_is_not_sent_under_another_incarnation(small_world: World) -> None:
    """The worker is called lost meanwhile, and goes on under a new name: the attempt of the old one is over."""
    worker = await small_world.worker()
    pool = pool_of(worker)
    workflow_id, first = await submitted(small_world, two())
    await worker.run(first)
    await small_world.lose(worker)
    for _ in range(2):  # the first finds out and takes another name; from the second on that may send
        await worker.lease.beat()
    assert worker.lease.may_send()

    await pool.run(worker)

    tried = await small_world.rows(
        "SELECT a.n, a.outcome FROM attempts a JOIN calls c ON c.id = a.call_id WHERE c.step = 'second' ORDER BY a.n"
    )
    assert [(row["n"], row["outcome"]) for row in tried] == [(1, "not_sent"), (2, "succeeded")]
    assert [request.arguments["n"] for request in small_world.tools.ledger] == [1, 2]
    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"


async def test_call_claimed_by_a_process_that_then_begins_to_drain_is_given_back(small_world: World) -> None:
    worker, other = await small_world.worker(), await small_world.worker("other")
    pool = pool_of(worker)
    workflow_id, first = await submitted(small_world, two())
    await worker.run(first)
    worker.lease.draining.set()

    await pool.run(worker)
    assert len(small_world.tools.ledger) == 1
    await small_world.run(other)

    assert [request.arguments["n"] for request in small_world.tools.ledger] == [1, 2]
    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"


@pytest.mark.parametrize("away", [0.0, AWAY])
async def test_record_whose_commit_reply_is_lost_performs_what_it_had_claimed(
    database_url: str, near: World, away: float
) -> None:
    """Also when the database is away for longer than one transaction is tried: the outcome is recorded anew, and by
    then it makes nothing due any more."""
    workflow_id, first = await submitted(near, two())
    async with wire_to(database_url) as (wire, url), world(url) as far:
        far.tools = near.tools
        worker = await far.worker(lease_url=database_url)
        pool = pool_of(worker)
        claimed = await worker.claim(first)
        wire.away = away
        wire.cut_at(COMMITTED)

        await record.record(worker.services, claimed, ok({"n": 1}))
        await pool.run(worker)

        assert wire.cuts == 1
    assert [request.arguments["n"] for request in near.tools.ledger] == [2]
    assert await near.row("SELECT count(*) AS n FROM attempts") == {"n": 2}
    assert (await near.workflow(workflow_id))["status"] == "succeeded"


async def test_record_that_finds_its_workflow_locked_at_the_second_try_performs_what_it_had_claimed(
    database_url: str, near: World
) -> None:
    """The first try has committed and its reply is lost; at the second somebody holds the workflow, so that its outcome
    is recorded alone, and makes nothing due any more."""
    workflow_id, first = await submitted(near, two())

    async def hold(holder: psycopg.AsyncConnection[Any]) -> None:
        await holder.execute("SELECT FROM workflows WHERE id = %s FOR UPDATE", (workflow_id,))
        await until_waiting(near, 1, purpose="record-alone")

    await recorded_at_the_second_try(database_url, near, first, meanwhile=hold)

    assert [request.arguments["n"] for request in near.tools.ledger] == [2]
    assert await near.row("SELECT count(*) AS n FROM attempts") == {"n": 2}


async def test_record_whose_batch_breaks_at_the_second_try_performs_what_it_had_claimed(
    database_url: str, near: World
) -> None:
    """The first try has committed and its reply is lost; the second breaks for another reason, and each outcome of its
    batch is recorded alone."""
    _, first = await submitted(near, two())

    async def end_its_statement(holder: psycopg.AsyncConnection[Any]) -> None:
        await holder.execute("LOCK TABLE attempts IN ACCESS EXCLUSIVE MODE")
        await until_waiting(near, 1, purpose="record")
        await holder.execute(
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'surefoot record' "
            "AND datname = current_database() AND wait_event_type = 'Lock'"
        )
        await until_waiting(near, 1, purpose="record-alone")

    await recorded_at_the_second_try(database_url, near, first, meanwhile=end_its_statement)

    assert [request.arguments["n"] for request in near.tools.ledger] == [2]
    assert await near.row("SELECT count(*) AS n FROM attempts") == {"n": 2}


async def test_look_at_what_an_earlier_try_claimed_is_repeated_while_somebody_holds_the_call(
    database_url: str, near: World
) -> None:
    """A sweep holds a call's row for a moment. Not found then, it was nobody's until its deadline."""
    worker = await near.worker()
    pool = pool_of(worker)
    workflow_id, first = await submitted(near, two())
    await worker.run(first)
    [next_call] = pool.taken
    ready = worker.services.ready.pop(next_call)
    pool.taken.clear()
    asked = claim.Asked(call_id=next_call, attempt_id=ready.claimed.attempt_id)
    outcome = Outcome(certainty=AttemptOutcome.SUCCEEDED)
    fact = CallSettled(call_id=first, attempt_id=asked.attempt_id, step="first", outcome=outcome)
    item = follow.Settled(workflow_id=workflow_id, fact=fact)
    item.intents[next_call] = follow.Intent(asked=asked, worker_id=ready.worker_id, at=ready.before_claim)

    async with await psycopg.AsyncConnection.connect(database_url) as holder:
        await holder.execute("SELECT FROM calls WHERE id = %s FOR UPDATE", (next_call,))
        held = await near.row("SELECT clock_timestamp() AS since")
        looking = asyncio.create_task(follow.look_again(worker.services, [item], looks=1_000))
        await until_asked_in_vain(near, held["since"])
        assert pool.taken == []
    await looking

    assert pool.taken == [next_call]


async def until_asked_in_vain(near: World, since: datetime) -> None:
    """A claim has been answered since then."""
    async with asyncio.timeout(30):
        while True:
            asked = await near.row(
                "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() "
                "AND application_name = 'surefoot claim' AND state = 'idle' AND query_start > %s",
                since,
            )
            if asked["n"]:
                return


async def recorded_at_the_second_try(
    database_url: str,
    near: World,
    call_id: UUID,
    *,
    meanwhile: Callable[[psycopg.AsyncConnection[Any]], Awaitable[None]],
) -> None:
    """The outcome of the call is recorded over a wire that is cut at its COMMIT; from the cut on `meanwhile` has a
    transaction of its own. Then what was handed over is performed."""
    async with wire_to(database_url) as (wire, url), world(url) as far:
        far.tools = near.tools
        worker = await far.worker(lease_url=database_url)
        pool = pool_of(worker)
        claimed = await worker.claim(call_id)
        wire.away = 0.3
        wire.cut_at(COMMITTED)

        async def from_the_cut_on() -> None:
            await wire.cut.wait()
            async with await psycopg.AsyncConnection.connect(near.url) as holder:
                await meanwhile(holder)

        beside = asyncio.create_task(from_the_cut_on())
        await record.record(worker.services, claimed, ok({"n": 1}))
        await beside
        await pool.run(worker)


@dataclass(kw_only=True)
class PoolAtWork(Pool):
    """Runs at once what it takes, as a worker's pool does."""

    worker: Worker
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def take(self, call_id: UUID, after: Sequence[UUID]) -> None:
        self.tasks.append(asyncio.create_task(self.worker.run(call_id)))


async def test_call_that_is_on_its_way_is_not_begun_again_when_its_outcome_is_recorded_alone_afterwards(
    database_url: str, near: World
) -> None:
    """The second try finds the workflow locked and its own claim committed: it begins the call, and the outcome goes
    alone. When that is through, the call's attempt is still ours and not answered."""
    workflow_id, first = await submitted(near, two())
    sent, answered = asyncio.Event(), asyncio.Event()

    async def slow(_: ToolRequest) -> Any:
        sent.set()
        await answered.wait()
        return ok({"n": 2})

    near.tools.script["do"] = [slow, slow]
    async with wire_to(database_url) as (wire, url), world(url) as far:
        far.tools = near.tools
        worker = await far.worker(lease_url=database_url)
        pool = PoolAtWork(worker=worker)
        worker.services.feed = pool
        claimed = await worker.claim(first)
        wire.away = 0.3
        wire.cut_at(COMMITTED)

        async def hold_until_it_is_sent() -> None:
            await wire.cut.wait()
            async with await psycopg.AsyncConnection.connect(near.url) as holder:
                await holder.execute("SELECT FROM workflows WHERE id = %s FOR UPDATE", (workflow_id,))
                await until_waiting(near, 1, purpose="record-alone")
                await sent.wait()

        beside = asyncio.create_task(hold_until_it_is_sent())
        await record.record(worker.services, claimed, ok({"n": 1}))
        await beside
        answered.set()
        await asyncio.gather(*pool.tasks)

    assert [request.arguments["n"] for request in near.tools.ledger] == [2]
    assert len(pool.tasks) == 1
    assert (await near.workflow(workflow_id))["status"] == "succeeded"
