"""The rows of workers: what proves a death, and what does not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.rows import dict_row

from app.store import workers
from app.store.workers import Machine, Registration

HERE = Machine(host="here", boot_id="boot-1")
LEASE = timedelta(seconds=15)

Database = psycopg.Connection[dict[str, Any]]


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    with psycopg.connect(database_url, autocommit=True, row_factory=dict_row) as connection:
        yield connection


def test_parent_makes_every_incarnation_of_the_process_lost_when_it_reaped_it(database: Database) -> None:
    first, second = _register(database, pid=7), _register(database, pid=7)

    dead = workers.reaped(database, host="here", boot_id="boot-1", pid=7)

    assert set(dead) == {first, second}
    assert _row(database, first)["lost_at"] is not None
    assert _row(database, first)["reaped_at"] is not None


@pytest.mark.parametrize("other", [{"host": "there"}, {"boot_id": "boot-2"}, {"pid": 8}])
def test_parent_touches_no_other_process_when_it_reaped_one(database: Database, other: dict[str, Any]) -> None:
    worker = _register(database, pid=7)
    process: dict[str, Any] = {"host": "here", "boot_id": "boot-1", "pid": 7} | other

    dead = workers.reaped(database, **process)

    assert dead == []
    assert _row(database, worker)["lost_at"] is None


def test_parent_leaves_a_worker_alone_when_it_had_stopped_before(database: Database) -> None:
    worker = _register(database, pid=7)
    workers.stopped(database, worker)

    dead = workers.reaped(database, host="here", boot_id="boot-1", pid=7)

    assert dead == []
    assert _row(database, worker)["lost_at"] is None


def test_parent_keeps_the_first_time_when_a_worker_was_called_lost_before(database: Database) -> None:
    worker = _register(database, pid=7)
    database.execute("UPDATE workers SET lost_at = 'epoch' WHERE id = %s", [worker])

    workers.reaped(database, host="here", boot_id="boot-1", pid=7)

    row = _row(database, worker)
    assert row["lost_at"].year == 1970
    assert row["reaped_at"] is not None


def test_parent_finds_only_the_new_process_when_a_process_id_was_used_again(database: Database) -> None:
    first = _register(database, pid=7)
    workers.reaped(database, host="here", boot_id="boot-1", pid=7)
    reaped_at = _row(database, first)["reaped_at"]
    second = _register(database, pid=7)

    dead = workers.reaped(database, host="here", boot_id="boot-1", pid=7)

    assert dead == [second]
    assert _row(database, first)["reaped_at"] == reaped_at


def test_beat_extends_the_lease_when_the_worker_is_not_lost(database: Database) -> None:
    worker = _register(database, pid=7)
    before = _row(database, worker)["lease_until"]

    beat = workers.beat(database, worker, lease=LEASE)

    assert beat is not None
    assert beat.revoked == frozenset()
    assert _row(database, worker)["lease_until"] > before


@pytest.mark.parametrize("end", ["lost_at", "stopped_at"])
def test_beat_is_refused_when_the_worker_has_ended(database: Database, end: str) -> None:
    worker = _register(database, pid=7)
    database.execute(f"UPDATE workers SET {end} = clock_timestamp()")
    before = _row(database, worker)["lease_until"]

    beat = workers.beat(database, worker, lease=LEASE)

    assert beat is None
    assert _row(database, worker)["lease_until"] == before


def test_beat_revokes_an_attempt_when_its_call_is_gone(database: Database) -> None:
    worker, attempt = _register(database, pid=7), uuid4()

    beat = workers.beat(database, worker, lease=LEASE, attempts=[(uuid4(), attempt)])

    assert beat is not None
    assert beat.revoked == {attempt}


def test_stop_is_not_recorded_when_the_worker_was_lost(database: Database) -> None:
    worker = _register(database, pid=7)
    workers.reaped(database, host="here", boot_id="boot-1", pid=7)

    assert workers.stopped(database, worker) is False
    assert _row(database, worker)["stopped_at"] is None


def _register(database: Database, *, pid: int) -> UUID:
    registration = Registration(id=uuid4(), name="worker.1", machine=HERE, pid=pid, slots=1, engine_version=1)
    workers.register(database, registration, lease=LEASE)
    return registration.id


def _row(database: Database, worker: UUID) -> dict[str, Any]:
    row = database.execute("SELECT * FROM workers WHERE id = %s", [worker]).fetchone()
    assert row is not None
    return row
