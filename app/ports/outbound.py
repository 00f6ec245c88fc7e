"""One guarded HTTP client for tools, probes and webhooks: what leaves this process leaves through `Outbound.send`.

It answers every request with an `Exchange`, an observation, and raises only cancellation: each foreign exception is
looked up in `EXCEPTIONS`, once for "no byte of the request had left" and once for "bytes had left". It promises:
judged addresses only (`app/ports/addresses.py`), no redirects, no proxies or credentials from the environment, a
total deadline, caps on the bytes read before and after decompression, and no second try of its own.

Connections are httpcore's; the choice between them is ours. httpcore's pool looks at every connection for every
request (13 ms of CPU with 200 idle ones), and what we promise hangs on the choice: a request that must not be
repeated gets a connection nobody used before. Through httpx's client a keep-alive POST costs twice the CPU.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Final

import anyio
import httpcore

from app.domain.certainty import UNSENT, Observation
from app.ports.addresses import OutboundPolicy, Target, UrlRefused, literal_forbidden, parse_target
from app.ports.connecting import (
    Connector,
    GuardedStream,
    NotPermitted,
    Permit,
    Refused,
    Resolver,
    TlsFailed,
    Unconnected,
    Unresolved,
)
from app.ports.inflating import decoder_for
from app.ports.world import MaySend

__all__ = ["EXCEPTIONS", "Exchange", "Outbound", "OutboundPolicy", "Resolver", "literal_forbidden"]

_DEFAULT_HEADERS: Final = ((b"User-Agent", b"surefoot"), (b"Accept-Encoding", b"gzip, deflate"))

KEEP_ALIVE: Final = 4.0
"""Seconds an idle connection is kept: less than the 5 after which common servers (Node, uvicorn) close theirs."""

_IDLE_PER_ORIGIN: Final = 256
"""Idle connections kept to one origin: a worker's concurrency, so that a burst does not reconnect."""

_LONGEST_WAIT: Final = 366 * 86400.0
"""Seconds of a Retry-After that are believed: more fits into no timestamp and means never."""

_READ_AHEAD: Final = 64 * 1024

EXCEPTIONS: Final[dict[type[Exception], tuple[Observation, Observation]]] = {
    # ours, in the order of an exchange
    UrlRefused: (Observation.REQUEST_INVALID, Observation.DEFECT),
    Unresolved: (Observation.DNS_FAILED, Observation.DEFECT),
    Refused: (Observation.FORBIDDEN, Observation.DEFECT),
    Unconnected: (Observation.CONNECT_FAILED, Observation.DEFECT),
    TlsFailed: (Observation.TLS_FAILED, Observation.DEFECT),
    NotPermitted: (Observation.FENCED, Observation.WRITE_ERROR),
    TimeoutError: (Observation.DEADLINE_UNSENT, Observation.DEADLINE),
    # httpcore's
    httpcore.ConnectionNotAvailable: (Observation.DEFECT_UNSENT, Observation.DEFECT),
    httpcore.UnsupportedProtocol: (Observation.REQUEST_INVALID, Observation.DEFECT),
    httpcore.LocalProtocolError: (Observation.REQUEST_INVALID, Observation.PROTOCOL_ERROR),
    httpcore.RemoteProtocolError: (Observation.CONNECT_FAILED, Observation.PROTOCOL_ERROR),
    httpcore.ProtocolError: (Observation.CONNECT_FAILED, Observation.PROTOCOL_ERROR),
    httpcore.ProxyError: (Observation.CONNECT_FAILED, Observation.READ_ERROR),
    httpcore.PoolTimeout: (Observation.POOL_TIMEOUT, Observation.DEADLINE),
    httpcore.ConnectTimeout: (Observation.DEADLINE_UNSENT, Observation.DEADLINE),
    httpcore.ReadTimeout: (Observation.DEADLINE_UNSENT, Observation.DEADLINE),
    httpcore.WriteTimeout: (Observation.DEADLINE_UNSENT, Observation.DEADLINE),
    httpcore.TimeoutException: (Observation.DEADLINE_UNSENT, Observation.DEADLINE),
    httpcore.ConnectError: (Observation.CONNECT_FAILED, Observation.READ_ERROR),
    httpcore.ReadError: (Observation.CONNECT_FAILED, Observation.READ_ERROR),
    httpcore.WriteError: (Observation.CONNECT_FAILED, Observation.WRITE_ERROR),
    httpcore.NetworkError: (Observation.CONNECT_FAILED, Observation.READ_ERROR),
    # what lies below it, should it ever come through
    ssl.SSLError: (Observation.TLS_FAILED, Observation.READ_ERROR),
    anyio.BrokenResourceError: (Observation.CONNECT_FAILED, Observation.READ_ERROR),
    anyio.ClosedResourceError: (Observation.CONNECT_FAILED, Observation.READ_ERROR),
    anyio.EndOfStream: (Observation.CONNECT_FAILED, Observation.READ_ERROR),
    anyio.IncompleteRead: (Observation.CONNECT_FAILED, Observation.READ_ERROR),
    OSError: (Observation.CONNECT_FAILED, Observation.READ_ERROR),
    # a defect after sending must still leave its evidence: the outcome is recorded, the class named
    Exception: (Observation.DEFECT_UNSENT, Observation.DEFECT),
}
"""Exception → (seen before the first byte left, seen after). The most specific class counts."""


