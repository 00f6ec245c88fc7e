"""The loop of a worker process and its sweeper, without Redis and without Postgres."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import pytest
import structlog

from app.domain.states import Lane
from app.ports.bell import TASK_NAMES
from worker.celery_app import Drain, NothingOpen, build_app
from worker.loop import EventLoop
from worker.pool import TaskPool
from worker.sweeper import Sweeper
from worker.tasks import Verb, add_tasks

PATIENCE = 20.0
"""Seconds a condition may take on a busy machine before it is called false."""


@dataclass(frozen=True, kw_only=True)
class Due:
    calls: list[UUID] = field(default_factory=list)
    deliveries: list[UUID] = field(default_factory=list)


@dataclass(kw_only=True)
class Rows:
    """A sweep that finds what the test says; the first of them may fail."""

    due: Due
    failures: int = 0
    asked: list[int] = field(default_factory=list)
    swept: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    async def __call__(self, *, free_slots: int) -> Due:
        self.asked.append(free_slots)
        self.swept.release()
        if len(self.asked) <= self.failures:
            raise ConnectionError("the database is away")
        return self.due


@dataclass(kw_only=True)
class Performed:
    """Calls that begin and then wait for the end of the test."""

    began: list[UUID] = field(default_factory=list)
    one: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    async def __call__(self, ref: UUID) -> None:
        self.began.append(ref)
        self.one.release()
        await asyncio.Event().wait()


@dataclass(kw_only=True)
class Effect:
    """One call that was sent and waits for its answer."""

    began: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    answered: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, ref: UUID) -> None:
        self.began.release()
        await self.answered.wait()


@dataclass(kw_only=True)
class OpenDeadline:
    """A drain in which the effect may still be answered for a minute, however long it has been asked."""

    asked: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def begin(self) -> None:
        return

    def seconds_open(self) -> float:
        self.asked.release()
        return 60.0


@pytest.fixture
def event_loop() -> Iterator[EventLoop]:
    loop = EventLoop()
    loop.start()
    yield loop
    loop.close()


@pytest.fixture
def calls() -> Performed:
    return Performed()


@pytest.fixture
def pool(event_loop: EventLoop, calls: Performed) -> Iterator[TaskPool]:
    pool = _pool_with(event_loop, calls, NothingOpen())
    yield pool
    pool.terminate()


def sweeper(rows: Rows, *, away: bool) -> Sweeper:
    return Sweeper(
        sweep=rows,
        broker_away=lambda: away,
        interval=0.01,
        concurrency=2,
        delivery_concurrency=1,
        chance=lambda: 0.5,
    )


def test_sweeper_feeds_only_as_much_as_there_is_room_when_the_broker_is_away(
    event_loop: EventLoop, pool: TaskPool, calls: Performed
) -> None:
    due = Due(calls=[uuid4() for _ in range(5)], deliveries=[uuid4() for _ in range(5)])
    rows = Rows(due=due)
    under_test = sweeper(rows, away=True)

    event_loop.run(under_test.start(pool))
    _acquire(calls.one, times=3)
    _acquire(rows.swept, times=5)

    event_loop.run(under_test.stop())
    assert sorted(calls.began) == sorted([*due.calls[:2], due.deliveries[0]])
    assert rows.asked[0] == 2
    assert rows.asked[-1] == 0


def test_sweeper_feeds_nothing_when_the_broker_answers(event_loop: EventLoop, pool: TaskPool, calls: Performed) -> None:
    rows = Rows(due=Due(calls=[uuid4()]))
    under_test = sweeper(rows, away=False)

    event_loop.run(under_test.start(pool))
    _acquire(rows.swept, times=3)

    event_loop.run(under_test.stop())
    assert calls.began == []


def test_sweeper_sweeps_again_when_a_sweep_failed(event_loop: EventLoop, pool: TaskPool, calls: Performed) -> None:
    rows = Rows(due=Due(calls=[uuid4()]), failures=2)
    under_test = sweeper(rows, away=True)

    event_loop.run(under_test.start(pool))
    _acquire(calls.one, times=1)

    event_loop.run(under_test.stop())
    assert len(rows.asked) >= 3


def test_pool_cancels_what_is_left_when_no_deadline_is_open(
    event_loop: EventLoop, pool: TaskPool, calls: Performed
) -> None:
    pool.feed(TASK_NAMES[Lane.CALLS], str(uuid4()))
    _acquire(calls.one, times=1)

    pool.on_terminate()

    assert pool.forced == 1
    assert pool.running(TASK_NAMES[Lane.CALLS]) == 0


def test_pool_waits_beyond_its_grace_when_a_deadline_is_open(event_loop: EventLoop) -> None:
    effect, drain = Effect(), OpenDeadline()
    pool = _pool_with(event_loop, effect, drain)
    pool.feed(TASK_NAMES[Lane.CALLS], str(uuid4()))
    _acquire(effect.began, times=1)
    stopping = threading.Thread(target=pool.on_stop)

    stopping.start()
    _acquire(drain.asked, times=20)
    event_loop.submit(effect.answered.set)
    stopping.join(PATIENCE)

    assert not stopping.is_alive()
    assert pool.forced == 0


def test_pool_cancels_by_force_when_no_deadline_is_open_and_the_grace_is_over(
    event_loop: EventLoop, pool: TaskPool, calls: Performed
) -> None:
    pool.feed(TASK_NAMES[Lane.CALLS], str(uuid4()))
    _acquire(calls.one, times=1)

    pool.on_stop()

    assert pool.forced == 1


def test_pool_refuses_a_task_when_it_has_a_celery_time_limit(pool: TaskPool) -> None:
    request: dict[str, Any] = {"args": [str(uuid4())]}

    with pytest.raises(ValueError, match="deadlines are the engine's"):
        pool.on_apply(None, (TASK_NAMES[Lane.CALLS], "id", request), timeout=3)


def test_loop_says_who_blocks_it_when_it_is_late(event_loop: EventLoop) -> None:
    blocked = threading.Event()

    with structlog.testing.capture_logs() as logs:
        event_loop.submit(_block_the_loop, blocked)
        for _ in range(1000):
            if logs or blocked.wait(PATIENCE / 1000):
                break
        blocked.set()

    assert logs[0]["event"] == "event_loop_blocked"
    assert "_block_the_loop" in logs[0]["stack"]


def test_loop_ends_when_a_task_is_left_on_it() -> None:
    loop = EventLoop()
    loop.start()
    before = threading.active_count()
    loop.run(_leave_a_task())

    loop.close()

    assert threading.active_count() == before - 2


def _pool_with(event_loop: EventLoop, verb: Verb, drain: Drain) -> TaskPool:
    app = build_app(
        "redis://nowhere",
        concurrency=2,
        delivery_concurrency=1,
        event_loop=event_loop,
        drain=drain,
        grace=0.05,
    )
    add_tasks(app, perform=verb, deliver=verb)
    pool = TaskPool(2, app=app)
    pool.start()
    return pool


def _block_the_loop(released: threading.Event) -> None:
    released.wait(PATIENCE)


async def _leave_a_task() -> None:
    asyncio.get_running_loop().create_task(asyncio.Event().wait(), name="left")


def _acquire(semaphore: threading.Semaphore, *, times: int) -> None:
    for _ in range(times):
        assert semaphore.acquire(timeout=PATIENCE)


def test_loop_goes_on_when_a_task_of_a_tool_raises_exit() -> None:
    async def child() -> None:
        raise SystemExit(3)

    async def tool() -> str:
        raised = await asyncio.gather(asyncio.create_task(child()), return_exceptions=True)
        return repr(raised[0])

    async def other() -> str:
        return "still here"

    loop = EventLoop()
    loop.start()
    try:
        told = loop.run(asyncio.wait_for(tool(), PATIENCE))

        assert told == "SystemExit(3)"
        assert loop.run(asyncio.wait_for(other(), PATIENCE)) == "still here"
    finally:
        loop.close()
