"""Checking only what is new says the same as checking everything, and looks again where the bytes are not the same."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain import conversation
from app.domain.conversation import ToolResult
from app.engine.checking import Checked, _digest, _Known

PLACE = (UUID(int=1), "a", 1)


def said(*uses: str, text: str = "I look.") -> bytes:
    content: list[dict[str, Any]] = [{"type": "text", "text": text}]
    content += [{"type": "tool_use", "id": name, "name": "look", "input": {}} for name in uses]
    return conversation.assistant_message({"content": content})


def results(*uses: str) -> bytes:
    return conversation.tool_results_message([ToolResult(tool_use_id=name, value="ok") for name in uses])


def note(text: str = "Mind the gap.") -> bytes:
    return json.dumps({"role": "system", "content": text}).encode()


TASK = conversation.user_message("Go.")
LONG = [TASK] + [body for n in range(50) for body in (said(f"t{n}"), results(f"t{n}"))]

_NAMES = st.sampled_from(["t1", "t2", "t3"])
_MESSAGES = st.one_of(
    st.just(TASK),
    st.builds(lambda names: said(*names), st.lists(_NAMES, max_size=2)),
    st.builds(lambda names: results(*names), st.lists(_NAMES, min_size=1, max_size=2)),
    st.just(note()),
    st.just(b'{"role":"assistant","content":[{"type":"server_tool_use","id":"s1","name":"x","input":{}}]}'),
    st.just(b'{"role":"user","content":[]}'),
)


def well_formed(draw: st.DrawFn) -> list[bytes]:
    """A conversation that may be sent."""
    messages = [TASK]
    for n in range(draw(st.integers(0, 4))):
        uses = [f"u{n}.{k}" for k in range(draw(st.integers(1, 2)))]
        messages += [said(*uses), results(*uses)]
        if draw(st.booleans()):
            messages.append(draw(st.sampled_from([note(), TASK])))
    return messages


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_check_of_what_is_new_agrees_with_the_check_of_everything(data: st.DataObject) -> None:
    known = well_formed(data.draw)
    longer = known + data.draw(st.lists(_MESSAGES, max_size=4))
    again = st.sampled_from([said("u0.0"), results("u0.0"), said("t9"), results("t9"), TASK])
    longer += data.draw(st.lists(again, max_size=3))
    checked = Checked()
    assert checked.problems(PLACE, known) == []

    found = checked.problems(PLACE, longer)

    assert bool(found) == bool(conversation.check(longer)), found


def test_what_is_remembered_as_checked_is_not_looked_at_again() -> None:
    checked = Checked()
    broken = [*LONG[:50], note(), *LONG[50:]]
    assert conversation.check(broken) != []
    checked._known[PLACE] = _Known(count=len(broken), digest=_digest(broken), uses=frozenset())

    assert checked.problems(PLACE, [*broken, said("new"), results("new")]) == []


def test_conversation_whose_rows_were_changed_by_hand_is_checked_as_a_whole() -> None:
    checked = Checked()
    assert checked.problems(PLACE, LONG) == []
    changed = [*LONG[:4], results("another"), *LONG[5:]]

    assert checked.problems(PLACE, changed) == conversation.check(changed) != []


def test_tool_use_of_long_ago_that_comes_again_is_found_and_named() -> None:
    checked = Checked()
    assert checked.problems(PLACE, LONG) == []

    found = checked.problems(PLACE, [*LONG, said("t0"), results("t0")])

    assert found == ["messages.101: tool use t0 occurs twice"]


def test_tool_use_that_comes_again_is_found_however_often_was_checked_since() -> None:
    checked = Checked()
    longer = [*LONG, said("new"), results("new")]
    assert checked.problems(PLACE, LONG) == checked.problems(PLACE, longer) == []

    assert checked.problems(PLACE, [*longer, said("t0"), results("t0")]) != []


def test_note_behind_a_note_is_found_where_the_first_was_checked_before() -> None:
    checked = Checked()
    assert checked.problems(PLACE, [*LONG, note()]) == []

    assert checked.problems(PLACE, [*LONG, note(), note()]) == ["messages.102: a system message follows a user message"]


def test_conversation_that_is_broken_stays_broken() -> None:
    checked = Checked()
    broken = [TASK, said("t1"), TASK]

    assert checked.problems(PLACE, broken) == checked.problems(PLACE, broken) != []


def test_memory_is_bounded_and_what_fell_out_is_checked_as_a_whole() -> None:
    checked = Checked(most=2)
    for number in range(3):
        assert checked.problems((UUID(int=number), "a", 1), LONG) == []

    assert len(checked._known) == 2
    assert checked.problems((UUID(int=0), "a", 1), LONG) == []
    assert checked.problems((UUID(int=0), "a", 1), [*LONG[:3], *LONG[4:]]) != []


def test_shorter_request_of_a_longer_conversation_is_checked_too() -> None:
    checked = Checked()
    assert checked.problems(PLACE, LONG) == []

    assert checked.problems(PLACE, LONG[:3]) == []
    assert checked.problems(PLACE, LONG[:2]) != []