_OURS: Final = (UrlRefused, Unresolved, Refused, Unconnected, TlsFailed, httpcore.ReadError, httpcore.WriteError)


@dataclass(frozen=True, kw_only=True, slots=True)
class Exchange:
    """One request and what came of it, as seen from here."""

    observation: Observation
    status: int | None = None
    headers: Sequence[tuple[bytes, bytes]] = ()
    body: bytes = b""
    """Decompressed, at most the cap."""
    truncated: bool = False
    """The body is not whole: cut by the cap, by the connection, or not decompressible."""
    sent_after: float | None = None
    received_after: float | None = None
    detail: str = ""
    """A fragment that says what went wrong, without anything the caller passed in except host and port."""

    def header(self, name: bytes) -> str | None:
        for key, value in self.headers:
            if key.lower() == name:
                return value.decode("latin-1")
        return None

    @property
    def retry_after(self) -> float | None:
        """Seconds, from Retry-After (RFC 9110 §10.2.3). A date is read against the answer's own Date, so that no clock
        of ours is asked; without one it is not understood."""
        value = (self.header(b"retry-after") or "").strip()
        if value.isascii() and value.isdigit():
            return min(float(value[:16]), _LONGEST_WAIT)
        try:
            until = parsedate_to_datetime(value)
            now = parsedate_to_datetime(self.header(b"date") or "")
            return min(max((until - now).total_seconds(), 0.0), _LONGEST_WAIT)
        except (ValueError, TypeError, OverflowError):
            return None


@dataclass(kw_only=True, slots=True)
class _Connection:
    stream: GuardedStream
    http: httpcore.AsyncHTTP11Connection


@dataclass(kw_only=True, slots=True)
class _Answer:
    """What has arrived so far; kept outside the exchange so that a deadline cannot take it away."""

    status: int | None = None
    headers: Sequence[tuple[bytes, bytes]] = ()
    received_at: float | None = None
    body: bytearray = field(default_factory=bytearray)
    truncated: bool = False


