"""A request whose sender does not wait for the answer: sent whole, then the connection is closed.

What a worker's death looks like from the tool's side, made on purpose: `surefoot tool check` asks with it whether a
tool's declaration holds when an answer is lost. Through the same guard as every other request (judged addresses, no
redirects, no proxy). Never used to perform a workflow's calls.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any, Final

import anyio
import httpcore
from pydantic import SecretStr

from app.ports import tool_requests
from app.ports.addresses import OutboundPolicy, UrlRefused, parse_target
from app.ports.connecting import Connector, GuardedStream, Permit, Refused, Resolver, TlsFailed, Unconnected, Unresolved
from app.ports.secrets import Secrets
from app.ports.world import ToolRequest

_OWN_HEADERS: Final = ((b"User-Agent", b"surefoot"), (b"Accept-Encoding", b"gzip, deflate"))
"""As `outbound.py` sends them: the request that is cut is the request that is repeated."""

_NEVER_CONNECTED: Final = (UrlRefused, Unresolved, Refused, Unconnected, TlsFailed)


LINGER: Final = 0.1
"""Seconds the connection stays open for an answer that nobody reads. Many servers stop working for a client that has
gone: so a quick tool does it and its answer is lost, a slow one is left in the middle, as by a worker that dies."""


class NotCut(Exception):
    """The request did not leave as a whole; the message is a fragment that says why, without secrets."""


class Cutter:
    """One per event loop. `resolver` and `tls` are for tests and for operators with their own."""

    def __init__(
        self,
        policy: OutboundPolicy,
        *,
        secrets: Mapping[str, SecretStr],
        resolver: Resolver | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._connector = Connector(policy, resolver=resolver, tls=tls)
        self._secrets = Secrets(secrets)

    async def send(self, request: ToolRequest, *, seconds: float) -> None:
        """Returns when the last byte was given to the socket and the socket was closed. Raises `NotCut`."""
        try:
            prepared = tool_requests.render(request, self._secrets)
        except tool_requests.Unrenderable as error:
            raise NotCut(self._secrets.mask_text(error.detail)) from error
        try:
            async with asyncio.timeout(seconds):
                await self._send(prepared)
        except TimeoutError as error:
            raise NotCut(f"it could not be sent within {seconds:g} s") from error
        except _NEVER_CONNECTED as error:
            raise NotCut(str(error)) from error
        except httpcore.WriteError as error:
            raise NotCut("the connection broke while the request was being sent") from error
        except httpcore.LocalProtocolError as error:
            raise NotCut("a header or the url is not valid in HTTP") from error

    async def _send(self, prepared: tool_requests.HttpRequest) -> None:
        target = parse_target(prepared.url)
        stream = await self._connector.open(target)
        stream.permit = Permit(lambda: True)
        deaf = _Deaf(stream)
        origin = httpcore.Origin(target.scheme.encode(), target.host.encode(), target.port)
        headers = [(b"Host", target.authority), *prepared.headers]
        given = {name.lower() for name, _ in headers}
        headers += [(name, value) for name, value in _OWN_HEADERS if name.lower() not in given]
        if prepared.content is not None:
            headers.append((b"Content-Length", str(len(prepared.content)).encode()))
        url = httpcore.URL(
            scheme=target.scheme.encode(), host=target.host.encode(), port=target.port, target=target.path
        )
        request = httpcore.Request(
            prepared.method.encode("ascii"), url, headers=headers, content=prepared.content or b""
        )
        try:
            async with httpcore.AsyncHTTP11Connection(origin=origin, stream=deaf) as connection:
                await connection.handle_async_request(request)
        except (_HungUp, httpcore.ReadError) as hung_up:
            # httpcore asks for an answer also after it could not send; then the request is not known to have left.
            if deaf.broken is not None:
                raise deaf.broken from hung_up


class _HungUp(Exception):
    """Where the answer would have been read."""


class _Deaf(httpcore.AsyncNetworkStream):
    """Writes through; hangs up where the answer would be read, when it begins or is slow to."""

    def __init__(self, stream: GuardedStream) -> None:
        self._stream = stream
        self.broken: httpcore.WriteError | None = None

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with anyio.move_on_after(LINGER):
            await self._stream.read(1)
        raise _HungUp

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        try:
            await self._stream.write(buffer)
        except httpcore.WriteError as error:
            self.broken = error
            raise

    async def aclose(self) -> None:
        await self._stream.aclose()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
