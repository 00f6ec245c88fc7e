"""A process that stands still inside a transaction does not keep its rows: the server ends its session."""

from __future__ import annotations

import asyncio

import psycopg

from app.engine import transactions
from app.store import dues
from app.store.database import Database
from tests.engine.world import World, one

PATIENCE = 20.0


async def limit_of(database: Database, purpose: str) -> str:
    async with database.hot(purpose) as connection:
        cursor = await connection.execute("SELECT current_setting('transaction_timeout') AS limit")
        row = await cursor.fetchone()
        assert row is not None
        return str(row["limit"])


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
