"""A TCP server that does to a request whatever a test wants: refuses, resets, stalls, lies, floods.

`serving(behaviour)` listens on a free port; a behaviour is a coroutine of one connection. The server counts what
reached it, so that a test can say "nothing did".
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Server:
    port: int = 0
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)
    served_on: list[int] = field(default_factory=list)
    """For each request the number of its connection, from 1."""
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a client has closed a connection that a behaviour was waiting on."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@dataclass(kw_only=True)
class Connection:
    server: Server
    number: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def request(self) -> bytes:
        """One whole request, head and body. Raises IncompleteReadError when the client is gone."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        whole = head + await self.reader.readexactly(length)
        self.server.requests.append(whole)
        self.server.served_on.append(self.number)
        return whole

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """RST instead of FIN."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def until_client_leaves(self) -> None:
        while await self.reader.read(65536):
            continue
        self.server.gone.set()


Behaviour = Callable[[Connection], Awaitable[None]]


def response(status: int, body: bytes = b"", *, headers: str = "", media_type: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {media_type}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode("latin-1") + body


def answers(*responses: bytes) -> Behaviour:
    """Answers each request of a connection with the next response, the last one for ever, and keeps it alive."""

    async def behave(connection: Connection) -> None:
        position = 0
        while True:
            await connection.request()
            await connection.send(responses[min(position, len(responses) - 1)])
            position += 1

    return behave


def sends_then_closes(data: bytes) -> Behaviour:
    async def behave(connection: Connection) -> None:
        await connection.request()
        await connection.send(data)

    return behave


def sends_then_resets(data: bytes) -> Behaviour:
    async def behave(connection: Connection) -> None:
        await connection.request()
        await connection.send(data)
        connection.reset()

    return behave


def sends_then_stalls(data: bytes) -> Behaviour:
    async def behave(connection: Connection) -> None:
        await connection.request()
        await connection.send(data)
        await connection.until_client_leaves()

    return behave


def sends_too_late(data: bytes) -> Behaviour:
    """A whole answer, once the client has given up waiting for it."""

    async def behave(connection: Connection) -> None:
        await connection.request()
        await connection.until_client_leaves()
        await connection.send(data)

    return behave


async def resets_at_once(connection: Connection) -> None:
    connection.reset()


async def resets_within_the_request(connection: Connection) -> None:
    """After its first byte: the client may have written all of it, or be about to."""
    await connection.reader.readexactly(1)
    connection.reset()


@asynccontextmanager
async def serving(
    behaviour: Behaviour, *, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Server]:
    server = Server()
    writers: list[asyncio.StreamWriter] = []
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        writers.append(writer)
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with suppress(OSError, EOFError):  # the client may leave whenever it likes
            await behaviour(Connection(server=server, number=server.connections, reader=reader, writer=writer))
        writer.close()

    listener = await asyncio.start_server(connected, host, port, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.gather(*tasks)  # every behaviour reads or writes, and so notices the abort
        await listener.wait_closed()


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
