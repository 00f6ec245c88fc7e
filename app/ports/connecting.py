"""Connections to judged addresses: resolve once, judge every answer, connect to a judged one, guard what is written.

`Connector.open` is the only door to a socket for tools, webhooks and probes; it raises the five errors below and
nothing else. `GuardedStream` stands between HTTP and the socket: before the first byte of a request (after TLS), and
before every further piece of it, it asks that request's `Permit`, which remembers when bytes left, so that every later
error is known to be before or after it. The name is never resolved a second time, and TLS still checks the certificate
against the name.
"""

from __future__ import annotations

import asyncio
import functools
import os
import select
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import anyio
import anyio.abc
import anyio.streams.tls
import certifi
import httpcore

from app.ports.addresses import OutboundPolicy, Target
from app.ports.world import MaySend

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""(host, port) → addresses, best first. Raises OSError."""

_RESOLVER_THREADS: Final = 16
"""getaddrinfo blocks for seconds when a name server is away; each name takes one thread however many wait for it."""

_PATIENCE: Final = 3.0
"""Seconds for one address while another is left to try: a broken IPv6 route must not use up the deadline."""


class Refused(Exception):
    """The policy forbids every address of the host."""


class Unresolved(Exception):
    """The name has no address, or no resolver answered."""


class Unconnected(Exception):
    """No address accepted a connection."""


class TlsFailed(Exception):
    """The handshake failed: no byte of the request was sent."""


class NotPermitted(Exception):
    """`may_send` said no at the last moment."""


class Permit:
    """One request's right to leave, asked for before each piece of it, and the instant the first one left."""

    __slots__ = ("_may_send", "sent_at")

    def __init__(self, may_send: MaySend) -> None:
        self._may_send = may_send
        self.sent_at: float | None = None
        """`time.monotonic()` right before the first byte was given to the socket."""

    def use(self) -> None:
        # Headers and body are two pieces, and the process may have stood still between them until its call was made
        # again elsewhere: what is incomplete at the tool takes no effect.
        if not self._may_send():
            raise NotPermitted
        if self.sent_at is None:
            self.sent_at = time.monotonic()


class GuardedStream(httpcore.AsyncNetworkStream):
    """A connected byte stream, TLS included, that carries one request after another, each under its own permit."""

    def __init__(self, stream: anyio.abc.ByteStream, raw_socket: socket.socket) -> None:
        self._stream = stream
        self._socket = raw_socket
        self.permit: Permit | None = None

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """The total deadline is the caller's, so `timeout` is not used."""
        try:
            return await self._stream.receive(max_bytes)
        except anyio.EndOfStream:
            return b""
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, ssl.SSLError, OSError) as error:
            raise httpcore.ReadError(_name(error)) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if not buffer:
            return
        if self.permit is None:
            raise NotPermitted
        self.permit.use()
        try:
            await self._stream.send(buffer)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, ssl.SSLError, OSError) as error:
            raise httpcore.WriteError(_name(error)) from error

    async def aclose(self) -> None:
        await self._stream.aclose()

    def get_extra_info(self, info: str) -> Any:
        """httpcore asks one thing: is an idle connection readable, that is, did the other side close it."""
        return _is_readable(self._socket) if info == "is_readable" else None


