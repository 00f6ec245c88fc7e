"""The model port: one attempt at one call of the Messages API, through the Anthropic SDK.

`ClaudeModel.send` streams the answer and returns an `Outcome`; it raises nothing for what the world does (only its
own cancellation passes through). It never retries: the SDK's retries are off, because they would sleep in the worker
and ask no policy. It never parses the answer beyond putting the stream together: the evidence is the message as
compact JSON, judged later by `app/domain/answers.py`.

    not_sent    no key, fenced, or nothing was written before it failed (DNS, connect, TLS, pool)
    failed      the provider answered with an error, as a status or as an event inside the stream
    unknown     it broke off: cut, stalled, past the deadline, or an answer without a stop reason
    succeeded   a message with a stop reason

The key stays here: it is masked in whatever the provider sends back. There is no guard against private addresses:
the base URL is the operator's own setting. The SDK takes 1–4 s of CPU to import: `warm` does that in a thread.
"""

from __future__ import annotations

import asyncio
import json
from contextvars import ContextVar
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, cast

from app.domain import conversation
from app.domain.outcomes import JSON, Evidence, Failure, Outcome, Usage
from app.domain.states import AttemptOutcome, FailureKind
from app.ports import prices
from app.ports.world import MaySend, ModelRequest

if TYPE_CHECKING:
    import anthropic
    import httpx2
    from anthropic.types import MessageParam, OutputConfigParam, ToolParam

BASE_URL: Final = "https://api.anthropic.com"

CONNECT_SECONDS: Final = 10.0
"""DNS, TCP and TLS: a provider that does not take a connection by then will not within the attempt."""


class _Fenced(Exception):
    """`may_send` said no: raised inside the transport, before the first byte."""


@dataclass(kw_only=True, slots=True)
class _Sending:
    """What became of one attempt's request, as seen where its bytes leave."""

    may_send: MaySend
    clock: asyncio.AbstractEventLoop
    began: float
    fenced: bool = False
    sent_after: float | None = None

    async def trace(self, event: str, info: dict[str, Any]) -> None:
        """httpcore2's trace hook: connected, TLS done, the headers are about to be written. A proxy's CONNECT is not
        our request yet."""
        if not event.endswith("send_request_headers.started") or info["request"].method == b"CONNECT":
            return
        if not self.may_send():
            self.fenced = True
            raise _Fenced
        self.sent_after = self.elapsed()

    def elapsed(self) -> float:
        return self.clock.time() - self.began


_sending: ContextVar[_Sending] = ContextVar("surefoot_model_sending")
"""The attempt that this task performs: the SDK has no way to hand something of ours to its transport."""


