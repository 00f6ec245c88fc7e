"""The lease: when a worker may send, and what it learns from its heartbeat. Real Postgres, a clock of our own."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.rows import dict_row

from app.engine.lease import Lease
from tests.worker.rows import insert_call

PATIENCE = 20.0
"""Seconds a condition may take on a busy machine before it is called false."""

pytestmark = pytest.mark.anyio


@dataclass(kw_only=True)
class Clock:
    """Boot time as the test says."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass(kw_only=True)
class Revocations:
    """What the lease told an attempt."""

    reasons: list[str] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)

    def __call__(self, reason: str) -> None:
        self.reasons.append(reason)
        self.came.set()


@pytest.fixture
def database(database_url: str) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    with psycopg.connect(database_url, autocommit=True, row_factory=dict_row) as connection:
        yield connection


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def lease(database_url: str, clock: Clock) -> AsyncIterator[Lease]:
    """Beats every 20 ms; 15 s long, margin 2 s, on a clock that stands still."""
    lease = make_lease(database_url, clock)
    await lease.start()
    yield lease
    await lease.stop()


def make_lease(database_url: str, clock: Callable[[], float], *, heartbeat: float = 0.02) -> Lease:
    return Lease(database_url, name="worker.1", slots=7, lease=15.0, heartbeat=heartbeat, margin=2.0, clock=clock)


async def test_worker_may_not_send_before_its_lease_began(database_url: str, clock: Clock) -> None:
    lease = make_lease(database_url, clock)

    assert not lease.may_send()
    assert not lease.may_claim()


async def test_worker_has_a_row_and_may_send_when_its_lease_has_begun(
    lease: Lease, database: psycopg.Connection[dict[str, Any]]
) -> None:
    row = _row(database, lease.worker_id)

    assert lease.may_send()
    assert lease.may_claim()
    assert (row["name"], row["slots"]) == ("worker.1", 7)
    assert row["lease_until"] > row["beat_at"]
    assert lease.worker_id.version == 7


async def test_worker_may_not_send_when_no_beat_was_acknowledged_for_lease_minus_margin(
    database_url: str, clock: Clock
) -> None:
    lease = make_lease(database_url, clock, heartbeat=3600)
    await lease.start()

    clock.now += 12.9
    before = lease.may_send()
    clock.now += 0.2
    after = lease.may_send(), lease.may_claim()

    await lease.stop()
    assert before is True
    assert after == (False, False)


async def test_worker_counts_its_lease_from_before_the_beat_was_sent_when_the_answer_is_slow(database_url: str) -> None:
    times = itertools.chain([1000.0], itertools.repeat(1013.1))
    lease = make_lease(database_url, lambda: next(times), heartbeat=3600)

    await lease.start()
    allowed = lease.may_send()

    await lease.stop()
    assert allowed is False


async def test_worker_may_not_send_when_its_beat_hangs(
    database_url: str, database: psycopg.Connection[dict[str, Any]], clock: Clock
) -> None:
    lease = make_lease(database_url, clock)
    await lease.start()
    with psycopg.connect(database_url) as other, other.transaction():
        other.execute("SELECT 1 FROM workers WHERE id = %s FOR UPDATE", [lease.worker_id])
        await _until(lambda: _waits_for_lock(database))

        clock.now += 13.1
        hanging = lease.may_send()

    await lease.stop()
    assert hanging is False


async def test_worker_beats_again_when_its_connection_was_cut(
    lease: Lease, database: psycopg.Connection[dict[str, Any]]
) -> None:
    pid = _lease_pid(database)
    before = _row(database, lease.worker_id)["beat_at"]

    database.execute("SELECT pg_terminate_backend(%s)", [pid])

    await _until(lambda: _lease_pid(database) not in (None, pid))
    await _until(lambda: _row(database, lease.worker_id)["beat_at"] > before)
    assert lease.may_send()


async def test_worker_becomes_another_when_it_was_called_lost(
    lease: Lease, database: psycopg.Connection[dict[str, Any]]
) -> None:
    lost, attempt = lease.worker_id, uuid4()
    told = Revocations()
    lease.opened(insert_call(database, attempt=attempt), attempt, told)

    database.execute("UPDATE workers SET lost_at = clock_timestamp() WHERE id = %s", [lost])

    await asyncio.wait_for(told.came.wait(), PATIENCE)
    await _until(lease.may_send)
    assert lease.worker_id != lost
    assert _row(database, lease.worker_id)["lost_at"] is None
    assert not lease.may_send(attempt)


async def test_worker_may_send_the_attempts_of_this_incarnation_when_it_became_another(
    lease: Lease, database: psycopg.Connection[dict[str, Any]]
) -> None:
    lost, late = lease.worker_id, uuid4()
    database.execute("UPDATE workers SET lost_at = clock_timestamp() WHERE id = %s", [lost])
    await _until(lambda: lease.worker_id != lost and lease.may_send())
    fresh = uuid4()

    lease.opened(uuid4(), late, Revocations(), worker_id=lost)
    lease.opened(uuid4(), fresh, Revocations(), worker_id=lease.worker_id)

    assert lease.may_send(fresh)
    assert not lease.may_send(late)


