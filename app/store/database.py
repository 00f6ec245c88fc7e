"""Connections to Postgres: one SQLAlchemy engine per process, the driver under it for the hot path.

`reading()` gives a connection for reads (READ COMMITTED, autocommit); `transaction()` is opened by `engine` only.
`hot()` gives a dedicated psycopg connection with prepared statements, one per purpose, kept open.
"""

from __future__ import annotations

import asyncio
import json
import select
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row
from psycopg.types.json import set_json_loads
from pydantic_core import from_json
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

HOT_OPTIONS = {
    # The hot statements join a handful of given ids against tables of any size: the only right plan is a nested
    # loop over primary keys, whatever the statistics say at the moment a plan is cached.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}


# An intent must be on disk before a byte leaves: a server (or a role) that defaults to less is overruled, one that
# defaults to more is not.
_DURABLE = """SELECT set_config('synchronous_commit', 'on', false)
WHERE current_setting('synchronous_commit') IN ('off', 'local')"""

# A process that stands still inside a transaction (a frozen machine, SIGSTOP) would hold its rows until it goes on. The
# time limits of statements and of idleness do not see it: in a pipeline the session counts as active, and waits for
# the client. Postgres has the limit that does since 17.
_ENDING = """SELECT set_config('transaction_timeout', '60s', %(here)s)
WHERE current_setting('server_version_num')::int >= 170000"""

PATIENT = frozenset({"record-alone"})
"""Purposes whose transactions wait for a lock as long as it takes: what they hold is evidence. Once they have it they
are `bounded`, as all others are from their beginning."""

BATCHES = frozenset({"record", "sweep"})
"""Purposes whose transactions are about many workflows. Those that somebody has locked they pass over; what is shared
with others beside them (the due of a webhook's stream, a business key) is waited for; who holds it may stand still."""
BATCH_WAIT = 2.0
"""Seconds that a batch waits for a lock: then each of its workflows goes alone, and only one of them waits. More than
any transaction takes, so that nobody is split up for nothing."""


def session_options(*, statement_timeout: float) -> dict[str, str]:
    return {
        "timezone": "UTC",
        "idle_in_transaction_session_timeout": "60s",
        "statement_timeout": f"{int(statement_timeout * 1000)}ms",
        "tcp_user_timeout": "20s",
        "application_name": "surefoot",
    }


def _options(settings: dict[str, str]) -> str:
    return " ".join(f"-c {name}={value}" for name, value in settings.items() if name != "application_name")


class Database:
    def __init__(self, url: str, *, pool_size: int = 8, statement_timeout: float = 30.0) -> None:
        """`url` in libpq form, `postgresql://…` (a socket directory goes into `?host=`)."""
        self.url = url
        self._session = session_options(statement_timeout=statement_timeout)
        parsed = make_url(url).set(drivername="postgresql+psycopg")
        self.engine: AsyncEngine = create_async_engine(
            parsed,
            pool_size=pool_size,
            max_overflow=pool_size,
            pool_pre_ping=True,
            pool_timeout=5,
            connect_args={"options": _options(self._session), "application_name": "surefoot", "connect_timeout": 5},
        )
        self._hot: dict[str, list[psycopg.AsyncConnection[dict[str, Any]]]] = {}
        self._room: dict[str, asyncio.Semaphore] = {}

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        async with self.engine.connect() as connection:
            yield await connection.execution_options(isolation_level="AUTOCOMMIT")

    @asynccontextmanager
    async def hot(self, purpose: str, *, size: int = 1) -> AsyncIterator[psycopg.AsyncConnection[dict[str, Any]]]:
        """A driver connection of that purpose, alone, in autocommit mode; at most `size` of them at once.

        It is thrown away if the block raises a connection's error or is cancelled: nobody knows where it stands.
        """
        room = self._room.setdefault(purpose, asyncio.Semaphore(size))
        async with room:
            idle = self._hot.setdefault(purpose, [])
            connection = idle.pop() if idle else None
            while connection is not None and _ended(connection):
                await connection.close()
                connection = idle.pop() if idle else None
            if connection is None:
                connection = await self._connect(purpose)
            kept = False
            try:
                yield connection
                kept = True
            except psycopg.Error:
                kept = not connection.closed and connection.info.transaction_status == TransactionStatus.IDLE
                raise
            finally:
                if kept:
                    idle.append(connection)
                else:
                    await connection.close()

    async def _connect(self, purpose: str) -> psycopg.AsyncConnection[dict[str, Any]]:
        settings = self._session | HOT_OPTIONS
        if purpose in BATCHES:
            settings |= {"lock_timeout": f"{int(BATCH_WAIT * 1000)}ms"}
        connection = await psycopg.AsyncConnection.connect(
            self.url,
            autocommit=True,
            row_factory=dict_row,
            prepare_threshold=0,
            connect_timeout=5,
            application_name=f"surefoot {purpose}",
            options=_options(settings),
        )
        set_json_loads(_read_json, connection)
        await connection.execute(_DURABLE)
        if purpose not in PATIENT:
            await connection.execute(_ENDING, {"here": False})
        return connection

    async def close(self) -> None:
        for idle in self._hot.values():
            for connection in idle:
                await connection.close()
        self._hot.clear()
        await self.engine.dispose()


async def bounded(connection: psycopg.AsyncConnection[dict[str, Any]]) -> None:
    """From now on this transaction has as long as any other: it has the lock it waited for, and others wait for it."""
    await connection.execute(_ENDING, {"here": True})


def _read_json(text: str | bytes) -> Any:
    """What the standard library makes of it, seven times as quick for the many small documents of a row. What that
    parser does not take (half of a surrogate pair, 200 levels and more), the standard library's does."""
    try:
        return from_json(text)
    except ValueError:
        return json.loads(text)


def _ended(connection: psycopg.AsyncConnection[dict[str, Any]]) -> bool:
    """Whether an idle connection is of no use any more, without asking the server.

    The only thing there is to read on an idle connection is the server's farewell (or its end): it was restarted, or
    ended this session. Found out at the first statement instead, it would cost whoever has no second try.
    """
    if connection.closed:
        return True
    look = select.poll()
    look.register(connection.fileno(), select.POLLIN)
    return bool(look.poll(0))
