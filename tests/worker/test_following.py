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
from worker.celery_app import NothingOpen, build_app
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
class Worker:
    pool: TaskPool
    loop: EventLoop
    calls: Calls
    consumer: Consumer

    def message(self, ref: UUID, credit: str) -> None:
        self.pool.on_apply(None, (CALL, "id", {"args": [str(ref)]}), callback=self.consumer.credit(credit))
        self.calls.wait_for_one()

    def follow(self, ref: UUID, after: UUID, *, within: float = LONG) -> bool:
        async def asked() -> bool:
            return self.pool.follow(CALL, str(ref), after=[str(uuid4()), str(after)], within=within)

        taken = self.loop.run(asked())
        if taken:
            self.calls.wait_for_one()
        return bool(taken)

    def end(self, ref: UUID) -> None:
        async def ended() -> None:
            self.calls.ends[ref].set()
            await asyncio.sleep(0)

        self.loop.run(ended())

    def running(self) -> int:
        async def asked() -> int:
            return self.pool.running(CALL)

        return int(self.loop.run(asked()))


@pytest.fixture
def worker() -> Iterator[Worker]:
    loop, calls, consumer = EventLoop(), Calls(), Consumer()
    loop.start()
    app = build_app(
        "redis://nowhere",
        concurrency=2,
        delivery_concurrency=1,
        event_loop=loop,
        drain=NothingOpen(),
        grace=0.05,
    )
    add_tasks(app, perform=calls, deliver=calls)
    pool = TaskPool(2, app=app)
    pool.start()
    pool.register_with_event_loop(consumer)
    yield Worker(pool=pool, loop=loop, calls=calls, consumer=consumer)
    pool.terminate()
    loop.close()


def test_credit_comes_back_once_when_the_last_of_those_that_followed_has_ended(worker: Worker) -> None:
    first, second, third = uuid4(), uuid4(), uuid4()
    worker.message(first, "a")

    assert worker.follow(second, first)
    worker.end(first)
    assert worker.follow(third, second)
    worker.end(second)

    assert worker.consumer.back == []
    assert worker.running() == 1
    worker.end(third)
    worker.consumer.wait_for_one()
    assert worker.consumer.back == ["a"]


def test_nothing_follows_a_call_that_does_not_run_here(worker: Worker) -> None:
    gone = uuid4()
    worker.message(gone, "a")
    worker.end(gone)
    worker.consumer.wait_for_one()

    assert not worker.follow(uuid4(), gone)
    assert not worker.follow(uuid4(), uuid4())
    assert worker.running() == 0


def test_place_is_given_up_when_it_was_held_for_its_time(worker: Worker) -> None:
    first, second, third = uuid4(), uuid4(), uuid4()
    worker.message(first, "a")
    assert worker.follow(second, first)

    # Of the whole row, not of the last of them: its beginning is what others have waited since.
    assert not worker.follow(third, second, within=0)

    worker.end(first)
    worker.end(second)
    worker.consumer.wait_for_one()
    assert worker.consumer.back == ["a"]


def test_time_of_a_place_is_that_of_the_first_who_had_it(worker: Worker) -> None:
    refs: list[Any] = [uuid4() for _ in range(3)]
    worker.message(refs[0], "a")
    assert worker.follow(refs[1], refs[0])
    assert worker.follow(refs[2], refs[1])

    async def since() -> set[float]:
        return {job.since for job in worker.pool._jobs.values()}

    assert len(worker.loop.run(since())) == 1