class Connector:
    def __init__(self, policy: OutboundPolicy, *, resolver: Resolver | None = None, tls: ssl.SSLContext | None = None):
        self._policy = policy
        self._resolve = resolver or SystemResolver()
        self._tls = tls

    async def open(self, target: Target) -> GuardedStream:
        """Raises Refused, Unresolved, Unconnected or TlsFailed; the deadline is the caller's."""
        addresses = await self._judged_addresses(target)
        stream = await _connect(addresses, target)
        raw_socket: socket.socket = stream.extra(anyio.abc.SocketAttribute.raw_socket)
        if target.scheme == "http":
            return GuardedStream(stream, raw_socket)
        return GuardedStream(await self._handshake(stream, target), raw_socket)

    async def _judged_addresses(self, target: Target) -> list[str]:
        try:
            answers = await self._resolve(target.host, target.port)
        except (OSError, UnicodeError) as error:
            raise Unresolved(f"{target.host} has no address ({_name(error)})") from error
        if not answers:
            raise Unresolved(f"{target.host} has no address")
        permitted = [address for address in answers if self._policy.permits(address, host=target.host)]
        if not permitted:
            # The address itself stays unsaid: a definition must not be a way to look names up inside a network.
            raise Refused(f"{target.host} is inside a private network")
        return permitted

    async def _handshake(self, stream: anyio.abc.ByteStream, target: Target) -> anyio.abc.ByteStream:
        try:
            return await anyio.streams.tls.TLSStream.wrap(
                stream,
                server_side=False,
                hostname=target.host.rstrip("."),
                ssl_context=self._tls or default_tls(),
                standard_compatible=False,  # HTTP frames its messages itself; many servers skip close_notify
            )
        except ssl.SSLCertVerificationError as error:
            await anyio.aclose_forcefully(stream)
            raise TlsFailed(f"the certificate of {target.shown} is not trusted ({error.verify_message})") from error
        except (ssl.SSLError, anyio.EndOfStream, anyio.BrokenResourceError, OSError, ValueError) as error:
            await anyio.aclose_forcefully(stream)
            raise TlsFailed(f"TLS with {target.shown} failed ({_name(error)})") from error
        except BaseException:
            # Cancelled, most of the time: the socket must not outlive its request.
            await anyio.aclose_forcefully(stream)
            raise


async def _connect(addresses: Sequence[str], target: Target) -> anyio.abc.SocketStream:
    last = len(addresses) - 1
    reason = ""
    for index, address in enumerate(addresses):
        try:
            async with asyncio.timeout(None if index == last else _PATIENCE):
                return await anyio.connect_tcp(address, target.port)
        except (OSError, anyio.ConnectionFailed) as error:  # TimeoutError is an OSError
            reason = _name(error)
    raise Unconnected(f"no connection to {target.shown} ({reason})")


class SystemResolver:
    """getaddrinfo on threads of its own, one per name at a time: a dead name server delays only its own names."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_RESOLVER_THREADS, thread_name_prefix="resolver")
        self._asked: dict[tuple[str, int], asyncio.Future[Sequence[str]]] = {}

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        question = (host, port)
        answer = self._asked.get(question)
        if answer is None:
            loop = asyncio.get_running_loop()
            answer = loop.run_in_executor(self._threads, _getaddrinfo, host, port)
            self._asked[question] = answer
            answer.add_done_callback(functools.partial(self._answered, question))
        return await asyncio.shield(answer)

    def _answered(self, question: tuple[str, int], answer: asyncio.Future[Sequence[str]]) -> None:
        self._asked.pop(question, None)
        if not answer.cancelled():
            answer.exception()  # read, so that asyncio does not report it when every waiter has gone


def _getaddrinfo(host: str, port: int) -> Sequence[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@functools.cache
def default_tls() -> ssl.SSLContext:
    """The operator's trust store (OpenSSL reads SSL_CERT_FILE itself) and certifi's, which slim images lack."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    context.set_alpn_protocols(["http/1.1"])
    return context


def _is_readable(raw_socket: socket.socket) -> bool:
    if raw_socket.fileno() < 0:
        return True  # closed: reading it would not wait either
    poll = select.poll()
    poll.register(raw_socket.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _name(error: BaseException) -> str:
    """A network error in a few words: those of its errno, or its class. Never its text, which may hold addresses."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, socket.gaierror):
            return str(cause.strerror).lower()
        if isinstance(cause, OSError) and cause.errno:
            return os.strerror(cause.errno).lower()
        cause = cause.__cause__
    return "timed out" if isinstance(error, TimeoutError) else type(error).__name__
