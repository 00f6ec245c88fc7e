"""A request that is sent whole and whose answer nobody reads: on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from pydantic import SecretStr

from app.ports.addresses import OutboundPolicy
from app.ports.cutting import LINGER, Cutter, NotCut
from app.ports.http_tools import HttpTools
from tests.ports.tool_calls import call, http

pytestmark = pytest.mark.anyio

LOOPBACK = OutboundPolicy.parse("127.0.0.0/8")
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


@dataclass
class Heard:
    """What a server read on each connection until its client closed it."""

    url: str = ""
    answer: bytes = b""
    requests: list[bytes] = field(default_factory=list)
    closed: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)


@contextlib.asynccontextmanager
async def listening(*, answer: bytes = b"") -> AsyncIterator[Heard]:
    heard = Heard(answer=answer)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        read = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := await reader.read(65536):
                read += chunk
                if heard.answer and read.endswith(b"}"):
                    writer.write(heard.answer)
        heard.closed.put_nowait(read)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    heard.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/do"
    async with server:
        yield heard


async def _closed(heard: Heard) -> bytes:
    async with asyncio.timeout(20):
        return await heard.closed.get()


async def _cut(url: str, arguments: dict[str, str] | None = None) -> None:
    cutter = Cutter(LOOPBACK, secrets={})
    await cutter.send(call(http(url), arguments or {"a": "1"}), seconds=10)


async def test_cut_request_arrives_whole_and_its_connection_is_closed_though_nobody_answers() -> None:
    async with listening() as heard:
        await _cut(heard.url)
        read = await _closed(heard)

    assert read.startswith(b"POST /do HTTP/1.1\r\n")
    assert read.endswith(b'\r\n\r\n{"a":"1"}')


async def test_cut_leaves_a_quick_tool_the_time_to_do_it_when_it_stops_for_clients_that_have_gone() -> None:
    done: list[bool] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        try:
            async with asyncio.timeout(LINGER / 4):
                done.append(bool(await reader.read(1)))
        except TimeoutError:
            done.append(True)
        writer.write(ANSWER)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        await _cut(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/do")

    assert done == [True]


async def test_cut_request_is_byte_for_byte_the_one_that_is_answered() -> None:
    async with listening(answer=ANSWER) as heard:
        await _cut(heard.url)
        cut = await _closed(heard)
        tools = HttpTools(LOOPBACK, secrets={}, response_limit=1000)
        await tools.send(call(http(heard.url), {"a": "1"}), seconds=10, may_send=lambda: True)
        await tools.aclose()
        answered = await _closed(heard)

    assert cut == answered


async def test_large_request_arrives_whole_before_it_is_cut() -> None:
    large = "x" * 3_000_000

    async with listening() as heard:
        await _cut(heard.url, {"a": large})
        read = await _closed(heard)

    assert read.endswith(f'{{"a":"{large}"}}'.encode())


async def test_cut_is_refused_when_the_address_is_not_allowed() -> None:
    async with listening() as heard:
        with pytest.raises(NotCut, match="inside a private network"):
            await Cutter(OutboundPolicy.parse(""), secrets={}).send(call(http(heard.url)), seconds=10)


async def test_cut_says_so_when_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(NotCut, match="no connection"):
            await _cut(f"http://127.0.0.1:{unused.getsockname()[1]}/do")


async def test_cut_names_no_secret_when_a_request_cannot_be_made() -> None:
    declared = http("http://127.0.0.1:9/do", headers={"X-Key": "${{ secrets.key }}\n"})

    with pytest.raises(NotCut) as raised:
        await Cutter(LOOPBACK, secrets={"key": SecretStr("hunter2-hunter2")}).send(call(declared), seconds=10)

    assert "X-Key" in str(raised.value)
    assert "hunter2" not in str(raised.value)
