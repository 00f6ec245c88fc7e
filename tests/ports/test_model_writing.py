"""What the model port tells of an answer while it arrives, and what it leaves when the request is broken off."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import uuid4

import pytest

from app.domain import conversation
from app.domain.states import AttemptOutcome
from app.embedded import wire
from app.embedded.model import ScriptedModel
from app.ports.writing import Writing
from tests.ports.model_provider import asks, scripted, send, serving

pytestmark = pytest.mark.anyio

TEXT = "A long answer. " * 40


def _writing() -> Writing:
    return Writing(attempt_id=uuid4())


async def test_pieces_of_an_answer_are_told_as_they_arrive() -> None:
    writing = _writing()
    turn = {"thinking": "hm, hm", "text": TEXT, "tools": [{"name": "mail.send", "input": {"to": "ana"}}]}
    tools = [conversation.tool_param(name="mail.send", description="", input_schema=None)]
    request = scripted(**turn)

    async with serving() as (_, model):
        outcome = await send(model, asks(messages=request.messages, max_tokens=900, tools=tools, writing=writing))

    found = writing.look()
    assert outcome.certainty is AttemptOutcome.SUCCEEDED, outcome.failure
    assert (found.characters, found.thought, found.tools) == (len(TEXT), 6, ("mail-send",))
    assert TEXT.endswith(found.text)
    assert writing.broken_off is None


async def test_request_is_closed_and_what_had_arrived_is_billed_when_it_is_broken_off() -> None:
    written = asyncio.Event()
    writing = Writing(attempt_id=uuid4(), changed=lambda _: written.set())
    request = scripted({"stall_after": 1500}, text=TEXT)
    scripted_model = ScriptedModel()

    async with serving() as (provider, model):
        provider.answer = scripted_model.handle
        task = asyncio.create_task(
            send(model, asks(messages=request.messages, max_tokens=900, writing=writing), seconds=60)
        )
        await asyncio.wait_for(written.wait(), 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        entry = await _disconnected(scripted_model)

    assert entry["disconnected"] >= entry["at"]
    left = writing.broken_off
    assert left is not None
    assert left.usage is not None
    assert left.evidence is not None
    assert left.usage.input_tokens == entry["input_tokens"]
    assert 1 <= left.usage.output_tokens < entry["output_tokens"]
    assert left.usage.output_tokens >= writing.look().characters // 4
    assert left.usage.cost_microusd is not None
    assert left.request_id == entry["request_id"]
    assert json.loads(left.evidence.body)["stop_reason"] is None


async def test_nothing_is_billed_when_the_request_is_broken_off_before_an_answer_began() -> None:
    writing = _writing()

    async with serving() as (provider, model):
        request = scripted(text="late", latency_ms=60_000)
        task = asyncio.create_task(send(model, asks(messages=request.messages, writing=writing), seconds=60))
        await provider.received.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert writing.broken_off is not None
    assert (writing.broken_off.usage, writing.broken_off.evidence) == (None, None)
    assert writing.broken_off.sent_after is not None


@pytest.mark.parametrize("free_form", [False, True])
async def test_tools_stay_in_the_request_when_none_may_be_used(free_form: bool) -> None:
    tools = [conversation.tool_param(name="mail.send", description="", input_schema=None)]
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}

    async with serving() as (provider, model):
        request = asks(tools=tools, output_schema=schema, tools_forbidden=True, free_form=free_form, effort="low")
        outcome = await send(model, request)

    sent = provider.body()
    assert outcome.certainty is AttemptOutcome.SUCCEEDED, outcome.failure
    assert (sent["tools"], sent["tool_choice"]) == (tools, {"type": "none"})
    assert set(sent["output_config"]) == ({"effort"} if free_form else {"effort", "format"})


async def test_what_was_said_of_the_schema_stays_in_the_prefix_when_the_answer_is_free() -> None:
    schema: dict[str, Any] = {"type": "object", "additionalProperties": {"type": "string"}}

    async with serving() as (provider, model):
        await send(model, asks(system="Be brief.", output_schema=schema))
        await send(model, asks(system="Be brief.", output_schema=schema, free_form=True, tools_forbidden=True))

    assert provider.body(0)["system"] == provider.body(1)["system"]
    assert "tool_choice" not in provider.body(1)


async def _disconnected(scripted_model: ScriptedModel) -> dict[str, Any]:
    """The only request, once the other end has seen that nobody listens any more."""
    async with asyncio.timeout(20):
        while True:
            reply = scripted_model.handle(wire.Request(method="GET", path="/ledger", query={}, headers={}, body=b""))
            assert isinstance(reply, wire.Reply)
            [entry] = json.loads(reply.body)["data"]
            if entry["disconnected"] is not None:
                found: dict[str, Any] = entry
                return found
            await asyncio.sleep(0)
