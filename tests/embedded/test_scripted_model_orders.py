"""The scripted model as a stage: it is cut where it must be, reacts to what it is told, limits, fails on order, keeps
books. What it refuses is in `test_scripted_model.py`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from app.domain import summaries
from app.embedded import wire
from app.embedded.model import ScriptedModel
from app.embedded.model_limits import RateLimits

pytestmark = pytest.mark.anyio

HEADERS = {"authorization": "Bearer sk-x", "anthropic-version": "2026-10-21"}
TOOL = {"name": "x", "input_schema": {"type": "object"}}
SMALL = "claude-scripted-small"


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def _model(clock: Clock | None = None) -> AsyncIterator[httpx.AsyncClient]:
    limits = None if clock is None else RateLimits(clock=clock)
    async with (
        wire.listening(ScriptedModel(limits=limits).handle) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=HEADERS, timeout=10) as client,
    ):
        yield client


async def _ask(client: httpx.AsyncClient, *messages: Any, **extra: Any) -> httpx.Response:
    said = [{"role": "user", "content": message} if isinstance(message, str) else message for message in messages]
    body = {"model": "claude-haiku-5-5", "max_tokens": 500, "messages": said} | extra
    return await client.post("/v1/messages", json=body)


async def _ledger(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await client.get("/ledger")).json()["data"]
    return found


def _script(*turns: dict[str, Any], **more: Any) -> str:
    return f"[[scripted: {json.dumps({'turns': list(turns), **more})}]]"


def _said(answer: httpx.Response) -> str:
    text: str = answer.json()["content"][0]["text"]
    return text


def _answer(answer: httpx.Response) -> dict[str, Any]:
    return {"role": "assistant", "content": answer.json()["content"]}


def _results(answer: httpx.Response, content: str = "ok") -> dict[str, Any]:
    uses = [block for block in answer.json()["content"] if block["type"] == "tool_use"]
    return {
        "role": "user",
        "content": [{"type": "tool_result", "tool_use_id": use["id"], "content": content} for use in uses],
    }


# --- cut -----------------------------------------------------------------------------------------------------------


async def test_answer_is_cut_at_max_tokens() -> None:
    async with _model() as client:
        cut = await _ask(client, _script({"text": "word " * 100}), max_tokens=20)
        whole = await _ask(client, _script({"text": "word " * 100}), max_tokens=200)

    assert (cut.json()["stop_reason"], whole.json()["stop_reason"]) == ("max_tokens", "end_turn")
    assert _said(cut) == ("word " * 100)[:80]
    assert cut.json()["usage"]["output_tokens"] <= 20


async def test_answer_is_cut_at_the_end_of_the_window() -> None:
    prompt = _script({"text": "word " * 3000}) + " " + "x" * 12_000

    async with _model() as client:
        answer = await _ask(client, prompt, model=SMALL, max_tokens=2000)

    assert answer.json()["stop_reason"] == "model_context_window_exceeded"
    assert 0 < len(_said(answer)) < 6000


@pytest.mark.parametrize("turn", [{"stop": "max_tokens"}, {}], ids=["told", "too long"])
async def test_tool_use_is_cut_in_the_middle_of_its_input(turn: dict[str, Any]) -> None:
    written = {"text": "Let me see.", "tools": [{"name": "x", "input": {"to": "a" * 400}}], **turn}

    async with _model() as client:
        whole = await _ask(client, _script(written), tools=[TOOL], max_tokens=60)
        streamed = await _ask(client, _script(written), tools=[TOOL], max_tokens=60, stream=True)

    assert whole.json()["stop_reason"] == "max_tokens"
    assert whole.json()["content"][1]["input"] == {}
    pieces = "".join(event["delta"].get("partial_json", "") for event in _events(streamed) if "delta" in event)
    assert pieces.startswith('{"to": "aaa')
    with pytest.raises(json.JSONDecodeError):
        json.loads(pieces)


async def test_stream_ends_without_a_stop_reason_when_told_so() -> None:
    async with _model() as client:
        answer = await _ask(client, _script({"text": "half", "fail": [{"unfinished": True}]}), stream=True)

    kinds = [event["type"] for event in _events(answer) if event["type"] != "ping"]
    assert kinds[-1] == "content_block_stop"
    assert "message_delta" not in kinds


def _events(answer: httpx.Response) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]


# --- turns ---------------------------------------------------------------------------------------------------------


async def test_script_begins_again_after_its_last_turn_when_it_loops() -> None:
    prompt = _script(
        {"tools": [{"name": "x", "input": {"n": 1}}]}, {"tools": [{"name": "x", "input": {"n": 2}}]}, loop=True
    )
    history: list[Any] = [prompt]
    wished = []

    async with _model() as client:
        for _ in range(4):
            answer = await _ask(client, *history, tools=[TOOL])
            wished.append(answer.json()["content"][0]["input"]["n"])
            history += [_answer(answer), _results(answer)]

    assert wished == [1, 2, 1, 2]


async def test_turn_is_chosen_by_what_was_said_last_and_by_the_model() -> None:
    prompt = _script(
        {"tools": [{"name": "x"}]},
        on=[{"says": "broken", "text": "Another way."}, {"model": "sonnet", "text": "I am another."}],
    )

    async with _model() as client:
        first = await _ask(client, prompt, tools=[TOOL])
        history = [prompt, _answer(first), _results(first)]
        same = await _ask(client, *history, tools=[TOOL])
        told = await _ask(client, *history, {"role": "system", "content": "x is broken"}, tools=[TOOL])
        result = await _ask(client, prompt, _answer(first), _results(first, "it is broken"), tools=[TOOL])
        other = await _ask(client, prompt, tools=[TOOL], model="claude-sonnet-5-5")

    assert [answer.json()["content"][0]["type"] for answer in (first, same)] == ["tool_use", "tool_use"]
    assert (_said(told), _said(result), _said(other)) == ("Another way.", "Another way.", "I am another.")


async def test_paused_turn_alone_may_be_sent_back_as_the_last_message() -> None:
    prompt = _script({"text": "Searching", "stop": "pause_turn"}, {"text": "Found."})

    async with _model() as client:
        paused = await _ask(client, prompt)
        gone_on = await _ask(client, prompt, _answer(paused))
        prefilled = await _ask(client, prompt, {"role": "assistant", "content": [{"type": "text", "text": "I"}]})

    assert paused.json()["stop_reason"] == "pause_turn"
    assert _said(gone_on) == "Found."
    assert (prefilled.status_code, "prefill" in prefilled.text) == (400, True)


async def test_script_goes_on_after_a_summary() -> None:
    prompt = _script({"tools": [{"name": "x"}]}, {"text": "Second."})

    async with _model() as client:
        first = await _ask(client, prompt, tools=[TOOL])
        history = [prompt, _answer(first), _results(first)]
        summary = await _ask(client, *history, summaries.INSTRUCTION, tools=[TOOL], tool_choice={"type": "none"})
        after = await _ask(client, f"{prompt}\n\n{_said(summary)}", tools=[TOOL])

    assert "Scripted summary after 1 answers" in _said(summary)
    assert _said(after) == "Second."


async def test_no_tool_is_asked_for_when_none_may_be_used() -> None:
    async with _model() as client:
        answer = await _ask(client, _script({"tools": [{"name": "x"}]}), tools=[TOOL], tool_choice={"type": "none"})

    assert [block["type"] for block in answer.json()["content"]] == ["text"]


@pytest.mark.parametrize(
    ("reader", "status"), [("claude-haiku-5-5", 200), ("claude-fable-5-2", 200), ("claude-opus-5-5", 400)]
)
async def test_thinking_is_refused_by_a_model_that_cannot_read_it(reader: str, status: int) -> None:
    prompt = _script({"text": "ok", "thinking": "hm"})

    async with _model() as client:
        first = await _ask(client, prompt)
        again = await _ask(client, prompt, _answer(first), "again", model=reader)

    assert again.status_code == status
    if status == 400:
        assert "Invalid `signature` in `thinking` block" in again.json()["error"]["message"]


async def test_thinking_is_refused_when_a_letter_of_it_was_changed() -> None:
    prompt = _script({"text": "ok", "thinking": "hm"})

    async with _model() as client:
        message = _answer(await _ask(client, prompt))
        message["content"][0]["thinking"] = "hm."
        again = await _ask(client, prompt, message, "again")

    assert again.status_code == 400


# --- orders and limits ---------------------------------------------------------------------------------------------


async def test_ordered_failure_hits_only_whom_it_is_meant_for() -> None:
    async with _model() as client:
        await client.post("/behave", json={"fail": {"status": 529}, "times": None, "where": {"workflow": "wf_1"}})
        await client.post("/behave", json={"fail": {"status": 500}, "where": {"model": "sonnet"}})
        await client.post("/behave", json={"fail": {"status": 503}, "where": {"says": "naïve"}})
        client.headers["surefoot-workflow"] = "wf_1"
        mine = [(await _ask(client, "hi")).status_code for _ in range(3)]
        client.headers["surefoot-workflow"] = "wf_2"
        others = [
            (await _ask(client, "hi")).status_code,
            (await _ask(client, "hi", model="claude-sonnet-5-5")).status_code,
            (await _ask(client, "hi", model="claude-sonnet-5-5")).status_code,
            (await _ask(client, "a naïve one")).status_code,
        ]
        await client.delete("/behave")
        client.headers["surefoot-workflow"] = "wf_1"
        after = (await _ask(client, "hi")).status_code

    assert (mine, others, after) == ([529, 529, 529], [200, 500, 200, 503], 200)


@pytest.mark.parametrize(
    "order",
    [
        {"times": 1},
        {"fail": {}, "where": {"nobody": 1}},
        {"limits": {"requests": 1}},
        {"limits": {"model": "m", "requests": 0}},
        [],
    ],
    ids=str,
)
async def test_order_that_cannot_be_read_is_refused_in_words(order: Any) -> None:
    async with _model() as client:
        answer = await client.post("/behave", json=order)

    assert answer.status_code == 400
    assert "post {" in answer.json()["error"]


async def test_requests_are_limited_as_ordered_and_told_when_to_come_again() -> None:
    clock = Clock()
    limits = {"model": "claude-haiku-5-5", "requests": 2, "seconds": 60}

    async with _model(clock) as client:
        await client.post("/behave", json={"limits": limits})
        answers = [await _ask(client, "hi") for _ in range(3)]
        other = await _ask(client, "hi", model="claude-sonnet-5-5")
        clock.now += 30
        later = await _ask(client, "hi")
        again = await _ask(client, "hi")

    remaining = [answer.headers["anthropic-ratelimit-requests-remaining"] for answer in answers]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert remaining == ["1", "0", "0"]
    assert answers[2].headers["retry-after"] == "30"
    assert answers[2].json()["error"]["type"] == "rate_limit_error"
    assert answers[0].headers["anthropic-ratelimit-requests-limit"] == "2"
    assert answers[0].headers["anthropic-ratelimit-requests-reset"].endswith("Z")
    assert (other.status_code, later.status_code, again.status_code) == (200, 200, 429)
    assert "anthropic-ratelimit-requests-limit" not in other.headers


async def test_tokens_are_limited_by_what_was_asked_and_by_what_was_answered() -> None:
    clock = Clock()
    limits = {"model": "claude-haiku-5-5", "input_tokens": 1000, "output_tokens": 30}

    async with _model(clock) as client:
        await client.post("/behave", json={"limits": limits})
        first = await _ask(client, "hi " * 100)
        too_much = await _ask(client, "hi " * 1400)
        clock.now += 3600
        answered = await _ask(client, _script({"text": "word " * 60}))
        spent = await _ask(client, "hi")

    assert int(first.headers["anthropic-ratelimit-input-tokens-remaining"]) < 1000
    assert (too_much.status_code, answered.status_code, spent.status_code) == (429, 200, 429)
    assert "output tokens" in spent.json()["error"]["message"]


# --- books ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
async def test_books_say_when_the_client_hung_up(stream: bool) -> None:
    async with _model() as client:
        prompt = _script({"text": "late", "latency_ms": 60_000})
        with pytest.raises(httpx.ReadTimeout):
            await client.post(
                "/v1/messages",
                json={
                    "model": "claude-haiku-5-5",
                    "max_tokens": 9,
                    "stream": stream,
                    "messages": [{"role": "user", "content": prompt}],
                },
                timeout=0.2,
            )
        async with asyncio.timeout(10):
            while (await _ledger(client))[0]["disconnected"] is None:
                pass
        whole = await _ask(client, "hi", stream=True)

    assert whole.status_code == 200


async def test_books_keep_the_bytes_of_a_request() -> None:
    async with _model() as client:
        for text in ("hi", "hi", "ho"):
            await _ask(client, text)
        entries = await _ledger(client)
        body = (await client.get(f"/requests/{entries[2]['request_id']}")).json()
        gone = await client.get("/requests/req_nobody")

    assert entries[0]["bytes"] == entries[1]["bytes"] != entries[2]["bytes"]
    assert (entries[0]["max_tokens"], entries[0]["disconnected"]) == (500, None)
    assert body["messages"] == [{"role": "user", "content": "ho"}]
    assert gone.status_code == 404


async def test_prompt_that_was_written_to_the_cache_is_read_from_it() -> None:
    kept = {"cache_control": {"type": "ephemeral"}}

    async with _model() as client:
        first = await _ask(client, "hi", system="s" * 400, **kept)
        second = await _ask(client, "hi", _answer(first), "and?", system="s" * 400, **kept)
        other = await _ask(client, "hi", system="s" * 400)

    usage = [answer.json()["usage"] for answer in (first, second, other)]
    assert usage[0]["cache_creation_input_tokens"] > 100
    assert usage[1]["cache_read_input_tokens"] == usage[0]["cache_creation_input_tokens"]
    assert usage[2]["input_tokens"] == usage[0]["cache_creation_input_tokens"]
    assert usage[2]["cache_read_input_tokens"] == 0
