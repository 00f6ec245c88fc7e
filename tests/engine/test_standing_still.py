"""A process that stands still inside a transaction does not keep its rows: the server ends its session."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from uuid import UUID

import psycopg

from app.engine import transactions
from app.store import dues, locking
from app.store.database import Database
from tests.engine.world import World, one

PATIENCE = 20.0
HOOK = {"url": "https://hooks.example.com/x", "events": ["*"]}


async def limit_of(database: Database, purpose: str) -> str:
    async with database.hot(purpose) as connection:
        cursor = await connection.execute("SELECT current_setting('transaction_timeout') AS limit")
        row = await cursor.fetchone()
        assert row is not None
        return str(row["limit"])


async def until_ended(world: World, workflow: UUID) -> None:
    while (await world.workflow(workflow))["status"] != "succeeded":
        continue


async def until_somebody_waits(world: World) -> None:
    waits = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    while not await world.rows(waits):
        continue


async def test_transactions_are_bounded_but_those_that_wait_with_evidence(small_world: World) -> None:
    worker = await small_world.worker("one")

    limits = {p: await limit_of(worker.services.database, p) for p in ("claim", "record", "record-alone")}

    assert limits == {"claim": "1min", "record": "1min", "record-alone": "0"}


async def test_session_of_who_stands_still_in_a_pipeline_is_ended_and_its_work_is_done_again(
    small_world: World, database_url: str
) -> None:
    database, pids = (await small_world.worker("one")).services.database, []

    async def gone(pid: int) -> bool:
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as watching:
            row = await (await watching.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", (pid,))).fetchone()
        return row is None

    async def work(connection: transactions.Connection) -> int:
        pids.append(connection.info.backend_pid)
        if len(pids) == 1:  # stands still: not idle for Postgres, because a pipeline is open
            await (await connection.execute("SELECT 1 AS one")).fetchone()
            async with asyncio.timeout(PATIENCE):
                while not await gone(pids[0]):
                    continue
        cursor = await connection.execute("SELECT 2 AS two")
        row = await cursor.fetchone()
        assert row is not None
        return int(row["two"])

    async with database.hot("still") as connection:
        await connection.execute("SET transaction_timeout = '100ms'")

    assert await transactions.run(database, "still", work) == 2
    assert len(pids) == 2
    assert pids[0] != pids[1]


async def test_workflow_goes_on_with_another_worker_while_the_one_that_records_it_stands_still(
    small_world: World,
) -> None:
    still, other = await small_world.worker("still"), await small_world.worker("other")
    workflow = await small_world.submit(one("idempotent"))
    [call] = await small_world.due_calls()
    claimed, locked = await still.claim(call), asyncio.Event()
    async with still.services.database.hot("record") as connection:
        await connection.execute("SET transaction_timeout = '100ms'")

    async def stands_still(connection: transactions.Connection) -> None:
        await locking.lock(connection, [workflow])
        locked.set()
        await asyncio.Event().wait()

    standing = asyncio.create_task(transactions.run(still.services.database, "record", stands_still))
    await asyncio.wait_for(locked.wait(), PATIENCE)
    await small_world.lose(still)
    async with asyncio.timeout(PATIENCE):
        while (await small_world.workflow(workflow))["status"] != "succeeded":
            await small_world.ripen(other, "call")
            await small_world.ripen(other, "attempt")
            await small_world.run(other)

    assert not standing.done(), "it has never moved: its session was ended by the server"
    first, second = await small_world.rows("SELECT id, lost_at, worker FROM attempts ORDER BY n")
    assert (first["id"], first["lost_at"] is not None) == (claimed.attempt_id, True)
    assert second["worker"] == other.lease.worker_id
    standing.cancel()
    with suppress(asyncio.CancelledError):
        await standing


NOTING = """
CREATE TABLE noted (purpose text, bound text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO noted SELECT current_setting('application_name'), current_setting('transaction_timeout');
  RETURN NEW; END $$;
CREATE TRIGGER note BEFORE UPDATE ON workflows FOR EACH ROW EXECUTE FUNCTION note()"""


async def test_record_that_has_waited_for_its_lock_is_bounded_like_any_other_once_it_has_it(
    small_world: World, database_url: str
) -> None:
    worker = await small_world.worker("one")
    workflow = await small_world.submit(one("idempotent"))
    [call] = await small_world.due_calls()
    await small_world.rows(NOTING)
    async with await psycopg.AsyncConnection.connect(database_url) as holder:
        await holder.execute("SELECT FROM workflows WHERE id = %s FOR UPDATE", (workflow,))
        running = asyncio.create_task(worker.run(call))
        await asyncio.wait_for(until_somebody_waits(small_world), PATIENCE)
    await asyncio.wait_for(running, PATIENCE)

    assert (await small_world.workflow(workflow))["status"] == "succeeded"
    assert await small_world.rows("SELECT * FROM noted") == [{"purpose": "surefoot record-alone", "bound": "1min"}]
    assert await limit_of(worker.services.database, "record-alone") == "0"


async def test_batch_goes_on_without_the_workflow_whose_stream_a_delivery_holds_that_stands_still(
    small_world: World, database_url: str
) -> None:
    worker = await small_world.worker("one")
    held = await small_world.submit(one("idempotent"), key="held", webhook=HOOK)
    free = await small_world.submit(one("idempotent"), key="free")
    async with await psycopg.AsyncConnection.connect(database_url) as delivery:
        await delivery.execute("SELECT FROM dues WHERE kind = 'delivery' AND workflow_id = %s FOR UPDATE", (held,))

        batch = [asyncio.create_task(worker.run(call)) for call in await small_world.due_calls()]
        await asyncio.wait_for(until_ended(small_world, free), PATIENCE)

        assert (await small_world.workflow(held))["status"] == "running"
        await delivery.rollback()
        await asyncio.wait_for(asyncio.gather(*batch), PATIENCE)

    assert (await small_world.workflow(held))["status"] == "succeeded"


async def test_sweep_goes_on_without_the_workflow_whose_stream_a_delivery_holds_that_stands_still(
    small_world: World, database_url: str
) -> None:
    lost, other = await small_world.worker("lost"), await small_world.worker("other")
    held = await small_world.submit(one("at_most_once"), key="held", webhook=HOOK)
    free = await small_world.submit(one("at_most_once"), key="free")
    for call in await small_world.due_calls():
        await lost.claim(call)
    await small_world.lose(lost, proof=True)
    async with await psycopg.AsyncConnection.connect(database_url) as delivery:
        await delivery.execute("SELECT FROM dues WHERE kind = 'delivery' AND workflow_id = %s FOR UPDATE", (held,))

        await asyncio.wait_for(small_world.sweep(other), PATIENCE)

    states = [(await small_world.call(workflow, "s"))["state"] for workflow in (free, held)]
    assert states == ["in_doubt", "intended"]
    await small_world.ripen(other, "attempt")
    assert (await small_world.call(held, "s"))["state"] == "in_doubt"


async def test_rings_are_given_again_without_waiting_for_who_holds_a_due(small_world: World, database_url: str) -> None:
    worker = await small_world.worker("one")
    held = await small_world.submit(one("idempotent"), key="held")
    await small_world.submit(one("idempotent"), key="free")
    async with await psycopg.AsyncConnection.connect(database_url) as holder:
        await holder.execute("SELECT FROM dues WHERE workflow_id = %s FOR UPDATE", (held,))

        async with worker.services.database.hot("sweep") as connection:
            await asyncio.wait_for(dues.ring_again(connection), PATIENCE)

    ripe = "SELECT workflow_id = %s AS held FROM dues WHERE kind = 'call' AND ring_at <= clock_timestamp()"
    assert await small_world.rows(ripe, held) == [{"held": False}]
