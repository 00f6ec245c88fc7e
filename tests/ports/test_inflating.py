"""Decompression under a cap: what comes out, and what it costs when somebody means harm."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest

from app.ports.inflating import Inflate, decoder_for

ROOM = 10_000


@pytest.mark.parametrize("packed", [gzip.compress(b"\0" * 30_000_000), zlib.compress(b"\0" * 30_000_000)])
def test_decoder_makes_no_more_than_its_room_of_a_bomb(packed: bytes) -> None:
    decoder = Inflate(known=True)
    tracemalloc.start()

    plain, whole = decoder.feed(packed, ROOM)

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (len(plain), whole) == (ROOM, False)
    assert peak < 1_000_000


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_decoder_gives_the_same_bytes_however_they_are_cut(size: int) -> None:
    plain = bytes(range(256)) * 20
    packed = gzip.compress(plain[:1000]) + gzip.compress(plain[1000:])
    decoder = Inflate(known=True)

    out = b"".join(decoder.feed(packed[at : at + size], ROOM)[0] for at in range(0, len(packed), size))

    assert out == plain
    assert decoder.finished


def test_decoder_fills_its_room_to_the_last_byte() -> None:
    decoder = Inflate(known=True)

    assert decoder.feed(gzip.compress(b"x" * ROOM), ROOM) == (b"x" * ROOM, True)
    assert decoder.finished


def test_decoder_is_not_finished_when_the_stream_broke_off() -> None:
    decoder = Inflate(known=True)

    decoder.feed(gzip.compress(b"x" * 100)[:-9], ROOM)

    assert not decoder.finished


@pytest.mark.parametrize("headers", [[], [(b"Content-Encoding", b"identity")], [(b"Content-Type", b"gzip")]])
def test_plain_answer_has_no_decoder(headers: list[tuple[bytes, bytes]]) -> None:
    assert decoder_for(headers) is None
