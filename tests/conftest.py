"""What every test may ask for: a Postgres database of its own, a Redis of its own, one event loop's flavour.

Real servers from wheels, one pair per test process (so that `pytest -n` needs no lock between processes), started by
the first test that asks and stopped by pid at the end. The migrations run once, into a template; a test's database is
a copy of it (about 30 ms) and is dropped with whatever still hangs on to it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import psycopg
import pytest
import redis

from app.embedded import homes
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.valkey import EmbeddedValkey
from app.store import migrating

TEMPLATE = "template_surefoot"
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """asyncio: what Celery's pool, psycopg and uvicorn run on here."""
    return "asyncio"


@pytest.fixture(scope="session")
def embedded_postgres() -> Iterator[EmbeddedPostgres]:
    """The server all databases of this test process live in. Do not stop it: start one of your own for that."""
    with homes.temporary_home() as home:
        server = EmbeddedPostgres(home / "postgres")
        try:
            server.start()
            yield server
        finally:
            server.stop()
            server.remove()


@pytest.fixture(scope="session")
def embedded_valkey() -> Iterator[EmbeddedValkey]:
    """The Redis of this test process. Do not stop it: start one of your own for that."""
    with homes.temporary_home() as home:
        server = EmbeddedValkey(home / "valkey")
        try:
            server.start()
            yield server
        finally:
            server.stop()
            server.remove()


@pytest.fixture(scope="session")
def database_template(embedded_postgres: EmbeddedPostgres) -> str:
    """The name of a database at the newest revision, empty otherwise. Nobody may stay connected to it."""
    migrating.upgrade(embedded_postgres.ensure_database(TEMPLATE))
    return TEMPLATE


@pytest.fixture(scope="session")
def _new_database(embedded_postgres: EmbeddedPostgres) -> Iterator[Callable[[str], str]]:
    """Makes a database from a template and returns its name."""
    with psycopg.connect(embedded_postgres.url, autocommit=True) as connection:

        def make(template: str) -> str:
            name = f"test_{next(_numbers)}"
            # Through the log: for 8 MB half as long as copying files, which takes two checkpoints.
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY wal_log")
            return name

        yield make


@pytest.fixture
def database_url(
    embedded_postgres: EmbeddedPostgres, database_template: str, _new_database: Callable[[str], str]
) -> Iterator[str]:
    """A migrated database of this test's own, in libpq form."""
    name = _new_database(database_template)
    yield embedded_postgres.url_of(name)
    _drop(embedded_postgres, name)


@pytest.fixture
def empty_database_url(embedded_postgres: EmbeddedPostgres, _new_database: Callable[[str], str]) -> Iterator[str]:
    """A database without any table."""
    name = _new_database("template0")
    yield embedded_postgres.url_of(name)
    _drop(embedded_postgres, name)


@pytest.fixture
def redis_url(embedded_valkey: EmbeddedValkey) -> Iterator[str]:
    """An empty Redis, in redis-py form; emptied again afterwards."""
    with redis.Redis.from_url(embedded_valkey.url) as client:
        client.flushall()
        yield embedded_valkey.url
        client.flushall()


def _drop(server: EmbeddedPostgres, name: str) -> None:
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