class Outbound:
    """One per adapter and event loop. `resolver` and `tls` are for tests and for operators with their own."""

    def __init__(
        self,
        policy: OutboundPolicy,
        *,
        resolver: Resolver | None = None,
        tls: ssl.SSLContext | None = None,
        keep_alive: float = KEEP_ALIVE,
    ) -> None:
        self._connector = Connector(policy, resolver=resolver, tls=tls)
        self._keep_alive = keep_alive
        self._idle: dict[tuple[str, str, int], deque[_Connection]] = {}
        self._tidied_at = 0.0

    async def send(
        self,
        method: str,
        url: str,
        *,
        headers: Sequence[tuple[bytes, bytes]],
        content: bytes | None,
        seconds: float,
        limit: int,
        may_send: MaySend,
        fresh: bool = False,
    ) -> Exchange:
        """One HTTP/1.1 exchange. `seconds` is the total deadline, `limit` the most bytes of a body that are kept."""
        began = time.monotonic()
        permit = Permit(may_send)
        answer = _Answer()
        observation, detail = Observation.ANSWERED, ""
        try:
            async with asyncio.timeout(seconds):
                target = parse_target(url)
                request = _request(method, target, headers=headers, content=content)
                await self._exchange(request, target, permit=permit, answer=answer, limit=limit, fresh=fresh)
        except Exception as error:
            observation, detail = _observe(error, sent=permit.sent_at is not None, seconds=seconds)
            if answer.status is not None:
                observation, answer.truncated = Observation.ANSWER_CUT, True
        sent = None if observation in UNSENT else permit.sent_at
        return Exchange(
            observation=observation,
            status=answer.status,
            headers=answer.headers,
            body=bytes(answer.body),
            truncated=answer.truncated,
            sent_after=None if sent is None else sent - began,
            received_after=None if answer.received_at is None else answer.received_at - began,
            detail=detail,
        )

    async def aclose(self) -> None:
        """Closes the idle connections; those in use close with their requests."""
        closing = [connection for queue in self._idle.values() for connection in queue]
        self._idle.clear()
        for connection in closing:
            await connection.http.aclose()

    async def _exchange(
        self,
        request: httpcore.Request,
        target: Target,
        *,
        permit: Permit,
        answer: _Answer,
        limit: int,
        fresh: bool,
    ) -> None:
        connection = await self._acquire(target, fresh=fresh)
        connection.stream.permit = permit
        try:
            response = await connection.http.handle_async_request(request)
            answer.received_at = time.monotonic()
            answer.status, answer.headers = response.status, response.headers
            await _read(response, answer, limit=limit)
        finally:
            connection.stream.permit = None
            await self._release(connection, target, fresh=fresh)

    async def _acquire(self, target: Target, *, fresh: bool) -> _Connection:
        await self._tidy()
        if not fresh:
            idle = self._idle.get((target.scheme, target.host, target.port))
            while idle:
                connection = idle.pop()  # the one used last is the least likely to be stale
                if not connection.http.has_expired():
                    return connection
                await connection.http.aclose()
        stream = await self._connector.open(target)
        origin = httpcore.Origin(target.scheme.encode(), target.host.encode(), target.port)
        return _Connection(
            stream=stream,
            http=httpcore.AsyncHTTP11Connection(origin=origin, stream=stream, keepalive_expiry=self._keep_alive),
        )

    async def _release(self, connection: _Connection, target: Target, *, fresh: bool) -> None:
        idle = self._idle.setdefault((target.scheme, target.host, target.port), deque())
        if fresh or not connection.http.is_idle() or len(idle) >= _IDLE_PER_ORIGIN:
            with anyio.CancelScope(shield=True):
                await connection.http.aclose()
        else:
            idle.append(connection)

    async def _tidy(self) -> None:
        """Every few seconds, close what nobody asked for again: else a host called once keeps a socket for ever."""
        now = time.monotonic()
        if now - self._tidied_at < self._keep_alive:
            return
        self._tidied_at = now
        expired: list[_Connection] = []
        for origin, idle in list(self._idle.items()):
            while idle and idle[0].http.has_expired():
                expired.append(idle.popleft())
            if not idle:
                del self._idle[origin]
        for connection in expired:
            await connection.http.aclose()


def _request(
    method: str, target: Target, *, headers: Sequence[tuple[bytes, bytes]], content: bytes | None
) -> httpcore.Request:
    whole = [(b"Host", target.authority), *headers]
    given = {name.lower() for name, _ in headers}
    whole.extend((name, value) for name, value in _DEFAULT_HEADERS if name.lower() not in given)
    if content is not None:
        whole.append((b"Content-Length", str(len(content)).encode()))
    url = httpcore.URL(scheme=target.scheme.encode(), host=target.host.encode(), port=target.port, target=target.path)
    return httpcore.Request(method.encode("ascii"), url, headers=whole, content=content or b"")


def _observe(error: Exception, *, sent: bool, seconds: float) -> tuple[Observation, str]:
    for candidate in type(error).__mro__:
        if candidate in EXCEPTIONS:
            before, after = EXCEPTIONS[candidate]
            break
    else:
        before, after = EXCEPTIONS[Exception]
    observation = after if sent else before
    if observation in (Observation.DEADLINE, Observation.DEADLINE_UNSENT):
        return observation, f"{seconds:g} s"
    if observation in (Observation.DEFECT, Observation.DEFECT_UNSENT):
        return observation, type(error).__name__
    return observation, _words(error)


def _words(error: Exception) -> str:
    """Of our own errors the text; of a library's never, since it may quote a header or the answer."""
    if isinstance(error, httpcore.RemoteProtocolError):
        silent = str(error).startswith("Server disconnected")
        return "it closed the connection without an answer" if silent else "it is not valid HTTP/1.1"
    if isinstance(error, httpcore.LocalProtocolError):
        return "a header or the url is not valid in HTTP"
    if isinstance(error, _OURS):
        return str(error)
    return type(error).__name__


# --- the body ------------------------------------------------------------------------------------------------------


async def _read(response: httpcore.Response, answer: _Answer, *, limit: int) -> None:
    """Reads at most `limit` bytes before and after decompression into `answer`, then lets the connection go."""
    decoder = decoder_for(response.headers)
    read = 0
    try:
        async for chunk in response.aiter_stream():
            read += len(chunk)
            room = limit - len(answer.body)
            plain, whole = (chunk[:room], len(chunk) <= room) if decoder is None else decoder.feed(chunk, room)
            answer.body += plain
            if not whole or read > limit + _READ_AHEAD:
                answer.truncated = True
                break
    finally:
        # Not read to its end, httpcore closes the connection here; else it becomes idle.
        await response.aclose()
    if decoder is not None and not decoder.finished:
        answer.truncated = True