async def test_worker_tells_an_attempt_when_it_no_longer_stands_at_the_fence(
    lease: Lease, database: psycopg.Connection[dict[str, Any]]
) -> None:
    kept, revoked = uuid4(), uuid4()
    told, untold = Revocations(), Revocations()
    lease.opened(insert_call(database, attempt=kept), kept, untold)
    call = insert_call(database, attempt=revoked)
    lease.opened(call, revoked, told)

    database.execute("UPDATE calls SET attempt_id = NULL, state = 'due' WHERE id = %s", [call])

    await asyncio.wait_for(told.came.wait(), PATIENCE)
    assert told.reasons[0] == "revoked"
    assert untold.reasons == []


async def test_worker_does_not_send_an_attempt_when_it_was_closed(lease: Lease) -> None:
    attempt = uuid4()
    lease.opened(uuid4(), attempt, Revocations())
    open_before = lease.may_send(attempt)

    lease.closed(attempt)

    assert (open_before, lease.may_send(attempt)) == (True, False)


async def test_worker_does_not_beat_when_its_loop_is_stuck(
    lease: Lease, database: psycopg.Connection[dict[str, Any]]
) -> None:
    # This blocks the loop: the queries wait in the database, 15 heartbeats long each.
    _wait_in_database(database)
    first = _row(database, lease.worker_id)["beat_at"]
    _wait_in_database(database)
    second = _row(database, lease.worker_id)["beat_at"]

    assert first == second
    await _until(lambda: _row(database, lease.worker_id)["beat_at"] > second)


async def test_worker_claims_nothing_but_may_send_when_it_drains(lease: Lease) -> None:
    lease.draining.set()

    assert not lease.may_claim()
    assert lease.may_send()


async def test_worker_counts_the_seconds_to_its_last_deadline_when_it_drains(lease: Lease, clock: Clock) -> None:
    empty = lease.seconds_open()
    lease.opened(uuid4(), uuid4(), Revocations(), deadline=clock.now + 5)
    lease.opened(uuid4(), uuid4(), Revocations(), deadline=clock.now + 9)

    assert (empty, lease.seconds_open()) == (0.0, 9.0)


async def test_worker_says_that_it_stopped_when_it_ends(
    lease: Lease, database: psycopg.Connection[dict[str, Any]]
) -> None:
    await lease.stop()

    assert not lease.may_send()
    assert _row(database, lease.worker_id)["stopped_at"] is not None


async def test_worker_begins_its_lease_when_the_database_comes_late(empty_database_url: str, clock: Clock) -> None:
    lease = make_lease(empty_database_url, clock)
    await lease.start(within=0.1)
    early = lease.may_claim()

    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE calls (id uuid, attempt_id uuid, state text, kind text, workflow_id uuid, step text);"
            "CREATE TABLE workflows (id uuid, status text);"
            "CREATE TABLE steps (workflow_id uuid, path text, counters jsonb);"
            "CREATE TABLE workers (id uuid PRIMARY KEY, name text, host text, boot_id text, pid int, slots int,"
            " engine_version int, started_at timestamptz, beat_at timestamptz, lease_until timestamptz,"
            " lost_at timestamptz, stopped_at timestamptz)"
        )

    await _until(lease.may_claim)
    await lease.stop()
    assert early is False


async def _until(condition: Callable[[], bool]) -> None:
    """Wait for what the lease's thread does, letting the loop run (it beats only while the loop ticks)."""
    loop = asyncio.get_running_loop()
    until = loop.time() + PATIENCE
    while not condition():
        assert loop.time() < until, "the condition did not come true"
        await asyncio.wait([loop.run_in_executor(None, int)])


def _row(database: psycopg.Connection[dict[str, Any]], worker_id: UUID) -> dict[str, Any]:
    row = database.execute("SELECT * FROM workers WHERE id = %s", [worker_id]).fetchone()
    assert row is not None
    return row


def _lease_pid(database: psycopg.Connection[dict[str, Any]]) -> int | None:
    row = database.execute(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'surefoot lease' AND datname = current_database()"
    ).fetchone()
    return None if row is None else row["pid"]


def _waits_for_lock(database: psycopg.Connection[dict[str, Any]]) -> bool:
    row = database.execute(
        "SELECT 1 FROM pg_stat_activity WHERE application_name = 'surefoot lease' AND wait_event_type = 'Lock'"
        " AND datname = current_database()"
    ).fetchone()
    return row is not None


def _wait_in_database(database: psycopg.Connection[dict[str, Any]]) -> None:
    database.execute("SELECT pg_sleep(0.3)")
