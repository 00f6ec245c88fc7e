"""Tools over HTTP: `HttpTools.send` performs one attempt at a tool call and says how certain its outcome is.

A pipeline of four values: `ToolRequest` → `HttpRequest` (`tool_requests.py`) → `Exchange` (`outbound.py`) → `Outcome`
by the certainty table (`app/domain/certainty.py`). It raises nothing but cancellation, never sends twice, never reads
what the body means, and never lets a secret into evidence or a message.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

from pydantic import SecretStr

from app.domain.bodies import storable_text
from app.domain.certainty import Observation, declarations, judge
from app.domain.outcomes import Evidence, Failure, Outcome
from app.domain.plan import Tool
from app.ports import tool_requests
from app.ports.outbound import Exchange, Outbound, OutboundPolicy, Resolver
from app.ports.secrets import Secrets
from app.ports.world import MaySend, ToolRequest

_REQUEST_ID_HEADERS = (b"x-request-id", b"request-id")


class HttpTools:
    """Implements `ToolPort`. One per process and event loop; `aclose` lets go of idle connections."""

    def __init__(
        self,
        policy: OutboundPolicy,
        *,
        secrets: Mapping[str, SecretStr],
        response_limit: int,
        resolver: Resolver | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._outbound = Outbound(policy, resolver=resolver, tls=tls)
        self._secrets = Secrets(secrets)
        self._limit = response_limit

    async def send(self, request: ToolRequest, *, seconds: float, may_send: MaySend) -> Outcome:
        secrets = self._secrets.and_of_request(request.result_token)
        try:
            prepared = tool_requests.render(request, secrets)
        except tool_requests.Unrenderable as error:
            return self._outcome(request.tool, Exchange(observation=error.observation, detail=error.detail), secrets)
        except Exception as error:  # a defect of ours before anything was sent: a failure to show, not a lost attempt
            defect = Exchange(observation=Observation.DEFECT_UNSENT, detail=type(error).__name__)
            return self._outcome(request.tool, defect, secrets)
        exchange = await self._outbound.send(
            prepared.method,
            prepared.url,
            headers=prepared.headers,
            content=prepared.content,
            seconds=seconds,
            limit=_limit(request.tool, self._limit) + secrets.longest,
            may_send=may_send,
            fresh=request.fresh_connection,
        )
        return self._outcome(request.tool, exchange, secrets)

    async def aclose(self) -> None:
        await self._outbound.aclose()

    def _outcome(self, tool: Tool, exchange: Exchange, secrets: Secrets) -> Outcome:
        wait = exchange.retry_after
        verdict = judge(
            exchange.observation,
            status=exchange.status,
            effect=tool.effect,
            tool=tool.name,
            declared=declarations(tool),
            detail=exchange.detail,
            retry_after=None if wait is None else timedelta(seconds=wait),
        )
        return Outcome(
            certainty=verdict.outcome,
            failure=None if verdict.failure is None else _masked(verdict.failure, secrets),
            evidence=_evidence(exchange, secrets, limit=_limit(tool, self._limit)),
            status_code=exchange.status,
            sent_after=exchange.sent_after,
            received_after=exchange.received_after,
            request_id=_request_id(exchange, secrets),
            pending=verdict.pending,
        )


def _limit(tool: Tool, most: int) -> int:
    """A declaration may want less than the server keeps, never more."""
    return most if tool.max_output is None else min(most, tool.max_output)


def _evidence(exchange: Exchange, secrets: Secrets, *, limit: int) -> Evidence | None:
    if exchange.status is None:
        return None
    # Masked before it is cut to the cap, so that no secret can be cut in two.
    body = secrets.mask(exchange.body)
    truncated = exchange.truncated or len(body) > limit
    media_type = exchange.header(b"content-type")
    if media_type is not None:
        media_type = storable_text(secrets.mask_text(media_type), limit=200)
    return Evidence(body=body[:limit], media_type=media_type, truncated=truncated)


def _masked(failure: Failure, secrets: Secrets) -> Failure:
    return replace(failure, message=storable_text(secrets.mask_text(failure.message), limit=1000))


def _request_id(exchange: Exchange, secrets: Secrets) -> str | None:
    for name in _REQUEST_ID_HEADERS:
        value = exchange.header(name)
        if value is not None:
            return storable_text(secrets.mask_text(value), limit=200)
    return None
