"""Where the verbs meet on real Postgres: an arena and its connections, what a deed is, how two of them cross."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from app.engine.advance import advance
from app.errors import SurefootError
from tests.domain.machine_memory import LEASE
from tests.domain.machine_verbs import Asked, Refused
from tests.engine.machine_rows import Beside
from tests.engine.world import World

Result = TypeVar("Result")

_WAITING: Final = (
    "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


@dataclass(kw_only=True)
class Deed:
    """One verb, on either side. `real` says whether it was not refused."""

    workflow_id: UUID
    real: Callable[[], Awaitable[bool]]
    model: Callable[[], Any]
    skips: bool = False
    """What finds the workflow locked lets it be, and comes again."""
    prepare: Callable[[], Coroutine[Any, Any, None]] | None = None
    """Before anybody holds a lock."""


@dataclass(kw_only=True)
class Arena:
    """One database, an operator and two workers, each with connections of its own: for all examples of a test."""

    url: str
    runner: asyncio.Runner = field(default_factory=asyncio.Runner)

    def __enter__(self) -> Arena:
        self.world = World(self.url, lease=LEASE.total_seconds(), breaker_failures=0, retry_burst=1_000_000)
        self.workers = [self.run(self.world.worker(f"machine.{n}")) for n in (1, 2)]
        self.beside, self.watch = (Beside(connection=self.run(self._wire())) for _ in range(2))
        self.models = dict(self.world.settings.models)
        return self

    def __exit__(self, *error: object) -> None:
        for each in (self.beside, self.watch):
            self.run(each.connection.close())
        self.run(self.world.close())
        self.runner.close()

    async def _wire(self) -> psycopg.AsyncConnection[Any]:
        return await psycopg.AsyncConnection.connect(self.url, autocommit=True, row_factory=dict_row)

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self.runner.run(work)


@dataclass(kw_only=True)
class Crossing:
    arena: Arena
    first: Asked
    judge: Any
    reads_for: Any
    second: Deed
    locked: bool = False

    async def run(self, *, commits: bool) -> tuple[bool, Any]:
        """Whether the second was not refused; when the first decided, None if it was refused itself."""
        services, before = self.arena.workers[1].services, None
        async with services.database.hot("crossing", size=1) as connection:
            await connection.execute("BEGIN")
            facts = {self.first.workflow_id: [self.reads_for]}
            try:
                advanced = await advance(services, connection, facts, make=self.judge)
                before = advanced.transitions[0].workflow.updated_at if advanced.transitions else None
            except Refused:
                self.locked = True
            second = asyncio.ensure_future(self.second.real())
            await self._until_it_waits(second)
            self.locked = True
            await connection.execute("COMMIT" if commits and before is not None else "ROLLBACK")
        return await second, before

    async def _until_it_waits(self, second: asyncio.Future[bool]) -> None:
        waiting = (
            "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        while not second.done():
            [row] = await self.arena.beside.rows(waiting)
            if row["n"]:
                return


async def awaited(real: Callable[[], Awaitable[bool]]) -> bool:
    return await real()


async def done(work: Awaitable[Any]) -> bool:
    await work
    return True


async def refusable(work: Awaitable[Any]) -> bool:
    try:
        await work
    except SurefootError:
        return False
    return True
