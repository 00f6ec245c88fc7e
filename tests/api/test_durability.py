"""Weak durability of the database is said, and our own commits are durable all the same."""

from __future__ import annotations

import psycopg

from app.store import durability
from app.store.database import Database


async def weaken(url: str) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        name = (await (await connection.execute("SELECT current_database()")).fetchone() or [""])[0]
        await connection.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")


async def test_durable_database_has_no_weaknesses(database_url: str) -> None:
    database = Database(database_url)

    async with database.reading() as connection:
        found = await durability.weaknesses(connection)
    await database.close()

    assert found == []


async def test_weak_commit_is_named_and_overruled_on_our_own_connections(database_url: str) -> None:
    await weaken(database_url)
    database = Database(database_url)

    async with database.reading() as connection:
        found = await durability.weaknesses(connection)
    async with database.hot("claim") as driver:
        row = await (await driver.execute("SELECT current_setting('synchronous_commit') AS level")).fetchone()
    await database.close()

    assert ["synchronous_commit=off" in sentence for sentence in found] == [True]
    assert row == {"level": "on"}
