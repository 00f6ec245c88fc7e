"""A call that takes the place, and the credit, of the one that made it due."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import pytest

from app.domain.states import Lane
from app.ports.bell import TASK_NAMES
from worker.celery_app import build_app
from worker.loop import EventLoop
from worker.pool import TaskPool
from worker.tasks import add_tasks

PATIENCE = 20.0
"""Seconds a condition may take on a busy machine before it is called false."""
LONG = 60.0
CALL = TASK_NAMES[Lane.CALLS]


@dataclass(kw_only=True)
class Calls:
    """Each begins and then waits until the test lets it end."""

    began: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    ends: dict[UUID, asyncio.Event] = field(default_factory=dict)

    async def __call__(self, ref: UUID) -> None:
        self.ends[ref] = asyncio.Event()
        self.began.release()
        await self.ends[ref].wait()

    def wait_for_one(self) -> None:
        assert self.began.acquire(timeout=PATIENCE)


@dataclass(kw_only=True)
class Consumer:
    """Celery's side: what its hub runs is run at once, and each credit that comes back is counted."""

    back: list[str] = field(default_factory=list)
    one: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def call_soon(self, callback: Callable[[], None]) -> None:
        callback()

    def credit(self, name: str) -> Callable[..., None]:
        def came_back(_: object) -> None:
            self.back.append(name)
            self.one.release()

        return came_back

    def wait_for_one(self) -> None:
        assert self.one.acquire(timeout=PATIENCE)


@dataclass(kw_only=True)
class Drain:
    """Says when it begins; a call is open as long as the test runs."""

    began: threading.Event = field(default_factory=threading.Event)

    def begin(self) -> None:
        self.began.set()

    def seconds_open(self) -> float:
        return LONG


@dataclass(kw_only=True)
class Worker:
    pool: TaskPool
    drain: Drain
    loop: EventLoop
    calls: Calls
    consumer: Consumer

    def message(self, ref: UUID, credit: str) -> None:
        self.pool.on_apply(None, (CALL, "id", {"args": [str(ref)]}), callback=self.consumer.credit(credit))
        self.calls.wait_for_one()

    def may_pass_on(self, ref: UUID, *, within: float = LONG) -> bool:
        async def asked() -> bool:
            return self.pool.may_pass_on(CALL, [str(uuid4()), str(ref)], within=within)

        return bool(self.loop.run(asked()))

    def follow(self, ref: UUID, after: UUID) -> None:
        async def followed() -> None:
            self.pool.follow(CALL, str(ref), after=[str(uuid4()), str(after)])

        self.loop.run(followed())
        self.calls.wait_for_one()

    def end(self, ref: UUID) -> None:
        async def ended() -> None:
            self.calls.ends[ref].set()
            await asyncio.sleep(0)

        self.loop.run(ended())

    def closing(self) -> None:
        assert self.drain.began.wait(PATIENCE)

    def running(self) -> int:
        async def asked() -> int:
            return self.pool.running(CALL)

        return int(self.loop.run(asked()))


@pytest.fixture
def worker() -> Iterator[Worker]:
    loop, calls, consumer, drain = EventLoop(), Calls(), Consumer(), Drain()
    loop.start()
    app = build_app(
        "redis://nowhere",
        concurrency=2,
        delivery_concurrency=1,
        event_loop=loop,
        drain=drain,
        grace=0.05,
    )
    add_tasks(app, perform=calls, deliver=calls)
    pool = TaskPool(2, app=app)
    pool.start()
    pool.register_with_event_loop(consumer)
    yield Worker(pool=pool, drain=drain, loop=loop, calls=calls, consumer=consumer)
    pool.terminate()
    loop.close()


def test_credit_comes_back_once_when_the_last_of_those_that_followed_has_ended(worker: Worker) -> None:
    first, second, third = uuid4(), uuid4(), uuid4()
    worker.message(first, "a")

    worker.follow(second, first)
    worker.end(first)
    worker.follow(third, second)
    worker.end(second)

    assert worker.consumer.back == []
    assert worker.running() == 1
    worker.end(third)
    worker.consumer.wait_for_one()
    assert worker.consumer.back == ["a"]


def test_no_place_is_passed_on_by_a_call_that_does_not_run_here(worker: Worker) -> None:
    gone, here = uuid4(), uuid4()
    worker.message(gone, "a")
    worker.end(gone)
    worker.consumer.wait_for_one()
    worker.message(here, "b")

    assert not worker.may_pass_on(gone)
    assert not worker.may_pass_on(uuid4())
    assert worker.may_pass_on(here)


def test_place_is_given_up_when_it_was_held_for_its_time(worker: Worker) -> None:
    first, second = uuid4(), uuid4()
    worker.message(first, "a")
    worker.follow(second, first)

    # Of the whole row, not of the last of them: its beginning is what others have waited since.
    assert not worker.may_pass_on(second, within=0)
    assert worker.may_pass_on(second)


def test_time_of_a_place_is_that_of_the_first_who_had_it(worker: Worker) -> None:
    refs: list[Any] = [uuid4() for _ in range(3)]
    worker.message(refs[0], "a")
    worker.follow(refs[1], refs[0])
    worker.follow(refs[2], refs[1])

    async def since() -> set[float]:
        return {job.since for job in worker.pool._jobs.values()}

    assert len(worker.loop.run(since())) == 1


def test_what_is_claimed_runs_beside_the_others_when_nobody_is_left_whose_place_it_could_take(worker: Worker) -> None:
    """Its claim is committed: nobody else would perform it before its deadline."""
    worker.message(uuid4(), "a")

    worker.follow(uuid4(), uuid4())

    assert worker.running() == 2
    assert worker.consumer.back == []


def test_what_is_claimed_runs_although_the_pool_began_to_close(worker: Worker) -> None:
    first, second = uuid4(), uuid4()
    worker.message(first, "a")
    stopping = threading.Thread(target=worker.pool.on_stop)
    stopping.start()
    worker.closing()

    worker.follow(second, first)
    worker.end(first)
    worker.end(second)
    stopping.join(PATIENCE)

    assert not stopping.is_alive()
    assert worker.pool.forced == 0
