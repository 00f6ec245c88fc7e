"""The model port: one attempt at one call of the Messages API, through the Anthropic SDK.

`ClaudeModel.send` streams the answer and returns an `Outcome`; it raises nothing for what the world does (only its
own cancellation passes through, after what had arrived was left with `request.writing`). It never retries: the SDK's
retries are off, because they would sleep in the worker and ask no policy. It never parses the answer beyond putting the
stream together: the evidence is the message as compact JSON, judged later by `app/domain/answers.py`.

    not_sent    no key, fenced, or nothing was written before it failed (DNS, connect, TLS, pool)
    failed      the provider answered with an error, as a status or as an event inside the stream
    unknown     it broke off: cut, stalled, past the deadline, or an answer without a stop reason
    succeeded   a message with a stop reason

The key stays here: it is masked in whatever the provider sends back. There is no guard against private addresses:
the base URL is the operator's own setting. The SDK takes 1–4 s of CPU to import: `warm` does that in a thread.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from contextvars import ContextVar
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, cast

from app.domain.dependencies import NO_CREDENTIAL
from app.domain.outcomes import JSON, Evidence, Failure, Outcome, Usage
from app.domain.quotas import Allowances
from app.domain.states import AttemptOutcome, FailureKind
from app.ports import model_limits, model_requests, prices
from app.ports.world import MaySend, ModelRequest
from app.ports.writing import BrokenOff, Writing

if TYPE_CHECKING:
    import anthropic
    import httpx2
    from anthropic.types import RawContentBlockDelta

BASE_URL: Final = "https://api.anthropic.com"

CONNECT_SECONDS: Final = 10.0
"""DNS, TCP and TLS: a provider that does not take a connection by then will not within the attempt."""

CHARS_PER_TOKEN: Final = 4
"""Of an answer whose tokens nobody will count, because it was broken off: about what English text has."""

STREAMING: Final = {"x-stainless-helper-method": "stream", "x-stainless-stream-helper": "messages"}
"""What the SDK says of a request whose answer its helper puts together, as ours is."""


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
    limits: Allowances | None = None
    """What the answer's headers said about the provider's rate limits."""

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

    def __init__(self, *, base_url: str | None, api_key: str | None) -> None:
        self._base_url = base_url or BASE_URL
        self._api_key = (api_key or "").strip()
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
            outcome = await self._attempt(request, seconds=seconds, sending=sending)
            return model_limits.attached(outcome, sending.limits)
        finally:
            _sending.reset(token)

    @property
    def credential(self) -> str:
        """Names the key without telling it: what is known of a provider is known per credential."""
        return hashlib.sha256(self._api_key.encode()).hexdigest()[:8] if self._has_key else NO_CREDENTIAL

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
                    open_telemetry=False,  # its spans are made from values
                    # A redirect would send the prompt and the key somewhere the operator did not name.
                    http_client=anthropic.DefaultAsyncHttpxClient(
                        follow_redirects=False, event_hooks={"request": [_watch], "response": [_listen]}
                    ),
                )
                self._kept = _generic_message()  # and with it the SDK's types, which take a second to import
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
        except asyncio.CancelledError:
            if request.writing is not None:
                request.writing.broken_off = partial.broken_off(sending)
            raise
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
    written: int = 0
    """Characters that have arrived, of text, thinking and arguments."""

    def broken_off(self, sending: _Sending) -> BrokenOff:
        """The provider bills what it had written: its own count of the prompt, our count of the answer so far."""
        usage = None
        if self.snapshot is not None:
            message = _as_json(self.snapshot)
            counted = cast("dict[str, JSON]", message.get("usage") or {})
            output = max(counted.get("output_tokens") or 0, self.written // CHARS_PER_TOKEN)
            usage = prices.usage_of({**message, "usage": {**counted, "output_tokens": output}})
        return BrokenOff(
            evidence=self.evidence(), usage=usage, request_id=self.request_id, sent_after=sending.sent_after
        )

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
    """The whole message of one streamed request, in the provider's shape. The SDK's own `messages.stream` takes the
    request as values only; `post`, which it ends in, takes bytes, and everything else is the same."""
    import anthropic
    import httpx2
    from anthropic.lib.streaming import AsyncMessageStream
    from anthropic.types import Message, RawMessageStreamEvent

    options: anthropic.RequestOptions = {
        "headers": {**STREAMING, **request.headers},
        "timeout": httpx2.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS)),
    }
    answer = await client.post(
        "/v1/messages",
        content=model_requests.body(request),
        cast_to=Message,
        options=options,
        stream=True,
        stream_cls=anthropic.AsyncStream[RawMessageStreamEvent],
    )
    whole: AsyncMessageStream[None] = AsyncMessageStream(answer, output_format=anthropic.not_given)
    async with whole as stream:
        partial.request_id = stream.request_id
        async for event in stream:
            match event.type:
                case "content_block_delta":
                    _piece(event.delta, partial, request.writing)
                case "content_block_start" if request.writing is not None and event.content_block.type == "tool_use":
                    request.writing.tool(event.content_block.name)
                case "message_start":
                    partial.snapshot = stream.current_message_snapshot
    if partial.snapshot is None:
        raise ValueError("the answer holds no message")
    return _as_json(partial.snapshot)


def _piece(delta: RawContentBlockDelta, partial: _Partial, writing: Writing | None) -> None:
    """One piece of the answer: counted, and told to whoever shows it."""
    match delta.type:
        case "text_delta":
            partial.written += len(delta.text)
            if writing is not None:
                writing.text(delta.text)
        case "thinking_delta":
            partial.written += len(delta.thinking)
            if writing is not None:
                writing.thinking(len(delta.thinking))
        case "input_json_delta":
            partial.written += len(delta.partial_json)


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


async def _listen(response: httpx2.Response) -> None:
    """Runs for each answer as its headers arrive."""
    _sending.get().limits = model_limits.read(response.headers)


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
    """The message as it came: also one that holds what no row and no request could carry, a half surrogate pair or a
    number that is none. Bytes first; what they are good for is judged later."""
    try:
        return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(message, separators=(",", ":")).encode()
