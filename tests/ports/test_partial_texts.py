"""What models are writing, through a real Redis that answers, is away, hangs or comes back."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest
import redis

from app.domain.partials import TEXT_MOST, TOOLS_MOST, Partial
from app.embedded.valkey import EmbeddedValkey
from app.ports import partial_texts
from app.ports.partial_texts import PartialReader, PartialTexts
from app.ports.writing import HELD_MOST, Writing

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
def texts(valkey: EmbeddedValkey) -> Iterator[PartialTexts]:
    texts = PartialTexts(valkey.url)
    yield texts
    texts.close()


@pytest.fixture
async def reader(valkey: EmbeddedValkey) -> AsyncIterator[PartialReader]:
    reader = PartialReader(valkey.url)
    yield reader
    await reader.aclose()


def writes(texts: PartialTexts | None, *pieces: str) -> Writing:
    writing = Writing(attempt_id=uuid4(), changed=None if texts is None else texts.changed)
    for piece in pieces:
        writing.text(piece)
    return writing


async def until(reader: PartialReader, writing: Writing, condition: Callable[[Partial | None], bool]) -> Partial | None:
    async with asyncio.timeout(PATIENCE):
        while True:
            found = (await reader.read([writing.attempt_id])).get(writing.attempt_id)
            if condition(found):
                return found


async def test_reader_sees_what_is_being_written_and_what_comes_after(
    texts: PartialTexts, reader: PartialReader
) -> None:
    writing = writes(texts, "Dear ", "Ana")
    writing.thinking(40)
    first = await until(reader, writing, lambda found: found is not None)

    writing.text(", hello")
    writing.tool("email-send")
    second = await until(reader, writing, lambda found: found is not None and bool(found.tools))

    assert first == Partial(characters=8, thought=40, text="Dear Ana", tools=())
    assert second == Partial(characters=15, thought=40, text="Dear Ana, hello", tools=("email-send",))


async def test_reader_sees_nothing_of_an_answer_once_it_is_there(
    texts: PartialTexts, reader: PartialReader, valkey: EmbeddedValkey
) -> None:
    writing = writes(texts, "Dear Ana")
    await until(reader, writing, lambda found: found is not None)

    with redis.Redis.from_url(valkey.url) as client:
        stays = client.ttl(partial_texts.key_of(writing.attempt_id))
    texts.forget(writing)

    await until(reader, writing, lambda found: found is None)
    assert 0 < stays <= partial_texts.TTL


async def test_nothing_goes_to_redis_for_an_answer_that_ends_before_anybody_looked(
    texts: PartialTexts, valkey: EmbeddedValkey, reader: PartialReader
) -> None:
    slow = writes(texts, "slow")
    await until(reader, slow, lambda found: found is not None)  # the thread pauses now
    quick = writes(texts, "quick")
    texts.forget(quick)
    slow.text("er")
    await until(reader, slow, lambda found: found is not None and found.characters == 6)

    assert not quick.shown
    assert await reader.read([quick.attempt_id]) == {}


async def test_reader_sees_the_others_when_one_cannot_be_read(
    texts: PartialTexts, reader: PartialReader, valkey: EmbeddedValkey
) -> None:
    writing, odd = writes(texts, "Dear"), uuid4()
    await until(reader, writing, lambda found: found is not None)
    with redis.Redis.from_url(valkey.url) as client:
        client.set(partial_texts.key_of(odd), '{"characters": "many"')

    found = await reader.read([odd, writing.attempt_id, uuid4()])

    assert list(found) == [writing.attempt_id]


async def test_text_is_made_fit_for_people_when_the_model_wrote_what_no_one_can_store(
    texts: PartialTexts, reader: PartialReader
) -> None:
    writing = writes(texts, "a\x00b\ud800c\x1b[31m")

    found = await until(reader, writing, lambda found: found is not None)

    assert found is not None
    assert found.text == "a\ufffdb\ufffdc\ufffd[31m"


async def test_many_answers_are_all_seen_in_the_end(texts: PartialTexts, reader: PartialReader) -> None:
    many = [writes(texts, f"n{n}") for n in range(2 * partial_texts.LOOKS_MOST + 1)]

    async with asyncio.timeout(PATIENCE):
        while len(await reader.read([writing.attempt_id for writing in many])) < len(many):
            pass

    assert all(writing.shown for writing in many)


async def test_writer_goes_on_when_redis_was_away(valkey: EmbeddedValkey, texts: PartialTexts) -> None:
    texts_away = PartialTexts("redis://127.0.0.1:1/0")
    writing = writes(texts_away, "nobody hears this")
    texts_away.forget(writing)

    texts_away.close()  # it ends, with nothing raised

    heard = writes(texts, "heard")
    reader = PartialReader(valkey.url)
    await until(reader, heard, lambda found: found is not None)
    await reader.aclose()


async def test_reader_gives_up_at_once_and_for_a_while_when_redis_hangs(
    valkey: EmbeddedValkey, texts: PartialTexts
) -> None:
    now = [1000.0]
    reader = PartialReader(valkey.url, clock=lambda: now[0])
    writing = writes(texts, "Dear Ana")
    await until(reader, writing, lambda found: found is not None)
    pid = valkey.pid
    assert pid is not None

    os.kill(pid, signal.SIGSTOP)
    try:
        hanging = await reader.read([writing.attempt_id])
        os.kill(pid, signal.SIGCONT)
        silent = await reader.read([writing.attempt_id])
        now[0] += partial_texts.AGAIN_AFTER
        back = await reader.read([writing.attempt_id])
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
        await reader.aclose()

    assert (hanging, silent) == ({}, {})
    assert list(back) == [writing.attempt_id]


def test_only_the_end_of_a_long_text_is_held_and_all_of_it_is_counted() -> None:
    writing = writes(None, *(f"{n:06d}" for n in range(10_000)))

    found = writing.look()

    assert found.characters == 60_000
    assert len(found.text) == TEXT_MOST
    assert found.text.endswith("009999")
    assert sum(map(len, writing._pieces)) <= HELD_MOST + 6


def test_tools_are_named_up_to_a_limit() -> None:
    writing = writes(None)
    for n in range(100):
        writing.tool(f"tool-{n}" * 50)

    found = writing.look()

    assert len(found.tools) == TOOLS_MOST
    assert all(len(name) <= 64 for name in found.tools)


def test_change_is_told_once_until_somebody_looks() -> None:
    told: list[Writing] = []
    writing = Writing(attempt_id=uuid4(), changed=told.append)

    writing.text("a")
    writing.text("b")
    before = len(told)
    writing.look()
    writing.text("c")

    assert (before, len(told)) == (1, 2)
