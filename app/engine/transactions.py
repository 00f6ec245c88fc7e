"""The one boundary: every transaction of Surefoot is opened here, by a verb of `engine`.

`run(database, purpose, work)` gives `work` a driver connection inside a transaction and commits when it returns. It
repeats the whole of `work` after a serialization failure, a deadlock, or a connection lost before COMMIT was sent; a
COMMIT whose reply is lost is repeated, too, because every piece of work guards itself (attempt ids, keys, states).
No port is called inside.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import psycopg
import structlog
from psycopg import errors

from app.store.database import Database

Connection = psycopg.AsyncConnection[dict[str, Any]]
Result = TypeVar("Result")

log = structlog.get_logger(__name__)

AGAIN: Final = (errors.SerializationFailure, errors.DeadlockDetected)
"""The database chose this transaction to give way: the same work again is right."""

GONE: Final = (psycopg.OperationalError, psycopg.InterfaceError)
"""The connection is lost or the server restarts (deadlocks are OperationalErrors, too, and caught before)."""

TRIES: Final = 5
PAUSE: Final = 0.05
"""Seconds before the second try, doubled each time."""


def lost(error: BaseException) -> bool:
    """Whether the error speaks of the connection or the server, not of the data."""
    return isinstance(error, GONE) and not isinstance(error, errors.DataError)


async def run(
    database: Database,
    purpose: str,
    work: Callable[[Connection], Awaitable[Result]],
    *,
    size: int = 1,
    tries: int = TRIES,
) -> Result:
    pause = PAUSE
    for last in range(tries):
        try:
            async with database.hot(purpose, size=size) as connection, connection.pipeline(), connection.transaction():
                return await work(connection)
        except (*AGAIN, *GONE) as error:
            if last == tries - 1:
                raise
            log.info("transaction.again", purpose=purpose, error=str(error)[:200], after=pause)
        await asyncio.sleep(pause)
        pause *= 2
    raise AssertionError("unreachable: the last try returns or raises")
