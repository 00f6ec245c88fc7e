"""What `surefoot up` asks of the rooms below, as one `Verbs`: migrate, identify, register.

Imported by the command line only; `up.py` takes them as an argument.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.domain import api_keys
from app.embedded import schema, tools
from app.embedded.up import Identity, Verbs
from app.engine.bootstrapping import ensure_first_key, ensure_tenant
from app.engine.register_tools import register_tools
from app.store import tenant_views
from app.store.database import Database


async def identify(url: str, known: Identity | None) -> Identity:
    """The identity we had, if its key is still valid in that database; else a new key of the default tenant."""
    async with _database(url) as database:
        if known is not None and await _valid(database, known.key):
            return known
        key, webhook_secret = await ensure_tenant(database)
        return Identity(key=key, webhook_secret=webhook_secret)


async def first_key(url: str) -> str | None:
    """A key for a database that has none; None if there is one."""
    async with _database(url) as database:
        return await ensure_first_key(database)


async def register(url: str, tools_url: str) -> None:
    async with _database(url) as database:
        await register_tools(database, tools.declarations(tools_url))


async def _valid(database: Database, key: str) -> bool:
    try:
        parsed = api_keys.parse(key)
    except api_keys.MalformedKey:
        return False
    async with database.reading() as connection:
        found = await tenant_views.api_key(connection, public_id=parsed.public_id)
    return found is not None and api_keys.same_secret(found.sha256, parsed.sha256)


@asynccontextmanager
async def _database(url: str) -> AsyncIterator[Database]:
    database = Database(url, pool_size=1)
    try:
        yield database
    finally:
        await database.close()


VERBS = Verbs(migrate=schema.upgrade, identify=identify, register=register)
