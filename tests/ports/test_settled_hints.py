"""What held requests hear over a real Redis: of workflows that settled, and of those alone; also after it was away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import redis

from app.embedded.valkey import EmbeddedValkey
from app.ports.bell import RedisBell
from app.ports.settled_hints import CHANNEL, SettledHints

pytestmark = pytest.mark.anyio

PATIENCE = 20.0
"""Seconds a condition may take on a busy machine before it is called false."""


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    server = EmbeddedValkey(tmp_path / "valkey")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def bell(valkey: EmbeddedValkey) -> Iterator[RedisBell]:
    bell = RedisBell(valkey.url)
    yield bell
    bell.close()


@pytest.fixture
async def hints(valkey: EmbeddedValkey) -> AsyncIterator[SettledHints]:
    hints = SettledHints(valkey.url)
    yield hints
    await hints.aclose()


async def test_held_request_hears_of_its_workflow_alone_when_two_are_watched(
    bell: RedisBell, hints: SettledHints, valkey: EmbeddedValkey
) -> None:
    mine, other = uuid4(), uuid4()
    with hints.watching(mine) as settled, hints.watching(other) as others:
        await _subscribed(valkey)

        bell.tell_settled([uuid4(), mine])

        await asyncio.wait_for(settled.wait(), PATIENCE)
        assert not others.is_set()


async def test_held_requests_hear_together_when_they_watch_the_same_workflow(
    bell: RedisBell, hints: SettledHints, valkey: EmbeddedValkey
) -> None:
    workflow = uuid4()
    with hints.watching(workflow) as first:
        with hints.watching(workflow) as second:
            await _subscribed(valkey)
            bell.tell_settled([workflow])
            assert await asyncio.wait_for(second.wait(), PATIENCE)
        first.clear()

        bell.tell_settled([workflow])

        assert await asyncio.wait_for(first.wait(), PATIENCE)


async def test_held_request_hears_again_when_redis_was_away(
    bell: RedisBell, hints: SettledHints, valkey: EmbeddedValkey
) -> None:
    workflow = uuid4()
    with hints.watching(workflow) as settled:
        await _subscribed(valkey)
        await asyncio.to_thread(valkey.kill)
        await asyncio.to_thread(valkey.start)
        await _subscribed(valkey)

        await _tell_until_heard(bell, workflow, settled)

        assert settled.is_set()


async def test_hints_know_whether_they_are_heard(hints: SettledHints, valkey: EmbeddedValkey) -> None:
    before = hints.listening
    with hints.watching(uuid4()):
        await _until(lambda: hints.listening)

        await asyncio.to_thread(valkey.kill)
        await _until(lambda: not hints.listening)
        await asyncio.to_thread(valkey.start)

        await _until(lambda: hints.listening)
    assert not before


async def test_held_request_hears_nothing_when_the_message_is_no_id(
    bell: RedisBell, hints: SettledHints, valkey: EmbeddedValkey
) -> None:
    workflow = uuid4()
    with hints.watching(workflow) as settled:
        await _subscribed(valkey)
        with redis.Redis.from_url(valkey.url) as client:
            client.publish(CHANNEL, b"\xff no id")
            client.publish(CHANNEL, b"12")

        bell.tell_settled([workflow])

        assert await asyncio.wait_for(settled.wait(), PATIENCE)


async def _tell_until_heard(bell: RedisBell, workflow: UUID, settled: asyncio.Event) -> None:
    """The bell gives up what it could not publish at once, as a bell does: it is told again."""
    async with asyncio.timeout(PATIENCE):
        while not settled.is_set():
            bell.tell_settled([workflow])
            await _moment(settled)


async def _subscribed(valkey: EmbeddedValkey) -> None:
    def subscribers() -> int:
        with redis.Redis.from_url(valkey.url) as client:
            return sum(number for _, number in client.pubsub_numsub(CHANNEL))

    async with asyncio.timeout(PATIENCE):
        while not await asyncio.to_thread(subscribers):
            await _moment(asyncio.Event())


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await _moment(asyncio.Event())


async def _moment(unless: asyncio.Event) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(0.1):
            await unless.wait()
