"""What follows from a model's answer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain import answers
from app.domain.answers import Final, ToolCalls
from app.domain.outcomes import Failure
from app.domain.states import FailureKind

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"title": {"type": "string"}, "minutes": {"type": "integer", "minimum": 15}},
    "required": ["title", "minutes"],
    "additionalProperties": False,
}
OFFERED = frozenset({"calendar.free_busy", "email.send"})


def _text(text: str, stop: str | None = "end_turn") -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "text", "text": text}], "stop_reason": stop}


def _uses(*uses: tuple[str, str, Any], stop: str | None = "tool_use") -> dict[str, Any]:
    blocks = [{"type": "tool_use", "id": used, "name": name, "input": given} for used, name, given in uses]
    return {"role": "assistant", "content": blocks, "stop_reason": stop}


def _judge(message: Any, schema: dict[str, Any] | None = None) -> Final | ToolCalls | Failure:
    return answers.judge(answers.read_answer(message), output_schema=schema, offered=OFFERED)


def _failure(message: Any, schema: dict[str, Any] | None = None) -> Failure:
    judged = _judge(message, schema)
    assert isinstance(judged, Failure)
    return judged


def test_answer_without_a_stop_reason_is_never_executed_or_used() -> None:
    assert _failure(_uses(("t1", "email-send", {}), stop=None)).kind is FailureKind.NETWORK
    assert _failure(_text("done", stop=None)).kind is FailureKind.NETWORK


@pytest.mark.parametrize(
    ("stop", "kind"),
    [
        ("max_tokens", FailureKind.OUTPUT_TRUNCATED),
        ("model_context_window_exceeded", FailureKind.CONTEXT_TOO_LONG),
        ("refusal", FailureKind.REFUSED),
        ("pause_turn", FailureKind.PAUSED_TURN),
        ("something_new", FailureKind.MALFORMED_OUTPUT),
    ],
)
def test_stop_reason_decides_before_the_content_does(stop: str, kind: FailureKind) -> None:
    assert _failure(_text('{"title":"x","minutes":30}', stop=stop), SCHEMA).kind is kind


def test_truncated_answer_says_when_it_holds_half_a_tool_call() -> None:
    failure = _failure(_uses(("t1", "email-send", {"to": "a"}), stop="max_tokens"))

    assert failure.detail == {"half_tool_call": True}
    assert "in the middle of a tool call" in failure.message


def test_refusal_names_its_category() -> None:
    message = _text("no", stop="refusal") | {"stop_details": {"type": "refusal", "category": "cyber"}}

    failure = _failure(message)

    assert failure.message == "The model refused to answer (category: cyber)."
    assert failure.detail == {"category": "cyber"}


def test_text_is_the_output_when_no_schema_is_declared() -> None:
    assert _judge(_text("Booked.")) == Final(value="Booked.")


@pytest.mark.parametrize("text", ['{"title":"x","minutes":30}', '```json\n{"title":"x","minutes":30}\n```\n'])
def test_json_is_the_output_when_it_fits_the_schema_bare_or_as_one_whole_fence(text: str) -> None:
    assert _judge(_text(text), SCHEMA) == Final(value={"title": "x", "minutes": 30})


def test_malformed_json_carries_the_parsers_exact_complaint() -> None:
    text = '{\n  "title": "Sync",\n  "minutes": 30,\n  "attendees": ["alice@example.com" "bo@x.io"]\n}'

    failure = _failure(_text(text), SCHEMA)

    assert failure.kind is FailureKind.MALFORMED_OUTPUT
    assert failure.message == "Expecting ',' delimiter, line 4 col 37"
    assert failure.detail == {"errors": [{"pointer": "", "message": failure.message}]}


@pytest.mark.parametrize(
    "text",
    [
        'Here it is: {"title":"x","minutes":30}',
        '```json\n{"title":"x","minutes":30}\n```\nHope that helps.',
        '{"title":"x","minutes":30,}',
        '{"title":"x","minutes":NaN}',
        '{"title":"a\\u0000b","minutes":30}',
        '{"title":"\\ud800","minutes":30}',
        "[" * 100_000,
        '{"title":"x","minutes":' + "9" * 5000 + "}",
        "",
        "   ",
    ],
    ids=["prose", "fence and prose", "comma", "NaN", "NUL", "surrogate", "brackets", "digits", "empty", "blank"],
)
def test_answer_is_malformed_when_it_is_not_json_that_can_be_stored(text: str) -> None:
    assert _failure(_text(text), SCHEMA).kind is FailureKind.MALFORMED_OUTPUT


def test_wrong_shape_lists_every_pointer() -> None:
    failure = _failure(_text('{"minutes": 5, "extra": 1}'), SCHEMA)

    assert failure.kind is FailureKind.WRONG_SHAPE
    assert "/minutes" in {error["pointer"] for error in failure.detail["errors"]}
    assert len(failure.detail["errors"]) == 3
    assert failure.message.endswith("(and 2 more)")


def test_text_that_cannot_be_stored_is_malformed_when_no_schema_is_declared() -> None:
    assert _failure(_text("a\x00b")).kind is FailureKind.MALFORMED_OUTPUT


def test_tool_calls_carry_the_tools_own_names_and_ordinals() -> None:
    judged = _judge(_uses(("t1", "calendar-free_busy", {"email": "a@x.io"}), ("t2", "email-send", {})))

    assert isinstance(judged, ToolCalls)
    assert [(use.id, use.name, use.ordinal) for use in judged.uses] == [
        ("t1", "calendar.free_busy", 0),
        ("t2", "email.send", 1),
    ]
    assert judged.refused == {}


def test_unknown_tool_is_refused_with_the_list_and_the_others_go_on() -> None:
    judged = _judge(_uses(("t1", "email-send", {}), ("t2", "rm", {}), ("t3", "email.send", {})))

    assert isinstance(judged, ToolCalls)
    assert {ordinal: failure.kind for ordinal, failure in judged.refused.items()} == {
        1: FailureKind.TOOL_UNKNOWN,
        2: FailureKind.TOOL_UNKNOWN,
    }
    assert judged.refused[1].message == "There is no tool named 'rm'. Available: calendar-free_busy, email-send."


@pytest.mark.parametrize("given", [None, "text", [1], {"to": "a\x00"}, {"to": "\ud800"}, {"n": float("inf")}])
def test_tool_use_is_refused_when_its_arguments_are_no_storable_object(given: Any) -> None:
    judged = _judge(_uses(("t1", "email-send", given)))

    assert isinstance(judged, ToolCalls)
    assert judged.refused[0].kind is FailureKind.TOOL_ARGUMENTS_INVALID


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (_uses(("t1", "email-send", {}), ("t1", "email-send", {})), "occurs more than once"),
        (_uses(("", "email-send", {})), "no id or no name"),
        (_uses(("t1", "", {})), "no id or no name"),
        (_uses(("t\x001", "email-send", {})), "no id or no name"),
        (_uses(), "named none"),
        (_uses(("t1", "email-send", {}), stop="novel"), "its stop reason is 'novel'"),
        ({"content": "text", "stop_reason": "end_turn"}, "not a list of blocks"),
        (_uses(*((f"t{n}", "email-send", {}) for n in range(65))), "65 tools at once"),
    ],
)
def test_answer_is_malformed_when_it_breaks_the_protocol(message: Any, words: str) -> None:
    failure = _failure(message)

    assert failure.kind is FailureKind.MALFORMED_OUTPUT
    assert words in failure.message


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(json_values, json_values, st.none() | st.sampled_from(["end_turn", "tool_use", "refusal"]) | json_values)
def test_judge_returns_an_answer_whatever_the_provider_sends(content: Any, details: Any, stop: Any) -> None:
    for message in (
        content,
        {"content": content, "stop_reason": stop, "stop_details": details},
        {"content": [content]},
    ):
        assert isinstance(_judge(message, SCHEMA), Final | ToolCalls | Failure)


# --- answers in parts ----------------------------------------------------------------------------------------------


def _joined(before: str, text: str, schema: dict[str, Any] | None = None) -> Final | ToolCalls | Failure:
    return answers.judge(answers.read_answer(_text(text)), output_schema=schema, offered=OFFERED, before=before)


def test_parts_of_an_answer_are_judged_as_one_text() -> None:
    assert _joined("Hel", "lo") == Final(value="Hello")
    assert _joined('{"title": "S', 'ync", "minutes": 30}', SCHEMA) == Final(value={"title": "Sync", "minutes": 30})


def test_rest_of_an_answer_may_be_nothing() -> None:
    assert _joined("Hello", "") == Final(value="Hello")


def test_whole_answer_after_a_cut_one_is_taken_alone_if_the_joined_text_cannot_be_read() -> None:
    assert _joined('{"title": "S', '{"title": "Sync", "minutes": 30}', SCHEMA) == Final(
        value={"title": "Sync", "minutes": 30}
    )


def test_joined_text_that_is_wrong_either_way_is_accused_as_it_is() -> None:
    judged = _joined('{"title": "S', 'ync", "minutes": 3}', SCHEMA)

    assert isinstance(judged, Failure)
    assert judged.kind is FailureKind.WRONG_SHAPE


def test_answer_whose_bytes_could_not_be_stored_is_malformed_and_not_lost() -> None:
    failure = _failure({"opaque": True, "reason": "NUL at byte 7"})

    assert failure.kind is FailureKind.MALFORMED_OUTPUT
    assert "NUL at byte 7" in failure.message
