"""The ports: what the engine asks of the world, one Protocol each. The adapters live beside this file.

Every `send` returns an `Outcome` and raises nothing for what the world does. `may_send` is asked at the last moment
before the first byte leaves (after connect and TLS): if it answers False nothing was sent, and the outcome is
`not_sent`. `seconds` is the total deadline of the attempt, connect and body included.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

from app.domain.outcomes import JSON, Outcome
from app.domain.plan import Tool
from app.domain.servers import McpServer
from app.domain.states import Lane
from app.ports.writing import Writing

MaySend = Callable[[], bool]


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolRequest:
    tool: Tool
    arguments: Mapping[str, JSON]
    key: str | None
    """The key as it goes on the wire (`key` or `key#g`), for keyed tools."""
    headers: Mapping[str, str]
    """Surefoot-Workflow, Surefoot-Call, Surefoot-Attempt, traceparent."""
    fresh_connection: bool
    """True for at_most_once and checkable: a stale keep-alive is the commonest false unknown."""
    result_url: str | None = None
    """Where the tool posts a result that comes after a 202: the header Surefoot-Result-Url."""
    result_token: str | None = None
    """What it proves itself with there: Surefoot-Result-Token. A secret: masked in evidence. The same for each attempt
    of a call, as everything that is sent."""
    definition: str | None = None
    """SHA-256 of an MCP tool's definition that a person has agreed to for this call, beside the one that was frozen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelRequest:
    """One call of the Messages API. `messages` are the stored bytes, so that a prefix never changes."""

    model: str
    max_tokens: int
    system: str | None
    messages: Sequence[bytes]
    """Each one JSON object `{"role": …, "content": …}` exactly as stored."""
    tools: Sequence[Mapping[str, JSON]] = ()
    output_schema: Mapping[str, JSON] | None = None
    effort: str | None = None
    tools_forbidden: bool = False
    """The tools stay in the request, because they are part of its prefix, but none may be used."""
    free_form: bool = False
    """The answer is plain text, whatever `output_schema` says; what stands in the prefix because of it stays."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Surefoot-Workflow, Surefoot-Call, Surefoot-Attempt, traceparent."""
    writing: Writing | None = field(default=None, compare=False, repr=False)
    """Who is told what arrives, piece by piece, and what had arrived when the request was broken off."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DeliveryRequest:
    url: str
    event_id: str
    """`webhook-id`: stable over retries."""
    body: bytes
    """Frozen at the first attempt."""
    secrets: Sequence[str]
    """`whsec_…`, one signature each (two while rotating)."""
    gap: bool
    """An earlier event of this stream was given up."""
    timestamp: float
    """`webhook-timestamp`, seconds since the epoch, on the database's clock."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DeliveryResult:
    delivered: bool
    status_code: int | None
    error: str | None
    """One sentence if not delivered."""
    retry_after: float | None
    """Seconds, from 429 or 503."""
    gone: bool
    """410: the receiver asks never to be called again."""
    response_excerpt: str
    duration_ms: int


class ToolPort(Protocol):
    async def send(self, request: ToolRequest, *, seconds: float, may_send: MaySend) -> Outcome: ...


class ToolLister(Protocol):
    """What an MCP server has; beside `ToolPort`, because few workers ever ask."""

    async def discover(self, server: McpServer, *, seconds: float, may_send: MaySend) -> Outcome: ...


class ModelPort(Protocol):
    async def send(self, request: ModelRequest, *, seconds: float, may_send: MaySend) -> Outcome: ...


class WebhookPort(Protocol):
    async def send(self, request: DeliveryRequest, *, seconds: float) -> DeliveryResult: ...


class Feed(Protocol):
    """The calls' own pool of a worker process. `after`: the calls whose outcomes made it due."""

    def offer(self, call_id: UUID, after: Sequence[UUID]) -> bool:
        """True if the pool performs it next. False if it has no room: then the bell rings."""
        ...

    def follows(self, after: Sequence[UUID]) -> bool:
        """Whether a call may take the place of one of these, which holds it until its record has returned."""
        ...

    def take(self, call_id: UUID, after: Sequence[UUID]) -> None:
        """Perform it: it is claimed, and nobody else will."""
        ...


class Bell(Protocol):
    """Tells Redis "look at these ids". A hint: never blocks, never raises, may drop."""

    def ring(self, lane: Lane, ids: Sequence[UUID]) -> None: ...

    @property
    def broker_away(self) -> bool:
        """True while the last publish failed: the sweep then feeds the local pool straight from Postgres."""
        ...
