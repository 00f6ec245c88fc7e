"""The API's HTTP server: uvicorn with an ending of our own, on a socket that somebody else may have opened.

A stop signal sets `stopping` first, so that whoever streams or waits ends its answer by itself (an open stream blocks
uvicorn's shutdown for ever, and `is_disconnected()` never turns true); then connections have `GRACE` seconds. The
process ends with 0 after a stop that was asked for. One structured line per request instead of an access log.

Never here: what is served. `serve` takes any ASGI application.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from types import FrameType
from typing import Any, Final

import structlog
import uvicorn

GRACE: Final = 8
"""Seconds for answers in progress after a stop signal; then they are cancelled. Under the supervisor's 10."""

KEEP_ALIVE: Final = 20
"""Seconds an idle connection is kept; below the usual 30 to 60 of proxies would have them reset us, above keeps files
open."""

_QUIET: Final = frozenset({"/livez", "/readyz", "/metrics"})
"""Asked every few seconds by machines; logged only when they fail."""

_log = structlog.get_logger("surefoot.api")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]


class Server(uvicorn.Server):
    """Tells `stopping` about the signal, and does not raise it again afterwards as uvicorn would."""

    def __init__(self, config: uvicorn.Config, *, stopping: asyncio.Event) -> None:
        super().__init__(config)
        self._stopping = stopping
        self._loop = asyncio.get_running_loop()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True
        self._loop.call_soon_threadsafe(self._stopping.set)


class RequestLog:
    """ASGI middleware: method, path, status, milliseconds and the request id, after the last byte."""

    def __init__(self, app: Application) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        seen: dict[str, Any] = {"status": None, "request_id": None}
        began = time.perf_counter()

        async def watch(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                seen["status"] = message["status"]
                seen["request_id"] = dict(message.get("headers", ())).get(b"request-id", b"").decode("latin-1") or None
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            status = seen["status"]
            if scope["path"] not in _QUIET or status is None or status >= 400:
                _log.info(
                    "request",
                    method=scope["method"],
                    path=scope["path"],
                    status=status,
                    ms=round((time.perf_counter() - began) * 1000, 1),
                    request_id=seen["request_id"],
                )


async def serve(app: Application, *, listener: socket.socket, stopping: asyncio.Event, grace: int = GRACE) -> None:
    """Serve until a stop signal has come and the answers in progress have ended (or `grace` seconds have)."""
    config = uvicorn.Config(
        RequestLog(app),
        http="h11",  # what is tested, whatever else is installed beside us
        access_log=False,
        log_config=None,  # uvicorn's loggers reach the root logger and are shaped like every other line
        server_header=False,
        lifespan="on",
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=grace,
        ws="none",
    )
    await Server(config, stopping=stopping).serve(sockets=[listener])
