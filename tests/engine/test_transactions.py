"""The one boundary: what fails leaves nothing behind, is never reported as done, and does not spoil the connection."""

from __future__ import annotations

from collections.abc import AsyncIterator

import psycopg
import pytest

from app.engine import transactions
from app.store.database import Database

COUNT = "SELECT count(*) AS n FROM tenants"
INSERT = "INSERT INTO tenants (id, name, signing_secrets) VALUES (gen_random_uuid(), 'x', '{secret}')"


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    made = Database(database_url, pool_size=1)
    yield made
    await made.close()


async def tenants(database: Database) -> int:
    async with database.hot("test") as connection:
        row = await (await connection.execute(COUNT)).fetchone()
    assert row is not None
    return int(row["n"])


async def test_transaction_commits_when_the_work_returns(database: Database) -> None:
    before = await tenants(database)

    async def work(connection: transactions.Connection) -> str:
        await connection.execute(INSERT)
        return "answer"

    assert await transactions.run(database, "test", work) == "answer"
    assert await tenants(database) == before + 1


async def test_transaction_leaves_nothing_when_the_last_statement_fails(database: Database) -> None:
    before = await tenants(database)

    async def work(connection: transactions.Connection) -> None:
        await connection.execute(INSERT)
        await connection.execute("SELECT 1 / 0")  # not fetched: the error comes with the COMMIT

    with pytest.raises(psycopg.errors.DivisionByZero):
        await transactions.run(database, "test", work)

    assert await tenants(database) == before


async def test_transaction_is_not_reported_as_done_when_the_work_hides_a_failure(database: Database) -> None:
    before = await tenants(database)

    async def work(connection: transactions.Connection) -> bool:
        await connection.execute(INSERT)
        try:
            await (await connection.execute("SELECT 1 / 0")).fetchall()
        except psycopg.errors.DivisionByZero:
            return False
        return True

    with pytest.raises(psycopg.Error):
        await transactions.run(database, "test", work)

    assert await tenants(database) == before


async def test_transaction_leaves_nothing_when_the_work_raises_an_error_of_ours(database: Database) -> None:
    before = await tenants(database)

    async def work(connection: transactions.Connection) -> None:
        await (await connection.execute(INSERT + " RETURNING id")).fetchall()
        raise LookupError("ours")

    with pytest.raises(LookupError, match="ours"):
        await transactions.run(database, "test", work)

    assert await tenants(database) == before


async def test_one_statement_is_committed_when_it_has_returned(database: Database, database_url: str) -> None:
    before = await tenants(database)
    seen: list[int] = []

    async def work(connection: transactions.Connection) -> None:
        await (await connection.execute(INSERT + " RETURNING id")).fetchall()
        async with await psycopg.AsyncConnection.connect(database_url) as other:
            row = await (await other.execute(COUNT)).fetchone()
            seen.append(row[0] if row else -1)

    await transactions.run(database, "test", work, one_statement=True)

    assert seen == [before + 1]
