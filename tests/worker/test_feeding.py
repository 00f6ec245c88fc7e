"""The local feed: takes a call while there is room and the process stays, refuses otherwise."""

from __future__ import annotations

import asyncio
from typing import Any, cast
from uuid import UUID

from worker.feeding import LocalFeed

CALL = UUID(int=7)
BEFORE = UUID(int=6)


class Pool:
    """As much of a pool as the feed sees."""

    def __init__(self, running: int = 0, gives_way: bool = False) -> None:
        self.fed: list[tuple[str, object]] = []
        self.followed: list[tuple[object, list[object]]] = []
        self._running, self._gives_way = running, gives_way

    def may_pass_on(self, name: str, refs: list[object], *, within: float) -> bool:
        return self._gives_way

    def follow(self, name: str, *args: object, after: list[object]) -> None:
        self.followed.append((args[0], after))

    def running(self, name: str) -> int:
        return self._running

    def feed(self, name: str, *args: object) -> None:
        self.fed.append((name, *args))  # type: ignore[arg-type]


class Stays:
    def __init__(self) -> None:
        self.draining = asyncio.Event()


def feed_of(pool: Pool | None, *, draining: bool = False) -> LocalFeed:
    lease = Stays()
    if draining:
        lease.draining.set()
    feed = LocalFeed(lease=cast(Any, lease), concurrency=2)
    if pool is not None:
        feed.attach(cast(Any, pool))
    return feed


def test_feed_gives_the_call_to_the_pool_while_there_is_room() -> None:
    pool = Pool(running=1)

    assert feed_of(pool).offer(CALL, [BEFORE])

    assert pool.fed == [("surefoot.call", str(CALL))]


def test_feed_refuses_when_the_pool_is_full_or_not_there_or_the_process_drains() -> None:
    full, leaving = Pool(running=2), Pool()

    assert not feed_of(full).offer(CALL, [BEFORE])
    assert not feed_of(None).offer(CALL, [BEFORE])
    assert not feed_of(leaving, draining=True).offer(CALL, [BEFORE])

    assert full.fed == leaving.fed == []


def test_feed_lets_a_call_follow_the_one_before_however_full_the_pool_is() -> None:
    pool = Pool(running=2, gives_way=True)

    assert feed_of(pool).offer(CALL, [BEFORE])

    assert pool.followed == [(str(CALL), [str(BEFORE)])]
    assert pool.fed == []


def test_feed_says_that_nothing_follows_where_nothing_gives_way_or_nothing_runs() -> None:
    assert feed_of(Pool(gives_way=True)).follows([BEFORE])
    assert not feed_of(Pool()).follows([BEFORE])
    assert not feed_of(None).follows([BEFORE])


def test_feed_takes_what_is_claimed_even_while_the_process_drains() -> None:
    pool = Pool(running=2)

    feed_of(pool, draining=True).take(CALL, [BEFORE])

    assert pool.followed == [(str(CALL), [str(BEFORE)])]
