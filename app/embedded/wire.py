"""A very small HTTP/1.1 server, for the scripted model and the demo tools.

Why our own: they must do what a web framework forbids (answer half, reset, hang, cut a stream after n bytes), and the
bench needs a tool server that is not what it measures: one core answers over 5,000 requests a second here.

It listens on loopback unless told otherwise, keeps connections alive, takes requests one after the other, reads bodies
by Content-Length only (411 otherwise) and speaks no TLS. It is no server for the open network.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

MAX_HEAD: Final = 64 * 1024
"""Bytes of a request's head: ours have some 500."""

MAX_BODY: Final = 32 * 1024 * 1024 + 64 * 1024
"""A little above the Messages API's own limit, so that the scripted model can say no in its own words."""

REASONS: Final = {200: "OK", 201: "Created", 204: "No Content", 303: "See Other", 400: "Bad Request", 404: "Not Found"}

_CRLF2: Final = b"\r\n\r\n"


class Hangup(Exception):
    """Raised by a handler, or by the stream of an answer: the connection ends here, without another byte."""

    def __init__(self, *, reset: bool = False) -> None:
        super().__init__("hang up")
        self.reset = reset
        """True: with a reset (RST) instead of an orderly end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """Names in lower case; of a repeated header the last."""
    body: bytes

    def json(self) -> Any:
        """The body as JSON, None if empty. Raises ValueError."""
        return json.loads(self.body) if self.body else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    stream: AsyncIterator[bytes] | None = None
    """Instead of `body`: chunks, until it ends or raises `Hangup`."""
    claimed_length: int | None = None
    """A Content-Length that is not true, for answers that end too early."""


Handler = Callable[[Request], "Reply | Awaitable[Reply]"]


def json_reply(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return Reply(status=status, body=body, headers={"content-type": "application/json", **(headers or {})})


def instant() -> str:
    """Now, as RFC 3339 text with milliseconds: what a demo server writes into its ledger."""
    seconds = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds * 1000) % 1000:03d}Z"


class _Refused(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Connection(asyncio.Protocol):
    """One client's connection. Handlers that return a `Reply` at once are answered without a task."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._transport: asyncio.Transport
        self._received = bytearray()
        self._busy: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self._busy is not None:
            self._busy.cancel()

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._busy is None:
            self._serve()

    def _serve(self) -> None:
        """Answers what has arrived, until a request is incomplete or its answer takes time."""
        while not self._transport.is_closing():
            try:
                request = self._next_request()
            except (_Refused, ValueError) as error:
                status = error.status if isinstance(error, _Refused) else 400
                self._write_whole(Reply(status=status, headers={"connection": "close"}))
                self._transport.close()
                return
            if request is None:
                return
            try:
                answer = self._handler(request)
            except Hangup as hangup:
                self._hang_up(hangup)
                return
            if isinstance(answer, Reply) and answer.stream is None:
                self._finish(request, answer)
            else:
                self._busy = asyncio.ensure_future(self._answer(request, answer))
                return

    async def _answer(self, request: Request, answer: Reply | Awaitable[Reply]) -> None:
        try:
            reply = answer if isinstance(answer, Reply) else await answer
            if reply.stream is None:
                self._finish(request, reply)
            else:
                await self._stream(reply, reply.stream)
        except Hangup as hangup:
            self._hang_up(hangup)
        except Exception:
            traceback.print_exc()
            self._hang_up(Hangup())
        self._busy = None
        self._serve()

    async def _stream(self, reply: Reply, chunks: AsyncIterator[bytes]) -> None:
        self._transport.write(_head(reply, {"transfer-encoding": "chunked"}))
        async for chunk in chunks:
            if chunk:
                self._transport.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        self._transport.write(b"0\r\n\r\n")

    def _finish(self, request: Request, reply: Reply) -> None:
        self._write_whole(reply)
        if reply.claimed_length is not None or request.headers.get("connection", "").lower() == "close":
            self._transport.close()

    def _write_whole(self, reply: Reply) -> None:
        length = len(reply.body) if reply.claimed_length is None else reply.claimed_length
        self._transport.write(_head(reply, {"content-length": str(length)}) + reply.body)

    def _hang_up(self, hangup: Hangup) -> None:
        if hangup.reset:
            # Linger for 0 seconds is how a socket is told to end with RST.
            self._transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            self._transport.abort()
        else:
            self._transport.close()

    def _next_request(self) -> Request | None:
        """Takes one whole request off the buffer; None if it has not arrived yet."""
        end = self._received.find(_CRLF2)
        if end < 0:
            if len(self._received) > MAX_HEAD:
                raise _Refused(431)
            return None
        lines = self._received[:end].decode("latin-1").split("\r\n")
        method, target, version = lines[0].split(" ")
        if not version.startswith("HTTP/1."):
            raise _Refused(505)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        if "transfer-encoding" in headers:
            raise _Refused(411)
        length = int(headers.get("content-length", "0"))
        if not 0 <= length <= MAX_BODY:
            raise _Refused(413)
        begin = end + len(_CRLF2)
        if len(self._received) < begin + length:
            return None
        body = bytes(self._received[begin : begin + length])
        del self._received[: begin + length]
        url = urlsplit(target)
        query = dict(parse_qsl(url.query, keep_blank_values=True)) if url.query else {}
        return Request(method=method, path=unquote(url.path), query=query, headers=headers, body=body)


def _head(reply: Reply, framing: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {reply.status} {REASONS.get(reply.status, 'Status')}"]
    lines += [f"{name}: {value}" for name, value in {**framing, **reply.headers}.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


@asynccontextmanager
async def listening(handler: Handler, *, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[int]:
    """Serves in this event loop while the context is open; yields the port. Closes every connection at the end."""
    connections: set[asyncio.BaseTransport] = set()
    server = await asyncio.get_running_loop().create_server(
        lambda: _Counted(handler, connections), host, port, backlog=1024
    )
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for transport in list(connections):
            transport.close()


class _Counted(Connection):
    """A connection that is known to its server, which closes it when it stops."""

    def __init__(self, handler: Handler, known: set[asyncio.BaseTransport]) -> None:
        super().__init__(handler)
        self._known = known

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._known.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._known.discard(self._transport)


def write_port(path: Path, port: int) -> None:
    """Atomically: a reader sees the whole file or none."""
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    partial.write_text(json.dumps({"port": port}))
    partial.replace(path)


def arguments(description: str) -> argparse.ArgumentParser:
    """The options every server of this kind has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 takes a free one")
    parser.add_argument("--port-file", type=Path, help='file that gets {"port": N} once the server listens')
    parser.add_argument("--latency-ms", type=int, default=0, help="how long an answer takes, milliseconds")
    return parser


def run(handler: Handler, *, host: str, port: int, port_file: Path | None) -> None:
    """Serves until SIGTERM or SIGINT. The port is in `port_file` as soon as connections are accepted."""

    async def until_told() -> None:
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        async with listening(handler, host=host, port=port) as taken:
            if port_file is not None:
                write_port(port_file, taken)
            print(f"listening on {host}:{taken}", flush=True)
            await stopping.wait()

    try:
        asyncio.run(until_told())
    except OSError as error:
        sys.exit(f"cannot listen on {host}:{port}: {error.strerror}")
