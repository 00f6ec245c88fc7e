"""Streamable HTTP under the guard: the transport that the MCP SDK's client sends through, instead of its own.

Every request goes to a judged address (`app/ports/connecting.py`) over HTTP/1.1, without proxies or credentials of the
environment. `tools/call` gets a connection nobody used before, asks its permit before each piece, and its answer is
looked at as it passes. Answers are decompressed under a cap; a redirect of `tools/call` is not followed: whoever
redirects it may have acted on it.

Imported only when a worker calls an MCP tool: it needs the SDK's HTTP library.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final

import anyio
import httpcore
import httpx2

from app.domain import mcp_replies
from app.ports.addresses import Target, parse_target
from app.ports.connecting import Connector, GuardedStream, Permit
from app.ports.inflating import decoder_for
from app.ports.mcp_wire import LONGEST_MESSAGE, TooLong, Wire

_ALWAYS: Final = Permit(lambda: True)
_REDIRECTS: Final = range(300, 400)
_LEFT_OUT: Final = frozenset({b"content-encoding", b"content-length", b"transfer-encoding"})
"""Headers that speak of bytes as they came over the wire; what is handed on is decompressed."""


class GuardedTransport(httpx2.AsyncBaseTransport):
    """One per attempt: its idle connection is closed with it."""

    def __init__(self, connector: Connector, wire: Wire) -> None:
        self._connector = connector
        self._wire = wire
        self._idle: httpcore.AsyncHTTP11Connection | None = None
        self._streams: dict[httpcore.AsyncHTTP11Connection, GuardedStream] = {}

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        content = await request.aread()
        permit = self._wire.leaving(content)
        target = parse_target(str(request.url))
        connection = await self._acquire(target, fresh=permit is not None)
        self._streams[connection].permit = permit or _ALWAYS
        try:
            response = await connection.handle_async_request(_core(request, target, content))
        except BaseException:
            await self._close(connection)
            raise
        headers = list(response.headers)
        is_call = permit is not None
        if is_call:
            self._wire.status = response.status
            if response.status in _REDIRECTS:
                headers = [(name, value) for name, value in headers if name.lower() != b"location"]
        body = _Body(self, connection, response, wire=self._wire if is_call else None)
        kept = [(name, value) for name, value in headers if name.lower() not in _LEFT_OUT]
        return httpx2.Response(response.status, headers=kept, stream=body)

    def too_long(self) -> TooLong:
        """To be raised where an answer is read no further."""
        self._wire.too_long = True
        return TooLong()

    async def aclose(self) -> None:
        for connection in list(self._streams):
            await self._close(connection)

    async def _acquire(self, target: Target, *, fresh: bool) -> httpcore.AsyncHTTP11Connection:
        idle, self._idle = self._idle, None
        if idle is not None and not fresh and not idle.has_expired():
            return idle
        stream = await self._connector.open(target)
        origin = httpcore.Origin(target.scheme.encode(), target.host.encode(), target.port)
        connection = httpcore.AsyncHTTP11Connection(origin=origin, stream=stream, keepalive_expiry=5.0)
        self._streams[connection] = stream
        return connection

    async def release(self, connection: httpcore.AsyncHTTP11Connection) -> None:
        if self._idle is None and connection.is_idle():
            self._idle = connection
        else:
            await self._close(connection)

    async def _close(self, connection: httpcore.AsyncHTTP11Connection) -> None:
        self._streams.pop(connection, None)
        with anyio.CancelScope(shield=True):
            await connection.aclose()


class _Body(httpx2.AsyncByteStream):
    """An answer's body, decompressed under the cap. That of `tools/call` is shown to the wire, message by message."""

    def __init__(
        self,
        transport: GuardedTransport,
        connection: httpcore.AsyncHTTP11Connection,
        response: httpcore.Response,
        *,
        wire: Wire | None,
    ) -> None:
        self._transport, self._connection, self._response = transport, connection, response
        self._wire = wire
        self._events = b"text/event-stream" in _header(response.headers, b"content-type").lower()
        self._pending = bytearray()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        decoder = decoder_for(list(self._response.headers))
        read = 0
        async for chunk in self._response.aiter_stream():
            room = LONGEST_MESSAGE - read
            plain, whole = (chunk, len(chunk) <= room) if decoder is None else decoder.feed(chunk, room)
            read += len(plain)
            if not whole or read > LONGEST_MESSAGE:
                raise self._transport.too_long()
            self._show(plain)
            if self._events and self._wire is None:
                read = 0  # a stream of many messages; each is bounded by the SDK
            yield plain
        self._end()

    async def aclose(self) -> None:
        self._end()
        with anyio.CancelScope(shield=True):
            await self._response.aclose()
        await self._transport.release(self._connection)

    def _show(self, plain: bytes) -> None:
        if self._wire is None or self._wire.reply is not None:
            return
        seen = len(self._pending)
        self._pending += plain
        end = _last_event(self._pending, seen) if self._events else 0
        if end:
            for message in mcp_replies.replies_in(bytes(self._pending[:end])):
                self._wire.arrived(message)
            del self._pending[:end]

    def _end(self) -> None:
        """The whole body, of an answer that is one message."""
        if self._wire is not None and self._pending and not self._events:
            self._wire.arrived(bytes(self._pending))
        self._pending.clear()


_MARKS: Final = (b"\n\n", b"\r\r", b"\n\r\n")


def _last_event(pending: bytearray, seen: int) -> int:
    """Where the last event ends that is complete; 0: none is. None ends within the first `seen` bytes: an event of
    megabytes is not searched anew for each of its pieces."""
    found = ((pending.rfind(mark, max(seen - len(mark) + 1, 0)), mark) for mark in _MARKS)
    return max((place + len(mark) for place, mark in found if place >= 0), default=0)


def _core(request: httpx2.Request, target: Target, content: bytes) -> httpcore.Request:
    raw = [(name, value) for name, value in request.headers.raw if name.lower() != b"accept-encoding"]
    url = httpcore.URL(scheme=target.scheme.encode(), host=target.host.encode(), port=target.port, target=target.path)
    headers = [*raw, (b"Accept-Encoding", b"gzip, deflate")]
    return httpcore.Request(request.method.encode("ascii"), url, headers=headers, content=content)


def _header(headers: Sequence[tuple[bytes, bytes]], name: bytes) -> bytes:
    return next((value for key, value in headers if key.lower() == name), b"")


def client(connector: Connector, wire: Wire, headers: Sequence[tuple[str, str]]) -> httpx2.AsyncClient:
    """The SDK's HTTP client over the guarded transport. The deadline is the caller's, so it has none of its own."""
    return httpx2.AsyncClient(
        transport=GuardedTransport(connector, wire),
        headers=[("User-Agent", "surefoot"), *headers],
        timeout=None,
        trust_env=False,
        follow_redirects=False,
    )
