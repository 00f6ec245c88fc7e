"""The schema's version: brings a database to the newest one, says where it is, says where it should be.

Promises: two processes that upgrade at once do it one after the other (an advisory lock of the session; the second
finds nothing left to do). A database newer than this code is refused with `SchemaNewer`, never touched.
Never runs on the application's connections: no pool, no statement timeout, its own lock timeout.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, NullPool, create_engine, make_url, text
from sqlalchemy.ext.asyncio import AsyncConnection

_LOCK: Final = 0x5375_7265_666F_6F74
"""The advisory lock's number: the letters of "Surefoot"."""

_LOCK_POLL: Final = 0.1
"""Seconds between two tries. Asked again and again rather than waited for inside Postgres: a statement that waits
holds a snapshot, and the other side's CREATE INDEX CONCURRENTLY would wait for that snapshot for ever."""

LOCK_PATIENCE: Final = 600.0
"""Seconds to wait for another process's migrations; a large table's index takes minutes."""


class SchemaNewer(RuntimeError):
    """The database was migrated by a newer release than this one."""


class SchemaBusy(RuntimeError):
    """Another process has been migrating for longer than `LOCK_PATIENCE`."""


def scripts() -> Path:
    """The folder of the installed `migrations` package."""
    spec = importlib.util.find_spec("migrations")
    if spec is None or spec.origin is None:
        raise RuntimeError("The package `migrations` is not installed beside `app`: install the whole distribution.")
    return Path(spec.origin).parent


@contextmanager
def connecting(url: str) -> Iterator[Connection]:
    """One connection of its own to `url` (libpq form), closed at the end."""
    engine = create_engine(
        make_url(url).set(drivername="postgresql+psycopg"),
        poolclass=NullPool,
        connect_args={"connect_timeout": 5, "application_name": "surefoot migrate"},
    )
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


@cache
def head() -> str:
    """The revision this code needs."""
    found = ScriptDirectory(str(scripts())).get_current_head()
    if found is None:
        raise RuntimeError("The package `migrations` holds no revision: the installation is incomplete.")
    return found


def current(url: str) -> str | None:
    """The revision the database is at; None if it was never migrated."""
    with connecting(url) as connection:
        return MigrationContext.configure(connection).get_current_revision()


async def read_current(connection: AsyncConnection) -> str | None:
    """The same over an open connection, for readiness checks."""
    if await connection.scalar(text("SELECT to_regclass('alembic_version')")) is None:
        return None
    found: str | None = await connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


async def version(connection: psycopg.AsyncConnection[dict[str, Any]]) -> str | None:
    """The same on a driver connection, inside a transaction of the engine."""
    there = await (await connection.execute("SELECT to_regclass('alembic_version') AS found")).fetchone()
    if there is None or there["found"] is None:
        return None
    row = await (await connection.execute("SELECT version_num FROM alembic_version")).fetchone()
    return None if row is None else str(row["version_num"])


def upgrade(url: str, revision: str = "head", *, patience: float = LOCK_PATIENCE) -> str:
    """Brings the database to `revision` and returns the revision it is at then. Blocks: call it before a loop runs.

    Raises SchemaNewer, SchemaBusy after `patience` seconds, and SQLAlchemy's OperationalError while it does not answer.
    """
    with connecting(url) as connection, alone(connection, patience=patience):
        _refuse_newer(connection)
        command.upgrade(_config(connection), revision)
        return MigrationContext.configure(connection).get_current_revision() or ""


def downgrade(url: str, revision: str) -> None:
    """Takes migrations back, down to `revision` (`base` is an empty database). For development and tests."""
    with connecting(url) as connection, alone(connection):
        command.downgrade(_config(connection), revision)


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(scripts()).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _refuse_newer(connection: Connection) -> None:
    at = MigrationContext.configure(connection).get_current_revision()
    connection.rollback()
    if at is None:
        return
    try:
        ScriptDirectory(str(scripts())).get_revision(at)
    except CommandError as unknown:
        raise SchemaNewer(
            f"The database is at revision {at}, which this release does not know (its newest is {head()}). "
            "Run the release that migrated it, or a newer one."
        ) from unknown


@contextmanager
def alone(connection: Connection, *, patience: float = LOCK_PATIENCE) -> Iterator[None]:
    """Holds the advisory lock of migrations on that connection. Raises SchemaBusy after `patience` seconds."""
    give_up = time.monotonic() + patience
    while not connection.scalar(text("SELECT pg_try_advisory_lock(:number)"), {"number": _LOCK}):
        connection.rollback()
        if time.monotonic() > give_up:
            raise SchemaBusy(f"Another process has been migrating this database for {patience:.0f} s.")
        time.sleep(_LOCK_POLL)
    connection.rollback()
    try:
        yield
    finally:
        connection.rollback()
        connection.execute(text("SELECT pg_advisory_unlock(:number)"), {"number": _LOCK})
        connection.rollback()
