"""Conversations as bytes: verbatim, ordered, never malformed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.domain import conversation
from app.domain.conversation import ToolResult

ANSWER: dict[str, Any] = {
    "role": "assistant",
    "content": [
        {"type": "text", "text": "Let me look."},
        {"type": "tool_use", "id": "toolu_1", "name": "calendar-free_busy", "input": {"z": 1.0, "a": "é\u2028"}},
        {"type": "tool_use", "id": "toolu_2", "name": "email-send", "input": {}},
    ],
    "stop_reason": "tool_use",
}
FINISHED: dict[str, Any] = {"role": "assistant", "content": [{"type": "text", "text": "Done."}]}


def _user(text: str = "Book a meeting.") -> bytes:
    return conversation.user_message(text)


def _results(*ids: str) -> bytes:
    return conversation.tool_results_message([ToolResult(tool_use_id=name, value="ok") for name in ids])


def test_assistant_message_keeps_the_content_verbatim_and_its_order_of_keys() -> None:
    body = conversation.assistant_message(ANSWER)

    assert json.loads(body) == {"role": "assistant", "content": ANSWER["content"]}
    assert body.index(b'"z"') < body.index(b'"a"')
    assert b"1.0" in body


def test_tool_results_keep_their_order_and_say_which_failed() -> None:
    body = conversation.tool_results_message(
        [
            ToolResult(tool_use_id="toolu_1", value={"busy": []}),
            ToolResult(tool_use_id="toolu_2", value="no such address", is_error=True),
        ]
    )

    assert json.loads(body)["content"] == [
        {"type": "tool_result", "tool_use_id": "toolu_1", "content": '{"busy":[]}'},
        {"type": "tool_result", "tool_use_id": "toolu_2", "content": "no such address", "is_error": True},
    ]


def test_long_result_shows_head_and_tail_and_says_what_was_cut() -> None:
    value = "h" * conversation.RESULT_HEAD + "middle" * 1000 + "t" * conversation.RESULT_TAIL

    text = conversation.result_text(value)

    assert text.startswith("h" * conversation.RESULT_HEAD)
    assert text.endswith("t" * conversation.RESULT_TAIL)
    assert "[… 6,000 of 54,000 characters left out here …]" in text
    assert "middle" not in text


@pytest.mark.parametrize(("value", "text"), [("plain", "plain"), (None, "null"), ([1, {"a": "ü"}], '[1,{"a":"ü"}]')])
def test_result_is_text_as_it_is_or_compact_json(value: Any, text: str) -> None:
    assert conversation.result_text(value) == text


def test_message_carries_no_nul_and_no_lone_surrogate_when_the_text_holds_them() -> None:
    body = conversation.user_message("a\x00b\ud800c\U0001f600")

    assert json.loads(body.decode("utf-8"))["content"] == "a\ufffdb\ufffdc\U0001f600"


def test_format_reminder_names_each_error_and_the_schema() -> None:
    body = conversation.format_reminder(
        [{"pointer": "", "message": "Expecting ',' delimiter, line 4 col 37"}, {"pointer": "/n", "message": "too big"}],
        {"type": "object"},
    )

    content = json.loads(body)["content"]
    assert "- Expecting ',' delimiter, line 4 col 37\n- /n: too big" in content
    assert content.endswith('{"type":"object"}')


def test_format_reminder_lists_at_most_twenty_errors() -> None:
    errors = [{"pointer": f"/{n}", "message": "wrong"} for n in range(25)]

    content = json.loads(conversation.format_reminder(errors, None))["content"]

    assert "- /19: wrong\n- and 5 more" in content
    assert "/20" not in content


def test_repair_appends_the_answer_and_the_reminder_when_the_answer_can_stay() -> None:
    added = conversation.repair(FINISHED, errors=[{"pointer": "", "message": "not JSON"}], schema={"type": "object"})

    assert [json.loads(body)["role"] for body in added] == ["assistant", "user"]
    assert conversation.check([_user(), *added]) == []


@pytest.mark.parametrize(
    "content",
    [[], [{"type": "text", "text": " "}], ANSWER["content"], "text"],
    ids=["empty", "blank", "asks for tools", "no blocks"],
)
def test_repair_appends_the_reminder_alone_when_the_answer_cannot_stay(content: Any) -> None:
    added = conversation.repair({"content": content}, errors=[{"pointer": "", "message": "empty"}], schema=None)

    assert [json.loads(body)["role"] for body in added] == ["user"]
    assert conversation.check([_user(), *added]) == []


@pytest.mark.parametrize(
    "messages",
    [
        [_user()],
        [_user(), conversation.assistant_message(ANSWER), _results("toolu_1", "toolu_2")],
        [_user(), conversation.assistant_message(FINISHED), _user("Again."), _user("Now.")],
        [_user(), b'{"role":"system","content":"Tool x is disabled."}'],
    ],
    ids=["prompt", "tool results", "two user messages", "system note"],
)
def test_check_finds_nothing_when_a_conversation_is_well_formed(messages: list[bytes]) -> None:
    assert conversation.check(messages) == []


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([], "at least one message"),
        ([conversation.assistant_message(FINISHED), _user()], "follows a user message"),
        ([_user(), conversation.assistant_message(FINISHED)], "nothing follows the assistant's last message"),
        ([_user(), conversation.assistant_message(ANSWER), _user()], "expected results of"),
        ([_user(), conversation.assistant_message(ANSWER), _results("toolu_1")], "expected results of"),
        ([_user(), conversation.assistant_message(ANSWER), _results("toolu_2", "toolu_1")], "not in the order"),
        (
            [_user(), conversation.assistant_message(ANSWER), _results("toolu_1", "toolu_2", "toolu_2")],
            "expected results",
        ),
        ([_user(), _results("toolu_9")], "expected results of []"),
        ([_user("")], "content is empty"),
        ([b'{"role":"tool","content":"x"}'], "a message has a role"),
        ([b'{"role":"user","content":"x","id":1}'], "nothing else"),
        ([b'{"role":"system","content":"x"}', _user()], "a system message follows a user message"),
    ],
)
def test_check_names_the_rule_when_a_conversation_breaks_it(messages: list[bytes], problem: str) -> None:
    assert any(problem in said for said in conversation.check(messages))


def test_check_refuses_text_beside_tool_results() -> None:
    beside = json.loads(_results("toolu_1", "toolu_2"))
    beside["content"].append({"type": "text", "text": "Go on."})

    said = conversation.check([_user(), conversation.assistant_message(ANSWER), json.dumps(beside).encode()])

    assert said == ["messages.2: something stands beside the tool results"]


def test_check_refuses_a_tool_use_id_when_it_occurs_twice() -> None:
    asked, answered = conversation.assistant_message(ANSWER), _results("toolu_1", "toolu_2")

    said = conversation.check([_user(), asked, answered, asked, answered])

    assert said == ["messages.3: tool use toolu_1 occurs twice", "messages.3: tool use toolu_2 occurs twice"]


def test_wire_names_are_accepted_by_the_provider_and_never_collide() -> None:
    names = [
        "calendar.free_busy",
        "calendar-free_busy",
        "calendar_free_busy",
        "a.b",
        "a-b",
        "x" * 80,
        "x" * 81,
        "ü.y",
        "",
    ]

    wired = [conversation.wire_name(name) for name in names]

    assert wired[0] == "calendar-free_busy"
    assert len(set(wired)) == len(names)
    assert all(0 < len(name) <= 64 and name.isascii() and "." not in name for name in wired)


def test_tool_param_accepts_any_object_when_there_is_no_schema() -> None:
    param = conversation.tool_param(name="email.send", description="Send one mail.", input_schema=None)

    assert param == {"name": "email-send", "description": "Send one mail.", "input_schema": {"type": "object"}}


# --- parts, notes, other models ------------------------------------------------------------------------------------

PAUSED: dict[str, Any] = {
    "content": [
        {"type": "text", "text": "I search."},
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}},
    ]
}
THINKS: dict[str, Any] = {
    "content": [{"type": "thinking", "thinking": "Hm.", "signature": "s"}, {"type": "text", "text": "Yes."}]
}


def test_paused_turn_may_end_a_request_and_its_rest_stands_right_behind_it() -> None:
    paused = conversation.assistant_message(PAUSED)

    assert conversation.check([_user(), paused]) == []
    assert conversation.check([_user(), paused, paused]) == []
    assert conversation.check([_user(), paused, conversation.assistant_message(FINISHED), _user()]) == []


def test_finished_turn_may_not_end_a_request_nor_be_followed_by_another() -> None:
    done = conversation.assistant_message(FINISHED)

    assert conversation.check([_user(), done]) == ["messages.1: nothing follows the assistant's last message"]
    assert conversation.check([_user(), done, done, _user()]) == [
        "messages.2: an assistant message follows a user message"
    ]


def test_note_is_a_message_of_its_own_in_the_role_that_the_model_takes() -> None:
    system, user = conversation.note("Stop.\x00", role="system"), conversation.note("Stop.", role="user")

    assert json.loads(system) == {"role": "system", "content": "Stop.\ufffd"}
    assert json.loads(user)["role"] == "user"
    assert conversation.check([_user(), system]) == []
    assert conversation.check([_user(), system, system]) == ["messages.2: a system message follows a user message"]


def test_message_without_thinking_keeps_everything_else_in_its_order() -> None:
    body = conversation.assistant_message(THINKS)

    assert json.loads(conversation.without_thinking(body) or b"")["content"] == THINKS["content"][1:]


def test_message_that_holds_no_thinking_is_carried_over_byte_by_byte() -> None:
    spaced = b'{"role": "assistant",  "content": [{"type": "text", "text": "Yes."}]}'

    assert conversation.without_thinking(spaced) == spaced
    assert conversation.without_thinking(_user()) == _user()


def test_message_of_thinking_alone_is_left_out() -> None:
    assert conversation.without_thinking(conversation.assistant_message({"content": THINKS["content"][:1]})) is None


def test_digest_of_a_result_tells_what_the_model_saw_and_whether_it_failed() -> None:
    results = [
        ToolResult(tool_use_id="toolu_1", value={"a": 1}),
        ToolResult(tool_use_id="toolu_2", value={"a": 1}),
        ToolResult(tool_use_id="toolu_3", value={"a": 1}, is_error=True),
    ]

    body, seen = conversation.results_and_digests(results)

    assert body == conversation.tool_results_message(results)
    assert seen[0] == seen[1] != seen[2]