class ClaudeModel:
    """Implements `ModelPort`. One per process; its connections belong to the event loop that uses it."""

    def __init__(self, *, base_url: str | None, api_key: str | None, telemetry: bool = False) -> None:
        self._base_url = base_url or BASE_URL
        self._api_key = (api_key or "").strip()
        self._telemetry = telemetry
        """True lets the SDK write its own OpenTelemetry spans if a tracer provider is registered."""
        self._client: anthropic.AsyncAnthropic | None = None
        self._opening = Lock()
        self._kept: object = None

    async def warm(self) -> None:
        """Imports the SDK and the price table in a thread and opens the client, so that the loop keeps ticking.
        Raises what a base URL raises that is none. Without a key no request ever leaves: nothing is loaded then, and
        a worker that only calls tools does not carry the SDK's memory."""
        if not self._has_key:
            return
        await asyncio.to_thread(_import)
        await asyncio.to_thread(self._open)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    async def send(self, request: ModelRequest, *, seconds: float, may_send: MaySend) -> Outcome:
        if not self._has_key:
            return _no_key()
        loop = asyncio.get_running_loop()
        sending = _Sending(may_send=may_send, clock=loop, began=loop.time())
        token = _sending.set(sending)
        try:
            return await self._attempt(request, seconds=seconds, sending=sending)
        finally:
            _sending.reset(token)

    @property
    def _has_key(self) -> bool:
        return bool(self._api_key) and self._api_key.isascii() and self._api_key.isprintable()

    def _open(self) -> anthropic.AsyncAnthropic:
        with self._opening:
            if self._client is None:
                import anthropic

                client = anthropic.AsyncAnthropic(
                    api_key=self._api_key,
                    base_url=self._base_url,
                    max_retries=0,
                    open_telemetry=None if self._telemetry else False,
                    # A redirect would send the prompt and the key somewhere the operator did not name.
                    http_client=anthropic.DefaultAsyncHttpxClient(
                        follow_redirects=False, event_hooks={"request": [_watch]}
                    ),
                )
                client.messages  # noqa: B018 - the SDK imports its types on first access
                self._kept = _generic_message()
                self._client = client
            return self._client

    async def _attempt(self, request: ModelRequest, *, seconds: float, sending: _Sending) -> Outcome:
        if self._client is None:
            await asyncio.to_thread(_import)
        import anthropic

        from app.ports import model_failures

        partial = _Partial()
        try:
            async with asyncio.timeout(seconds):
                client = await asyncio.to_thread(self._open) if self._client is None else self._client
                message = await _stream(client, request, seconds=seconds, partial=partial)
                return _arrived(message, sending=sending, request_id=partial.request_id)
        except anthropic.APIStatusError as error:
            return Outcome(
                certainty=AttemptOutcome.FAILED,
                failure=model_failures.of_status(error, secret=self._api_key),
                evidence=model_failures.evidence_of(error, secret=self._api_key),
                status_code=error.status_code,
                sent_after=sending.sent_after,
                received_after=sending.elapsed(),
                usage=partial.usage(),
                request_id=error.request_id,
            )
        except Exception as error:
            # Everything a server, a network or a stream can do ends here; the table names it.
            if sending.fenced:
                return _not_permitted()
            sent = sending.sent_after is not None
            return Outcome(
                certainty=AttemptOutcome.UNKNOWN if sent else AttemptOutcome.NOT_SENT,
                failure=model_failures.of_exception(error, sent=sent),
                evidence=partial.evidence(),
                sent_after=sending.sent_after,
                usage=partial.usage(),
                request_id=partial.request_id,
            )


@dataclass(kw_only=True, slots=True)
class _Partial:
    """What had arrived when a stream broke."""

    request_id: str | None = None
    snapshot: anthropic.types.ParsedMessage[None] | None = None
    """The message so far, which the SDK goes on completing in place."""

    def usage(self) -> Usage | None:
        return None if self.snapshot is None else prices.tokens_of(_as_json(self.snapshot))

    def evidence(self) -> Evidence | None:
        """The half answer, marked as half whatever its stop reason said: a broken stream is never an answer."""
        if self.snapshot is None:
            return None
        half = _as_json(self.snapshot) | {"stop_reason": None}
        return Evidence(body=json.dumps(half, separators=(",", ":")).encode(), media_type="application/json")


async def _stream(
    client: anthropic.AsyncAnthropic, request: ModelRequest, *, seconds: float, partial: _Partial
) -> dict[str, JSON]:
    """The whole message of one streamed request, in the provider's shape."""
    import anthropic
    import httpx2

    config = _output_config(request)
    unshaped = request.output_schema is not None and "format" not in config
    system = "\n\n".join(part for part in (request.system, _spoken_schema(request) if unshaped else None) if part)
    manager = client.messages.stream(
        model=request.model,
        max_tokens=request.max_tokens,
        messages=cast("list[MessageParam]", conversation.parsed(request.messages)),
        system=system or anthropic.omit,
        tools=[cast("ToolParam", dict(tool)) for tool in request.tools] or anthropic.omit,
        output_config=cast("OutputConfigParam", config) if config else anthropic.omit,
        extra_headers=dict(request.headers),
        timeout=httpx2.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS)),
    )
    async with manager as stream:
        partial.request_id = stream.request_id
        async for event in stream:
            if event.type == "message_start":
                partial.snapshot = stream.current_message_snapshot
    if partial.snapshot is None:
        raise ValueError("the answer holds no message")
    return _as_json(partial.snapshot)


