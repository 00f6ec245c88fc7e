"""The API on a real loopback port, over the real engine and a database of its own. Only the bell is a fake: no worker
listens, so what a submission starts stays due.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

import httpx
import pytest
import uvicorn

from app.domain.states import Lane
from app.domain.transitions import Rules
from app.engine.plans import Plans
from app.engine.services import Services
from app.main import create_app
from app.ports.outbound import OutboundPolicy
from app.settings import Settings
from app.store.database import Database
from tests.api import rows
from tests.engine.world import World
from tests.engine.world import world as engine_world


@dataclass(kw_only=True)
class SilentBell:
    broker_away: bool = False
    rung: list[tuple[Lane, Sequence[UUID]]] = field(default_factory=list)

    def ring(self, lane: Lane, ids: Sequence[UUID]) -> None:
        self.rung.append((lane, ids))


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database(database_url, pool_size=4)
    await rows.tenant(opened)
    yield opened
    await opened.close()


@pytest.fixture
async def key(database: Database) -> rows.Key:
    return await rows.key(database)


@pytest.fixture
async def bell() -> SilentBell:
    return SilentBell()


def services_over(database: Database, bell: SilentBell) -> Services:
    return Services(
        settings=Settings(body_limit=64 * 1024, twin_wait=0.2),
        database=database,
        bell=bell,
        plans=Plans(database),
        rules=Rules(),
        outbound=OutboundPolicy.parse(""),
    )


@pytest.fixture
async def services(database: Database, bell: SilentBell) -> Services:
    return services_over(database, bell)


@pytest.fixture
async def stopping() -> asyncio.Event:
    return asyncio.Event()


@asynccontextmanager
async def listening(services: Services, *, stopping: asyncio.Event) -> AsyncIterator[str]:
    """The API on a free port; gives its URL."""
    app = create_app(services, stopping=stopping)
    # With its protocol named: asyncio turns Nagle's delay off only then, and each answer would take 40 ms more.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", ws="none"))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            stopping.set()
            server.should_exit = True
            await serving


@pytest.fixture
async def base_url(services: Services, stopping: asyncio.Event) -> AsyncIterator[str]:
    """Where the API listens."""
    async with listening(services, stopping=stopping) as url:
        yield url


@pytest.fixture
async def api(base_url: str, key: rows.Key) -> AsyncIterator[httpx.AsyncClient]:
    """A client with a key that may do everything."""
    async with httpx.AsyncClient(base_url=base_url, headers=key.header, timeout=20, trust_env=False) as client:
        yield client


@pytest.fixture
async def world(database_url: str, key: rows.Key) -> AsyncIterator[World]:
    """Workers with scripted tools on the API's own database; `key` has made the tenant."""
    async with engine_world(database_url) as made:
        yield made
