"""What the model port sends, and what a good answer becomes, over real sockets."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import pytest

from app.domain import conversation
from app.domain.conversation import ToolResult
from app.domain.states import AttemptOutcome, FailureKind
from app.ports.model import ClaudeModel
from tests.ports.model_provider import KEY, asks, kind_of, scripted, send, serving

pytestmark = pytest.mark.anyio

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"minutes": {"type": "integer", "minimum": 15}},
    "required": ["minutes"],
    "additionalProperties": False,
}


async def test_model_answers_with_evidence_usage_cost_and_request_id_when_all_goes_well() -> None:
    async with serving() as (_, model):
        outcome = await send(model, scripted())

    assert outcome.certainty is AttemptOutcome.SUCCEEDED
    assert outcome.evidence is not None
    message = json.loads(outcome.evidence.body)
    assert message["content"] == [{"type": "text", "text": "fine"}]
    assert message["stop_reason"] == "end_turn"
    assert b'": ' not in outcome.evidence.body
    assert outcome.usage is not None
    assert outcome.usage.cost_microusd is not None
    assert outcome.usage.input_tokens == message["usage"]["input_tokens"] > 0
    assert outcome.request_id == "req_scripted000001"
    assert outcome.sent_after is not None
    assert outcome.received_after is not None
    assert 0 <= outcome.sent_after <= outcome.received_after


async def test_model_sends_the_stored_messages_and_tools_unchanged_and_in_order() -> None:
    async with serving() as (provider, model):
        thinking = {"tools": [{"name": "b.two", "input": {"z": 1.5, "a": [None, "é"]}, "id": "t1"}], "thinking": "hm"}
        told = json.dumps({"turns": [thinking, {"json": {"minutes": 15}}]})
        tools = [
            conversation.tool_param(name=name, description=name, input_schema={"type": "object", "properties": {}})
            for name in ("b.two", "a.one")
        ]
        first = asks(
            f"[[scripted: {told}]] ü\u2028", tools=tools, system="Be brief.", output_schema=SCHEMA, effort="low"
        )
        answered = await send(model, first)
        assert answered.evidence is not None
        messages = [
            *first.messages,
            conversation.assistant_message(json.loads(answered.evidence.body)),
            conversation.tool_results_message([ToolResult(tool_use_id="t1", value={"ok": True})]),
        ]
        second = asks(messages=messages, tools=tools, system="Be brief.", output_schema=SCHEMA, effort="low")
        outcome = await send(model, second)

    sent = provider.body()
    assert outcome.certainty is AttemptOutcome.SUCCEEDED, outcome.failure
    assert sent["messages"] == [json.loads(body) for body in messages]
    assert [list(block) for block in sent["messages"][1]["content"]] == [
        list(block) for block in json.loads(messages[1])["content"]
    ]
    assert sent["tools"] == tools
    assert sent["system"] == "Be brief."
    assert sent["output_config"]["effort"] == "low"
    assert sent["output_config"]["format"]["schema"]["properties"]["minutes"] == {
        "type": "integer",
        "description": "{minimum: 15}",
    }


async def test_model_sends_identical_bytes_when_a_call_is_attempted_again() -> None:
    async with serving() as (provider, model):
        await send(model, asks("Hello", output_schema=SCHEMA))
        await send(model, asks("Hello", output_schema=SCHEMA))

    assert provider.requests[0].body == provider.requests[1].body


async def test_model_carries_our_headers_and_the_key_as_a_bearer() -> None:
    async with serving() as (provider, model):
        await send(model, asks(headers={"Surefoot-Call": "call_1", "traceparent": "00-aa-bb-01"}))

    headers = provider.requests[0].headers
    assert headers["surefoot-call"] == "call_1"
    assert headers["traceparent"] == "00-aa-bb-01"
    assert headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "additionalProperties": {"type": "string"}},
        {"type": ["object", "null"], "properties": {}},
        {"properties": {"a": {}}},
    ],
)
async def test_model_speaks_the_schema_when_the_provider_could_not_take_it(schema: dict[str, Any]) -> None:
    async with serving() as (provider, model):
        outcome = await send(model, asks(system="Be brief.", output_schema=schema))

    assert outcome.certainty is AttemptOutcome.SUCCEEDED, outcome.failure
    assert "output_config" not in provider.body()
    assert provider.body()["system"].startswith("Be brief.\n\nAnswer with one JSON value")
    assert provider.body()["system"].endswith(json.dumps(schema, separators=(",", ":")))


async def test_nothing_is_sent_when_the_worker_may_not_send() -> None:
    async with serving() as (provider, model):
        outcome = await model.send(asks(), seconds=5, may_send=lambda: False)

    assert outcome.certainty is AttemptOutcome.NOT_SENT
    assert kind_of(outcome) is FailureKind.WORKER_LOST
    assert provider.requests == []


async def test_permission_is_asked_after_connecting_and_once_for_each_attempt() -> None:
    asked: list[int] = []

    async with serving() as (provider, model):

        def may_send() -> bool:
            asked.append(len(provider.requests))
            return True

        await model.send(asks(), seconds=5, may_send=may_send)
        await model.send(asks(), seconds=5, may_send=may_send)

    assert asked == [0, 1]


async def test_concurrent_attempts_are_each_asked_for_themselves() -> None:
    async with serving() as (provider, model):
        outcomes = await asyncio.gather(
            *(model.send(asks(f"n{n}"), seconds=10, may_send=lambda n=n: n % 2 == 0) for n in range(10))
        )

    sent = [outcome.certainty is AttemptOutcome.SUCCEEDED for outcome in outcomes]
    assert sent == [n % 2 == 0 for n in range(10)]
    assert len(provider.requests) == 5


async def test_nothing_is_sent_when_nobody_listens() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        model = ClaudeModel(base_url=f"http://127.0.0.1:{closed.getsockname()[1]}", api_key=KEY)
        outcome = await send(model, asks())
        await model.close()

    assert outcome.certainty is AttemptOutcome.NOT_SENT
    assert kind_of(outcome) is FailureKind.NETWORK
    assert outcome.sent_after is None


@pytest.mark.parametrize("base_url", ["ftp://127.0.0.1", "http://[::1", "nonsense"])
async def test_nothing_is_sent_when_the_base_url_is_none(base_url: str) -> None:
    model = ClaudeModel(base_url=base_url, api_key=KEY)

    outcome = await send(model, asks())

    assert outcome.certainty is AttemptOutcome.NOT_SENT
    assert kind_of(outcome) in (FailureKind.INVALID_REQUEST, FailureKind.NETWORK)


@pytest.mark.parametrize("key", [None, "", "  ", "sk-ä", "sk\nx"])
async def test_nothing_is_sent_when_there_is_no_usable_key(key: str | None) -> None:
    outcome = await send(ClaudeModel(base_url="http://127.0.0.1:9", api_key=key), asks())

    assert outcome.certainty is AttemptOutcome.NOT_SENT
    assert kind_of(outcome) is FailureKind.AUTH
    assert outcome.failure is not None
    assert "ANTHROPIC_API_KEY" in str(outcome.failure.fix)


async def test_model_that_is_not_in_the_price_table_has_an_unknown_cost() -> None:
    async with serving() as (_, model):
        outcome = await send(model, asks(model="claude-unheard-of"))

    assert outcome.certainty is AttemptOutcome.SUCCEEDED
    assert outcome.usage is not None
    assert (outcome.usage.model, outcome.usage.cost_microusd) == ("claude-unheard-of", None)
