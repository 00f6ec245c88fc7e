"""A conversation as text: it fits, the least worth is shortened first, and the same bytes give the same text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain import conversation
from app.domain.conversation import ToolResult
from app.domain.transcripts import SHORT, cut, transcript


def turn(number: int, *, result: str, words: str = "I look.") -> list[bytes]:
    use = {"type": "tool_use", "id": f"toolu_{number}", "name": "look", "input": {"n": number}}
    thinking = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
    answer = {"content": [thinking, {"type": "text", "text": words}, use]}
    results = [ToolResult(tool_use_id=f"toolu_{number}", value=result, is_error=number == 2)]
    return [conversation.assistant_message(answer), conversation.tool_results_message(results)]


def spoken(turns: int, size: int) -> list[bytes]:
    task = [conversation.user_message("The task, in words.")]
    return task + [body for n in range(turns) for body in turn(n, result=f"r{n} " + "x" * size)]


def test_transcript_says_everything_where_there_is_room() -> None:
    text = transcript(spoken(3, 10), room=100_000)

    assert text.count("[assistant calls look]\n") == 3
    assert text.startswith("[user]\nThe task, in words.\n")
    assert '{"n":1}' in text
    assert "[result (failed)]\nr2 xxxxxxxxxx\n" in text
    assert "hm" not in text
    assert "toolu" not in text


def test_oldest_results_are_shortened_first_and_the_newest_stay_whole() -> None:
    text = transcript(spoken(4, 5_000), room=12_000)

    assert len(text.encode()) <= 12_000
    assert "r3 " + "x" * 5_000 in text
    assert "r2 " + "x" * 5_000 in text
    assert "r0 " + "x" * 5_000 not in text
    assert f"r0 {'x' * (SHORT - 3)}\n[… 4,603 of 5,003 characters left out here …]" in text
    assert text.count("I look.") == 4


def test_task_and_newest_stay_where_even_the_shortened_do_not_fit() -> None:
    text = transcript(spoken(200, 300), room=6_000)

    assert len(text.encode()) <= 6_000
    assert text.startswith("[user]\nThe task, in words.")
    assert "the middle of this transcript is left out" in text
    assert "r199 " in text


_TEXTS = st.text(max_size=60)


@settings(max_examples=60, deadline=None)
@given(parts=st.lists(st.tuples(_TEXTS, _TEXTS, st.integers(0, 3_000)), max_size=20), room=st.integers(400, 20_000))
def test_transcript_fits_its_room_and_comes_out_the_same_each_time(
    parts: list[tuple[str, str, int]], room: int
) -> None:
    bodies = [conversation.user_message("task")]
    for n, (words, result, size) in enumerate(parts):
        bodies += turn(n, words=words, result=result + "ü" * size)

    text = transcript(bodies, room=room)

    assert len(text.encode()) <= room
    assert text == transcript(bodies, room=room)


@pytest.mark.parametrize(
    "content", [[{"type": "text"}, {"type": "odd"}], [{"type": "tool_result", "content": [{"type": "text"}]}], None, 7]
)
def test_transcript_of_odd_content_is_no_error(content: Any) -> None:
    body = json.dumps({"role": "user", "content": content}).encode()

    assert isinstance(transcript([body], room=1_000), str)


def test_cut_says_how_much_is_left_out() -> None:
    assert cut("x" * 10, 10) == "x" * 10
    assert cut("x" * 11, 10) == "x" * 10 + "\n[… 1 of 11 characters left out here …]"
