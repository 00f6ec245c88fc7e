"""The request's bytes are ours, its messages as they were stored; on the wire nobody can tell it from the SDK's own."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from app.domain import conversation
from app.domain.conversation import ToolResult
from app.domain.states import AttemptOutcome
from app.embedded.wire import Reply, Request
from app.ports import model_requests
from app.ports.world import ModelRequest
from tests.ports.model_provider import KEY, asks, send, serving

pytestmark = pytest.mark.anyio

SECONDS = 7.5
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 15}}}
LOOSE: dict[str, Any] = {"type": "object", "additionalProperties": {"type": "string"}}
TOOLS = [
    conversation.tool_param(name=name, description="Sagt „ja“.", input_schema=schema)
    for name, schema in (("b.two", {"type": "object", "properties": {"ü": {"enum": [1.0, None]}}}), ("a.one", None))
]
THINKING = {"type": "thinking", "thinking": "hm \u2028 \x7f", "signature": "c2ln=="}
NUMBERS = {"z": [1.0, -0.0, 1e22, 1e-7, 0.1, 5e-324, 12345678901234567890], "a": {"": None, "b": [True, False, {}, []]}}
TALK = [
    conversation.user_message('He said "ja", \\ / \x01\t\n \u2028 \U0001f600 ü'),
    conversation.assistant_message(
        {"content": [THINKING, {"type": "tool_use", "id": "t1", "name": "b-two", "input": NUMBERS}]}
    ),
    conversation.tool_results_message([ToolResult(tool_use_id="t1", value={"ok": 1.50}, is_error=True)]),
    conversation.note("Mind the gap.", role="system"),
]

REQUESTS = {
    "a prompt": asks(),
    "instructions": asks(system="Be brief, „bitte“."),
    "a conversation with tools": asks(messages=TALK, tools=TOOLS, system="Be brief.", max_tokens=4096),
    "an answer of a shape": asks(output_schema=SCHEMA, effort="low"),
    "a shape that is spoken": asks(output_schema=LOOSE, system="Be brief."),
    "a last answer": asks(messages=TALK, tools=TOOLS, output_schema=SCHEMA, tools_forbidden=True),
    "a summary": asks(messages=TALK, tools=TOOLS, output_schema=SCHEMA, tools_forbidden=True, free_form=True),
    "no tools to forbid": asks(tools_forbidden=True),
}


def answers(_: Request) -> Reply:
    """Whatever is asked: a model that is strict would refuse half of it."""
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None}
    events = [
        {"type": "message_start", "message": message | {"usage": {"input_tokens": 3, "output_tokens": 1}}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}},
        {"type": "message_stop"},
    ]
    body = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events).encode()
    return Reply(body=body, headers={"content-type": "text/event-stream"})


@asynccontextmanager
async def library(port: int) -> AsyncIterator[Any]:
    """The SDK, as one would use it who has no bytes."""
    import anthropic

    client = anthropic.AsyncAnthropic(
        api_key=KEY, base_url=f"http://127.0.0.1:{port}", max_retries=0, open_telemetry=False
    )
    yield client
    await client.close()


async def as_the_library_sends_it(client: Any, request: ModelRequest) -> None:
    import anthropic
    import httpx2

    config, system = model_requests.shape(request)
    forbidden = request.tools and request.tools_forbidden
    async with client.messages.stream(
        model=request.model,
        max_tokens=request.max_tokens,
        messages=cast("Any", [json.loads(body) for body in request.messages]),
        system=system or anthropic.omit,
        tools=[dict(tool) for tool in request.tools] or anthropic.omit,
        tool_choice={"type": "none"} if forbidden else anthropic.omit,
        output_config=config or anthropic.omit,
        extra_headers=dict(request.headers),
        timeout=httpx2.Timeout(SECONDS, connect=SECONDS),
    ) as stream:
        await stream.until_done()


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
async def test_request_is_byte_for_byte_what_the_library_makes_of_its_values(request_: ModelRequest) -> None:
    async with serving() as (provider, model), library(provider.port) as client:
        provider.answer = answers
        outcome = await send(model, request_, seconds=SECONDS)
        await as_the_library_sends_it(client, request_)

    ours, theirs = provider.requests
    assert outcome.certainty is AttemptOutcome.SUCCEEDED, outcome.failure
    assert ours.body == theirs.body
    assert dict(ours.headers) == dict(theirs.headers)
    assert (ours.method, ours.path) == (theirs.method, theirs.path)


async def test_messages_leave_as_they_were_stored_when_the_library_would_write_them_otherwise() -> None:
    stored = b'{"role": "user",  "content": "caf\\u00e9 1"}'

    async with serving() as (provider, model):
        outcome = await send(model, asks(messages=[stored]))

    assert outcome.certainty is AttemptOutcome.SUCCEEDED, outcome.failure
    assert stored in provider.requests[0].body
