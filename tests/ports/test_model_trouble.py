"""The model port against a provider that refuses, breaks off, stalls and lies, over real sockets."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest

from app.domain import bodies
from app.domain.states import AttemptOutcome, FailureKind
from app.embedded import wire
from app.embedded.wire import Hangup, Reply, Request
from tests.ports.model_provider import KEY, asks, kind_of, scripted, send, serving

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("failure", "kind", "wait"),
    [
        ({"status": 429, "retry_after": 7}, FailureKind.RATE_LIMITED, timedelta(seconds=7)),
        ({"status": 429, "error_code": "ramp_limit_exceeded"}, FailureKind.RATE_LIMITED, None),
        ({"status": 429, "error_code": "enforced_spend_limit_reached"}, FailureKind.SPEND_LIMITED, None),
        ({"status": 402}, FailureKind.SPEND_LIMITED, None),
        (
            {"status": 400, "message": "You have reached your specified API usage limits"},
            FailureKind.SPEND_LIMITED,
            None,
        ),
        ({"status": 529}, FailureKind.OVERLOADED, None),
        ({"status": 500}, FailureKind.SERVER_ERROR, None),
        ({"status": 503, "retry_after": 1.5}, FailureKind.SERVER_ERROR, timedelta(seconds=1.5)),
        ({"status": 408}, FailureKind.SERVER_ERROR, None),
        ({"status": 409}, FailureKind.SERVER_ERROR, None),
        ({"status": 520}, FailureKind.SERVER_ERROR, None),
        ({"status": 400, "message": "prompt is too long: 9 > 8"}, FailureKind.CONTEXT_TOO_LONG, None),
        ({"status": 413}, FailureKind.CONTEXT_TOO_LONG, None),
        ({"status": 400}, FailureKind.INVALID_REQUEST, None),
        ({"status": 422}, FailureKind.INVALID_REQUEST, None),
        ({"status": 401}, FailureKind.AUTH, None),
        ({"status": 403}, FailureKind.AUTH, None),
        ({"status": 404, "message": "model: claude-x"}, FailureKind.MODEL_NOT_FOUND, None),
        ({"status": 307}, FailureKind.INVALID_REQUEST, None),
    ],
    ids=str,
)
async def test_error_response_is_a_definite_failure_of_its_kind(
    failure: dict[str, Any], kind: FailureKind, wait: timedelta | None
) -> None:
    async with serving() as (provider, model):
        outcome = await send(model, scripted(failure))

    assert outcome.certainty is AttemptOutcome.FAILED
    assert outcome.failure is not None
    assert outcome.failure.fix
    assert (outcome.failure.kind, outcome.failure.retry_after) == (kind, wait)
    assert outcome.failure.status_code == outcome.status_code == failure["status"]
    assert outcome.request_id == "req_scripted000001"
    assert outcome.evidence is not None
    assert b'"type":"error"' in outcome.evidence.body
    assert len(provider.requests) == 1


async def test_error_inside_the_stream_is_a_definite_failure_named_by_its_type() -> None:
    async with serving() as (_, model):
        outcome = await send(model, scripted({"sse_error": "overloaded_error"}))

    assert outcome.certainty is AttemptOutcome.FAILED
    assert kind_of(outcome) is FailureKind.OVERLOADED
    assert outcome.usage is not None
    assert outcome.usage.input_tokens > 0
    assert outcome.usage.cost_microusd is None


@pytest.mark.parametrize(
    "failure",
    [
        {"cut_after": 700},
        {"cut_after": 700, "reset": True},
        {"cut_after": 1},
        {"empty": True},
        {"html": True},
        {"bad_chunk": True},
    ],
    ids=str,
)
async def test_broken_answer_is_unknown_and_never_an_answer(failure: dict[str, Any]) -> None:
    async with serving() as (_, model):
        outcome = await send(model, scripted(failure, tools=[{"name": "x", "input": {"to": "somebody"}}]))

    assert outcome.certainty is AttemptOutcome.UNKNOWN
    assert kind_of(outcome) is FailureKind.NETWORK
    assert outcome.sent_after is not None
    if outcome.evidence is not None:
        assert json.loads(outcome.evidence.body)["stop_reason"] is None


async def test_stream_without_a_stop_reason_is_unknown_when_it_ends_in_good_order() -> None:
    message = {"id": "m", "type": "message", "role": "assistant", "model": "claude-haiku-5-5", "content": []}
    start = {"type": "message_start", "message": message | {"stop_reason": None, "usage": {"input_tokens": 3}}}

    async with serving() as (provider, model):
        provider.answer = lambda _: Reply(
            body=f"event: message_start\ndata: {json.dumps(start)}\n\n".encode(),
            headers={"content-type": "text/event-stream"},
        )
        outcome = await send(model, asks())

    assert outcome.certainty is AttemptOutcome.UNKNOWN
    assert kind_of(outcome) is FailureKind.NETWORK
    assert outcome.usage is not None
    assert (outcome.usage.input_tokens, outcome.usage.cost_microusd) == (3, None)


async def test_answer_that_breaks_after_its_stop_reason_is_kept_as_half_an_answer() -> None:
    message = {"id": "m", "type": "message", "role": "assistant", "model": "claude-haiku-5-5", "content": []}
    events = [
        {"type": "message_start", "message": message | {"stop_reason": None, "usage": {"input_tokens": 3}}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}},
    ]
    body = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events).encode()

    async with serving() as (provider, model):
        provider.answer = lambda _: Reply(
            body=body, headers={"content-type": "text/event-stream"}, claimed_length=len(body) + 1
        )
        outcome = await send(model, asks())

    assert outcome.certainty is AttemptOutcome.UNKNOWN
    assert outcome.evidence is not None
    assert json.loads(outcome.evidence.body)["stop_reason"] is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [("lone \ud800 surrogate", "half a surrogate pair"), ("a \x00 NUL", "NUL")],
    ids=["surrogate", "nul"],
)
async def test_answer_that_no_row_can_hold_is_handed_over_as_it_came(text: str, reason: str) -> None:
    async with serving() as (_, model):
        outcome = await send(model, scripted(text=text))

    assert outcome.certainty is AttemptOutcome.SUCCEEDED
    assert outcome.evidence is not None
    assert json.loads(outcome.evidence.body)["content"][0]["text"] == text
    read = bodies.read_body(outcome.evidence.body, outcome.evidence.media_type, truncated=False)
    assert read["opaque"] is True
    assert "/content/0/text" in read["reason"]


async def test_stalled_answer_ends_at_the_deadline_as_unknown() -> None:
    async with serving() as (_, model):
        await model.warm()
        outcome = await send(model, scripted({"stall_after": 900}), seconds=0.4)

    assert outcome.certainty is AttemptOutcome.UNKNOWN
    assert kind_of(outcome) is FailureKind.TIMEOUT


async def test_trickling_answer_ends_at_the_total_deadline_when_every_read_is_in_time() -> None:
    async with serving() as (_, model):
        await model.warm()
        outcome = await send(model, scripted(text="word " * 500, latency_ms=900), seconds=0.6)

    assert outcome.certainty is AttemptOutcome.UNKNOWN
    assert kind_of(outcome) is FailureKind.TIMEOUT


async def test_connection_that_breaks_after_the_request_left_is_unknown() -> None:
    def hang_up(_: Request) -> Reply:
        raise Hangup(reset=True)

    async with serving() as (provider, model):
        provider.answer = hang_up
        outcome = await send(model, asks())

    assert outcome.certainty is AttemptOutcome.UNKNOWN
    assert kind_of(outcome) is FailureKind.NETWORK
    assert len(provider.requests) == 1


async def test_key_is_masked_when_the_provider_sends_it_back() -> None:
    def echo(request: Request) -> Reply:
        said = {"type": "error", "error": {"type": "invalid_request_error", "message": f"bad {request.headers}"}}
        return wire.json_reply(said, status=400)

    async with serving() as (provider, model):
        provider.answer = echo
        outcome = await send(model, asks())

    assert outcome.evidence is not None
    assert outcome.failure is not None
    assert b"***" in outcome.evidence.body
    assert KEY.encode() not in outcome.evidence.body
    assert KEY not in json.dumps(outcome.failure.to_json())


async def test_redirect_is_not_followed() -> None:
    async with serving() as (provider, model):
        provider.answer = lambda _: Reply(status=307, headers={"location": f"http://127.0.0.1:{provider.port}/there"})
        outcome = await send(model, asks())

    assert kind_of(outcome) is FailureKind.INVALID_REQUEST
    assert [request.path for request in provider.requests] == ["/v1/messages"]


async def test_path_that_is_not_there_is_not_taken_for_an_unknown_model() -> None:
    async with serving() as (provider, model):
        provider.answer = lambda _: Reply(status=404, body=b"nothing here")
        outcome = await send(model, asks())

    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.INVALID_REQUEST
    assert "ANTHROPIC_BASE_URL" in str(outcome.failure.fix)


async def test_cancellation_passes_through_and_leaves_the_client_usable() -> None:
    async with serving() as (provider, model):
        task = asyncio.create_task(send(model, scripted({"stall_after": 900}), seconds=60))
        await provider.received.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        outcome = await send(model, asks())

    assert outcome.certainty is AttemptOutcome.SUCCEEDED
