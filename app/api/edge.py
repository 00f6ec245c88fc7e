"""The outermost layer: every request gets an id and a trace, every response carries the id, nothing escapes.

Promises: `Request-Id` on every response (the client's own if it is sane), no body beyond the limit is read whether
its length was announced or not, an exception that nobody expected becomes a 500 problem and one log line with its
stack. Plain ASGI: no copy of the body, no task of its own.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import MutableMapping
from typing import Any, Final

import structlog
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils.compat import uuid7

from app.api import problems
from app.api.context import Passage
from app.domain import ids, traceparent
from app.errors import BodyTooLarge

_SANE_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}", re.ASCII)
"""What may be echoed into headers and logs."""

_log = structlog.get_logger(__name__)


class Edge:
    def __init__(self, app: ASGIApp, *, body_limit: int) -> None:
        self.app = app
        self.body_limit = body_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        passage = _passage(headers)
        scope.setdefault("state", {})["passage"] = passage
        reply = _Reply(send, request_id=passage.request_id)
        structlog.contextvars.bind_contextvars(request_id=passage.request_id)
        try:
            await self.app(scope, _limited(receive, headers, limit=self.body_limit), reply)
        except ClientDisconnect:
            # Its own business: whatever was accepted before is accepted, and its key finds it again.
            _log.info("client_gone", method=scope["method"], path=scope["path"])
        except Exception:
            _log.exception("request failed", method=scope["method"], path=scope["path"])
            if reply.started:
                # Half an answer is out: only closing the connection tells the client that it is not whole.
                raise
            await problems.internal(Request(scope))(scope, receive, reply)
        finally:
            structlog.contextvars.unbind_contextvars("request_id")


class _Reply:
    """`send` that adds the Request-Id and knows whether the response has begun."""

    def __init__(self, send: Send, *, request_id: str) -> None:
        self._send = send
        self._header = (b"request-id", request_id.encode("ascii"))
        self.started = False

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            message["headers"] = [*message.get("headers", ()), self._header]
        await self._send(message)


def _passage(headers: Headers) -> Passage:
    asked = headers.get("request-id", "")
    sane = _SANE_REQUEST_ID.fullmatch(asked) is not None
    incoming = headers.getlist("traceparent")
    trace = traceparent.parse(incoming[0]) if len(incoming) == 1 else None
    return Passage(
        request_id=asked if sane else ids.encode("req", uuid7()),
        trace=trace or traceparent.new(secrets.token_bytes(traceparent.RANDOM_BYTES)),
    )


def _limited(receive: Receive, headers: Headers, *, limit: int) -> Receive:
    """`receive` that raises BodyTooLarge at the announced length, or at the first byte beyond the limit."""
    announced = headers.get("content-length", "")
    too_long = announced.isdecimal() and announced.isascii() and int(announced[:20]) > limit
    total = 0

    async def receive_limited() -> Message:
        nonlocal total
        if too_long:
            raise BodyTooLarge(f"The body is {announced[:20]} bytes long; the limit is {limit} bytes.")
        message = await receive()
        if message["type"] == "http.request":
            total += len(message.get("body", b""))
            if total > limit:
                raise BodyTooLarge(f"The body is longer than the limit of {limit} bytes.")
        return message

    return receive_limited
