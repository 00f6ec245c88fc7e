"""A group of workers: alive, their deaths proven, drained as long as something is on the wire."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest

from app.domain import ids
from app.domain.states import ENGINE_VERSION
from app.embedded import process, worker_group
from app.embedded.refusal import CannotStart
from app.embedded.supervisor import Death, Supervisor
from app.embedded.worker_group import WorkerGroup
from app.store import workers

pytestmark = pytest.mark.anyio

PART = str(Path(__file__).with_name("stand_in_part.py"))
REPOSITORY = Path(__file__).parents[2]


def group_on(url: str, *, pids: Path, count: int = 2) -> WorkerGroup:
    environment = {**os.environ, "SUREFOOT_DATABASE_URL": url, "PIDS": str(pids), "PYTHONPATH": str(REPOSITORY)}
    return WorkerGroup(count=count, database_url=url, environment=environment, argv=(sys.executable, PART, "worker"))


def in_flight(url: str, *, effect: str, seconds: float, pid: int) -> UUID:
    """A call that a worker process of this machine has claimed, as the claim leaves it. The call's id."""
    workflow, call, attempt, worker = uuid4(), uuid4(), uuid4(), uuid4()
    with psycopg.connect(url, autocommit=True) as connection:
        workers.register(
            connection,
            workers.Registration(
                id=worker,
                name="worker.1",
                machine=workers.this_machine(),
                pid=pid,
                slots=1,
                engine_version=ENGINE_VERSION,
            ),
            lease=timedelta(seconds=60),
        )
        connection.execute("SET session_replication_role = replica")  # the rows above them do not matter here
        connection.execute(
            """
            INSERT INTO calls (tenant_id, workflow_id, id, step, n, kind, tool, args_sha256, effect, state, attempt_id,
                               attempts, request, timeout_ms, settle_ms, lane, engine_version, created_at)
            VALUES (%s, %s, %s, 'invite.0', 1, 'tool', 'email.send', '', %s, 'intended', %s,
                    1, '{}', 1000, 1000, 'calls', 1, clock_timestamp())
            """,
            [ids.DEFAULT_TENANT, workflow, call, effect, attempt],
        )
        connection.execute(
            """
            INSERT INTO attempts (tenant_id, workflow_id, call_id, id, n, worker, intended_at, send_deadline)
            VALUES (%s, %s, %s, %s, 1, %s, clock_timestamp(), clock_timestamp() + %s)
            """,
            [ids.DEFAULT_TENANT, workflow, call, attempt, worker, timedelta(seconds=seconds)],
        )
        connection.execute(
            """
            INSERT INTO dues (tenant_id, kind, ref, workflow_id, lane, due_at, ring_at, worker)
            VALUES (%s, 'attempt', %s, %s, 'calls', clock_timestamp() + %s, clock_timestamp() + %s, %s)
            """,
            [ids.DEFAULT_TENANT, call, workflow, *[timedelta(seconds=seconds + 5)] * 2, worker],
        )
    return call


async def test_group_is_at_work_when_every_worker_has_a_row_and_ends_when_asked(
    database_url: str, tmp_path: Path
) -> None:
    said: list[str] = []
    group = group_on(database_url, pids=tmp_path)
    supervisor, stopping = Supervisor(died=group.died), asyncio.Event()

    def say(_: str, line: str) -> None:
        said.append(line)
        if line == "2 workers are at work":
            stopping.set()

    async with asyncio.timeout(40):
        await worker_group.run_workers(group=group, say=say, stopping=stopping, supervisor=supervisor)

    assert said == ["2 workers are at work"]
    started = [int(name) for name in os.listdir(tmp_path)]
    assert len(started) == 2
    assert not any(process.alive(pid) for pid in started)


async def test_group_proves_the_death_when_a_worker_died(database_url: str, tmp_path: Path) -> None:
    in_flight(database_url, effect="keyed", seconds=30, pid=4_000_001)
    in_flight(database_url, effect="keyed", seconds=30, pid=4_000_002)
    group = group_on(database_url, pids=tmp_path)

    await group.died(Death(name="worker.1", pid=4_000_001, code=-signal.SIGKILL))
    await group.died(Death(name="redis", pid=4_000_002, code=-signal.SIGKILL))

    with psycopg.connect(database_url) as connection:
        found = connection.execute("SELECT pid, reaped_at IS NOT NULL FROM workers ORDER BY pid").fetchall()
    assert found == [(4_000_001, True), (4_000_002, False)]


async def test_group_drains_as_long_as_its_own_sends_may_take(database_url: str, tmp_path: Path) -> None:
    in_flight(database_url, effect="read_only", seconds=20, pid=4_000_001)
    in_flight(database_url, effect="read_only", seconds=500, pid=4_000_009)
    group = group_on(database_url, pids=tmp_path)

    ours = await group.drain_seconds({"worker.1": 4_000_001})
    nothing = await group.drain_seconds({"worker.1": 4_000_005, "api": 4_000_009})

    assert 22 < ours <= 25
    assert nothing == worker_group.DRAIN_MARGIN


@pytest.mark.parametrize(
    ("effect", "named"), [("at_most_once", True), ("checkable", True), ("keyed", False), ("read_only", False)]
)
async def test_group_names_the_effects_when_it_kills_a_worker(
    effect: str, named: bool, database_url: str, tmp_path: Path
) -> None:
    call = in_flight(database_url, effect=effect, seconds=20, pid=4_000_001)
    said: list[str] = []

    await group_on(database_url, pids=tmp_path).before_kill(
        "worker.1", 4_000_001, say=lambda _, line: said.append(line)
    )

    assert [ids.encode("call", call) in line and "email.send" in line for line in said] == ([True] if named else [])


async def test_start_is_refused_with_five_when_the_database_does_not_answer(
    tmp_path: Path, until: Callable[..., None]
) -> None:
    said: list[str] = []

    with pytest.raises(CannotStart) as refusal:
        await worker_group.await_database(
            f"postgresql:///nothing?host={tmp_path}", say=lambda _, line: said.append(line), seconds=0.6
        )

    assert refusal.value.exit_code == 5
    assert "SUREFOOT_DATABASE_URL" in refusal.value.fix
    assert len(said) == 1
    assert "No such file" in said[0]
    assert "Is the server running" not in said[0]
