"""The scripted model: strict where the real Messages API is, deterministic, and honest about what it is."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from anthropic import AsyncAnthropic, transform_schema

from app.domain import schemas
from app.embedded import wire
from app.embedded.model import ScriptedModel

pytestmark = pytest.mark.anyio

HEADERS = {"authorization": "Bearer sk-x", "anthropic-version": "2026-10-21"}
MEETING: dict[str, Any] = {
    "title": {"type": "string"},
    "attendees": {"type": "array", "items": {"type": "string", "format": "email"}, "minItems": 1},
    "minutes": {"type": "integer", "minimum": 15, "maximum": 240},
}
PROMPT = "Today is 2026-11-22. Extract the meeting from: 45 min with ana@x.io and bo@x.io on Tuesday, about the launch."


@asynccontextmanager
async def _model() -> AsyncIterator[httpx.AsyncClient]:
    async with (
        wire.listening(ScriptedModel().handle) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=HEADERS, timeout=10) as client,
    ):
        yield client


def _body(*messages: Any, **extra: Any) -> dict[str, Any]:
    said = [{"role": "user", "content": message} if isinstance(message, str) else message for message in messages]
    return {"model": "claude-haiku-5-5", "max_tokens": 500, "messages": said} | extra


async def _ask(client: httpx.AsyncClient, *messages: Any, **extra: Any) -> httpx.Response:
    return await client.post("/v1/messages", json=_body(*messages, **extra))


def _said(answer: httpx.Response) -> str:
    text: str = answer.json()["content"][0]["text"]
    return text


def _assistant(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks) or [{"type": "text", "text": "Hm."}]}


def _use(name: str) -> dict[str, Any]:
    return {"type": "tool_use", "id": name, "name": "x", "input": {}}


def _results(*names: str, beside: bool = False) -> dict[str, Any]:
    blocks: list[dict[str, Any]] = [{"type": "tool_result", "tool_use_id": name, "content": "ok"} for name in names]
    return {"role": "user", "content": [*blocks, {"type": "text", "text": "go on"}] if beside else blocks}


TOOL = {"name": "x", "input_schema": {"type": "object"}}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "temperature": (_body("hi", temperature=0), "temperature"),
    "unknown field": (_body("hi", foo=1), "foo: Extra inputs are not permitted"),
    "forced tool": (_body("hi", tools=[TOOL], tool_choice={"type": "any"}), "forced tool use"),
    "prefill": (_body("hi", _assistant()), "prefill"),
    "no messages": (_body(), "at least one message"),
    "assistant first": (_body(_assistant(), "hi"), 'first message must use the "user" role'),
    "no result": (_body("hi", _assistant(_use("t1")), "well?"), "`tool_use` ids were found without `tool_result`"),
    "one result short": (_body("hi", _assistant(_use("t1"), _use("t2")), _results("t1")), "immediately after: t2"),
    "result of nothing": (_body("hi", _results("t9")), "unexpected `tool_use_id`"),
    "wrong order": (_body("hi", _assistant(_use("t1"), _use("t2")), _results("t2", "t1")), "in the order of"),
    "text beside": (_body("hi", _assistant(_use("t1")), _results("t1", beside=True)), "must stand alone"),
    "two results": (_body("hi", _assistant(_use("t1")), _results("t1", "t1")), "single result"),
    "id twice": (_body("hi", _assistant(_use("t1"), _use("t1")), _results("t1", "t1")), "ids must be unique"),
    "empty text": (_body("hi", _assistant({"type": "text", "text": ""}), "hi"), "non-whitespace"),
    "empty message": (_body(""), "non-empty content"),
    "system first": (_body({"role": "system", "content": "x"}, "hi"), 'must use the "user" role'),
    "system on an old model": (
        _body("hi", {"role": "system", "content": "x"}, model="claude-sonnet-5"),
        "role 'system' is not supported on this model",
    ),
    "tool name with a dot": (_body("hi", tools=[TOOL | {"name": "a.b"}]), "tools.0.custom.name"),
    "tool twice": (_body("hi", tools=[TOOL, TOOL]), "Tool names must be unique"),
    "tool without schema": (_body("hi", tools=[{"name": "x"}]), "input_schema.type"),
    "max_tokens": (_body("hi", max_tokens=0), "max_tokens"),
    "too many tokens": (_body("hi", max_tokens=999_999), "maximum allowed number of output tokens"),
    "open object": (
        _body("hi", output_config={"format": {"type": "json_schema", "schema": {"type": "object"}}}),
        "'additionalProperties' must be explicitly set to false",
    ),
    "minimum": (
        _body("hi", output_config={"format": {"type": "json_schema", "schema": {"type": "integer", "minimum": 1}}}),
        "property 'minimum' is not supported",
    ),
    "effort": (_body("hi", output_config={"effort": "huge"}), "output_config.effort"),
    "thinking of another": (
        _body("hi", _assistant({"type": "thinking", "thinking": "hm", "signature": "forged"}), "hi"),
        "Invalid `signature` in `thinking` block",
    ),
    "too long": (_body("word " * 8_000, model="claude-scripted-small"), "prompt is too long"),
    "wrong types": (_body("hi", tool_choice="any"), "wrong type"),
    "directive": (_body("[[scripted: {no}]]"), "cannot be read"),
    "directive without an end": (_body('[[scripted: [{"text":"x"}]'), "does not end with"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_model_refuses_what_the_real_one_refuses(case: str) -> None:
    body, words = REFUSED[case]

    async with _model() as client:
        answer = await client.post("/v1/messages", json=body)

    assert answer.status_code == 400
    assert answer.json()["type"] == "error"
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert words in answer.json()["error"]["message"]
    assert answer.headers["request-id"].startswith("req_")


async def test_model_refuses_strangers_unknown_models_and_bodies_that_are_too_large() -> None:
    async with _model() as client:
        nobody = await client.post("/v1/messages", json=_body("hi"), headers={"authorization": ""})
        invalid = await client.post("/v1/messages", json=_body("hi"), headers={"authorization": "Bearer sk-invalid"})
        unknown = await _ask(client, "hi", model="gpt-5")
        large = await client.post("/v1/messages", content=b" " * (32 * 1024 * 1024 + 1))

    assert [answer.status_code for answer in (nobody, invalid, unknown, large)] == [401, 401, 404, 413]
    assert unknown.json()["error"] == {"type": "not_found_error", "message": "model: gpt-5"}


async def test_meeting_lacks_a_comma_first_and_is_right_after_the_reminder() -> None:
    async with _model() as client:
        first = await _ask(client, PROMPT)
        second = await _ask(client, PROMPT, {"role": "assistant", "content": first.json()["content"]}, "JSON, please.")

    with pytest.raises(json.JSONDecodeError, match="Expecting ',' delimiter"):
        json.loads(_said(first))
    meeting = json.loads(_said(second))
    assert meeting == {"title": "the launch", "minutes": 45, "attendees": ["ana@x.io", "bo@x.io"]}
    assert schemas.validate(schemas.expand(MEETING), meeting) == []


@pytest.mark.parametrize("people", ["", "with ana@x.io", "with ana@x.io, bo@x.io and cy@x.io"])
async def test_first_meeting_is_never_json_however_many_take_part(people: str) -> None:
    async with _model() as client:
        first = await _ask(client, f"Extract the meeting from: an hour {people}")

    with pytest.raises(json.JSONDecodeError, match="Expecting ',' delimiter"):
        json.loads(_said(first))


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("30 min", 30), ("1.5 hours", 90), ("2h", 120), ("an hour", 60), ("5 minutes", 15), ("9 hours", 240), ("", 30)],
)
async def test_meeting_takes_the_minutes_from_the_text(text: str, minutes: int) -> None:
    async with _model() as client:
        answer = await _ask(client, f"Extract the meeting from: {text} with a@x.io", _assistant(), "again")

    assert json.loads(_said(answer))["minutes"] == minutes


async def test_choice_is_the_first_half_hour_in_which_nobody_is_busy() -> None:
    busy = [
        {"email": "a", "busy": [{"start": "2026-11-24T13:00:00Z", "end": "2026-11-24T14:00:00Z"}]},
        {"email": "b", "busy": [{"start": "2026-11-24T14:00:00Z", "end": "2026-11-24T14:15:00Z"}]},
    ]

    async with _model() as client:
        free = await _ask(client, f"Pick a start. Busy times: {json.dumps(busy)}")
        unknown = await _ask(client, "Pick a start. Busy times: []")

    assert json.loads(_said(free)) == {"found": True, "start": "2026-11-24T14:30:00Z"}
    assert json.loads(_said(unknown))["found"] is False


async def test_answer_is_a_minimal_instance_when_only_a_schema_is_given() -> None:
    schema = schemas.expand(
        MEETING
        | {"kind": {"enum": ["a", "b"]}, "when": {"type": "string", "format": "date-time"}, "ok": {"type": "boolean"}}
    )
    wanted = {"format": {"type": "json_schema", "schema": transform_schema(schema)}}

    async with _model() as client:
        answer = await _ask(client, "Anything.", output_config=wanted)

    assert schemas.validate(schema, json.loads(_said(answer))) == []


async def test_answer_says_what_it_is_when_nothing_is_scripted() -> None:
    async with _model() as client:
        answer = await _ask(client, "What is the capital of France?")

    assert _said(answer).startswith("This is the scripted model, not Claude.")


async def test_script_gives_one_turn_for_each_answer_and_repeats_the_last() -> None:
    prompt = '[[scripted: [{"tools":[{"name":"calendar.free_busy","input":{"a":[[1]]}}]}, {"text":"Done."}]]]'

    async with _model() as client:
        first = (await _ask(client, prompt)).json()
        history = [prompt, {"role": "assistant", "content": first["content"]}, _results(first["content"][0]["id"])]
        second = await _ask(client, *history)
        third = await _ask(client, *history, _assistant(), "And?")

    assert first["stop_reason"] == "tool_use"
    assert first["content"][0]["name"] == "calendar-free_busy"
    assert first["content"][0]["input"] == {"a": [[1]]}
    assert (_said(second), _said(third)) == ("Done.", "Done.")


async def test_scripted_failures_come_first_and_only_as_often_as_listed() -> None:
    prompt = '[[scripted: [{"text":"ok","fail":[{"status":529},{"status":429,"retry_after":2}]}]]]'

    async with _model() as client:
        answers = [await _ask(client, prompt) for _ in range(4)]

    assert [answer.status_code for answer in answers] == [529, 429, 200, 200]
    assert answers[1].headers["retry-after"] == "2"
    assert answers[0].json()["error"]["type"] == "overloaded_error"


async def test_posted_failure_hits_the_next_requests_of_anybody() -> None:
    async with _model() as client:
        await client.post("/behave", json={"fail": {"text": '{"a": 1,,}', "stop": "end_turn"}, "times": 1})
        answers = [_said(await _ask(client, "hi")) for _ in range(2)]
        wrong = await client.post("/behave", json={"times": 1})

    assert answers[0] == '{"a": 1,,}'
    assert answers[1].startswith("This is the scripted model")
    assert wrong.status_code == 400


async def test_thinking_is_accepted_when_it_comes_back_unchanged_and_refused_when_the_prefix_changed() -> None:
    prompt = '[[scripted: [{"text":"ok","thinking":"hm"}]]]'

    async with _model() as client:
        first = (await _ask(client, prompt, system="s")).json()
        answer = {"role": "assistant", "content": first["content"]}
        same = await _ask(client, prompt, answer, "again", system="s")
        changed = await _ask(client, prompt, answer, "again", system="other")

    assert same.status_code == 200
    assert changed.status_code == 400


async def test_streamed_answer_equals_the_whole_one_for_the_sdk() -> None:
    turn = {
        "thinking": "hm",
        "text": "Let me look. " * 10,
        "tools": [{"name": "x", "input": {"deep": [1.5, {"é": None}]}}],
    }
    body = _body(f"[[scripted: {json.dumps([turn])}]]", tools=[TOOL])

    async with (
        wire.listening(ScriptedModel().handle) as port,
        AsyncAnthropic(api_key="sk-x", base_url=f"http://127.0.0.1:{port}", max_retries=0) as client,
    ):
        whole = await client.messages.create(**body)
        async with client.messages.stream(**body) as stream:
            streamed = await stream.get_final_message()
        counted = await client.messages.count_tokens(
            model=body["model"], messages=body["messages"], tools=body["tools"]
        )
        listed = [model.id async for model in client.models.list()]

    assert streamed.to_dict()["content"] == whole.to_dict()["content"]
    assert (streamed.stop_reason, streamed.usage.output_tokens) == (whole.stop_reason, whole.usage.output_tokens)
    assert counted.input_tokens == whole.usage.input_tokens
    assert whole.usage.cache_read_input_tokens == 0
    assert whole._request_id == "req_scripted000001"
    assert body["model"] in listed


async def test_answers_are_the_same_after_a_restart() -> None:
    answers = []
    for _ in range(2):
        async with _model() as client:
            answers.append((await _ask(client, '[[scripted: [{"tools":[{"name":"x"}]}]]]')).json())

    assert answers[0] == answers[1]


async def test_ledger_tells_who_asked_what_and_what_came_of_it() -> None:
    async with _model() as client:
        await client.post("/v1/messages", json=_body("hi"), headers={"Surefoot-Call": "call_1"})
        await _ask(client, "hi", temperature=1)
        entries = (await client.get("/ledger")).json()["data"]

    assert [(entry["status"], entry["call"]) for entry in entries] == [(200, "call_1"), (400, None)]
    assert entries[0]["model"] == "claude-haiku-5-5"
    assert entries[0]["input_tokens"] > 0
    assert len(entries[0]["hash"]) == 64
