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

GONE: Final = frozenset({"57P01", "57P02", "57P03", "53300", "25006"})
"""SQLSTATEs of a server that goes, comes, is full of connections, or is not the primary (any more); class 08 beside
them, and errors without a state: the driver's own about a broken connection. A full disk or a statement's timeout is
also an OperationalError, and not among them: the same work again would meet it again."""

TRIES: Final = 5
PAUSE: Final = 0.05
"""Seconds before the second try, doubled each time."""

AWAY_PAUSE: Final = 0.2
LONGEST_AWAY_PAUSE: Final = 5.0
"""Seconds between two tries of what must not be given up while the database is away."""


def lost(error: BaseException) -> bool:
    """Whether the error speaks of the connection or the server, not of the work."""
    if isinstance(error, errors.TransactionTimeout):
        return True  # the server has ended the session of who stood still, and the transaction with it
    if not isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return False
    return error.sqlstate is None or error.sqlstate.startswith("08") or error.sqlstate in GONE


async def run(
    database: Database,
    purpose: str,
    work: Callable[[Connection], Awaitable[Result]],
    *,
    size: int = 1,
    tries: int = TRIES,
    one_statement: bool = False,
) -> Result:
    """`one_statement`: what `work` writes is one statement, a transaction by itself; it has returned when that is
    committed, and saves BEGIN, COMMIT and a round trip."""
    pause = PAUSE
    for last in range(tries):
        try:
            async with database.hot(purpose, size=size) as connection:
                return await (work(connection) if one_statement else _transaction(connection, work))
        except psycopg.Error as error:
            if last == tries - 1 or not (isinstance(error, AGAIN) or lost(error)):
                raise
            log.info("transaction.again", purpose=purpose, error=str(error)[:200], after=pause)
        await asyncio.sleep(pause)
        pause *= 2
    raise AssertionError("unreachable: the last try returns or raises")


async def _transaction(connection: Connection, work: Callable[[Connection], Awaitable[Result]]) -> Result:
    """BEGIN, the work and COMMIT in one pipeline, so that only what is read waits for an answer.

    The driver's own `transaction()` synchronizes five times around the work; on the hot path that was more than half
    of all round trips.
    """
    try:
        async with connection.pipeline():
            await connection.execute("BEGIN", prepare=False)
            result = await work(connection)
            end = await connection.execute("COMMIT", prepare=False)  # pg_stat_statements counts no prepared one
    except Exception:
        if not connection.closed:
            await connection.rollback()
        raise
    if end.statusmessage != "COMMIT":  # Postgres answers ROLLBACK, and no error, to the COMMIT of what has failed
        raise RuntimeError(f"a transaction ended with {end.statusmessage}")
    return result