def _output_config(request: ModelRequest) -> dict[str, JSON]:
    """Effort and format. The provider knows a subset of JSON Schema: what it does not know goes into descriptions,
    and the answer is checked against the whole schema afterwards."""
    import anthropic

    config: dict[str, JSON] = {} if request.effort is None else {"effort": request.effort}
    if request.output_schema is not None and not _loses_meaning(request.output_schema):
        try:
            schema = anthropic.transform_schema(dict(request.output_schema))
        except (ValueError, AssertionError, TypeError, AttributeError):
            # The SDK's words for a schema that the subset cannot say (no type, a list of types): it is spoken instead.
            return config
        config["format"] = {"type": "json_schema", "schema": schema}
    return config


def _loses_meaning(schema: JSON) -> bool:
    """True if the subset would forbid what the schema allows: objects with names that are not known beforehand."""
    if isinstance(schema, list):
        return any(_loses_meaning(part) for part in schema)
    if not isinstance(schema, dict):
        return False
    if isinstance(schema.get("additionalProperties"), dict) or "patternProperties" in schema:
        return True
    if schema.get("type") == "object" and "properties" not in schema:
        return True
    return any(_loses_meaning(part) for part in schema.values())


def _spoken_schema(request: ModelRequest) -> str:
    text = json.dumps(request.output_schema, ensure_ascii=False, separators=(",", ":"))
    return f"Answer with one JSON value that fits this JSON Schema, and nothing else:\n{text}"


def _as_json(message: anthropic.types.ParsedMessage[None]) -> dict[str, JSON]:
    """The message as the provider gave it: no nulls added, unknown fields kept."""
    return cast("dict[str, JSON]", message.to_dict(mode="json", warnings=False))


def _arrived(message: dict[str, JSON], *, sending: _Sending, request_id: str | None) -> Outcome:
    if not isinstance(message.get("content"), list):
        raise ValueError("the answer has no content")
    ended = message.get("stop_reason") is not None
    return Outcome(
        certainty=AttemptOutcome.SUCCEEDED if ended else AttemptOutcome.UNKNOWN,
        failure=None
        if ended
        else Failure(
            kind=FailureKind.NETWORK,
            message="The model's answer ended early; nothing of it was used.",
            fix="Nothing to do: the call is repeated.",
        ),
        evidence=Evidence(body=_compact(message), media_type="application/json"),
        status_code=200,
        sent_after=sending.sent_after,
        received_after=sending.elapsed(),
        usage=prices.usage_of(message) if ended else prices.tokens_of(message),
        request_id=request_id,
    )


def _generic_message() -> object:
    """The class that the SDK names once for every stream, `ParsedMessage[ResponseFormatT]`. Pydantic makes it anew
    (1.2 ms of CPU) unless somebody holds on to it: its own cache is weak, and the collector empties it after almost
    every call."""
    from anthropic.lib.streaming import AsyncMessageStream
    from anthropic.types.parsed_message import ParsedMessage

    generic: Any = ParsedMessage
    (response_format,) = cast("Any", AsyncMessageStream).__parameters__
    return generic[response_format]


def _import() -> None:
    """Everything slow, once in a process."""
    from app.ports import model_failures  # noqa: F401 - it imports the SDK

    prices.warm()


async def _watch(request: httpx2.Request) -> None:
    """Runs before each request of the client: lets the attempt see where its first byte leaves."""
    request.extensions["trace"] = _sending.get().trace


def _no_key() -> Outcome:
    return Outcome(
        certainty=AttemptOutcome.NOT_SENT,
        failure=Failure(
            kind=FailureKind.AUTH,
            message="There is no usable key for the model provider.",
            fix="Set ANTHROPIC_API_KEY for the workers, restart them, then retry the workflow.",
        ),
    )


def _not_permitted() -> Outcome:
    return Outcome(
        certainty=AttemptOutcome.NOT_SENT,
        failure=Failure(
            kind=FailureKind.WORKER_LOST,
            message="This worker's lease was over before the request was sent.",
            fix="Nothing to do: another worker takes the call.",
        ),
    )


def _compact(message: dict[str, JSON]) -> bytes:
    """Raises ValueError for text that is no Unicode (a lone surrogate): no request could carry it back."""
    return json.dumps(message, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
