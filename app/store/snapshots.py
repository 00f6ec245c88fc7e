"""A connection on which several reads see the database at one instant."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.database import Database


@asynccontextmanager
async def one_instant(database: Database) -> AsyncIterator[AsyncConnection]:
    """All reads see what was committed at the first one (REPEATABLE READ, read only)."""
    async with database.engine.connect() as connection:
        yield await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
