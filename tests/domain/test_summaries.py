"""The first message of a conversation that goes on: the task, what was done and the latest input, word for word."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from app.domain import conversation, ids, summaries
from app.domain.conversation import ToolResult
from app.domain.histories import EffectDone, History

TASK = conversation.user_message("Pay what is due. Order: ü \u2028 4711")


def effect(n: int, *, state: str = "succeeded", undo: str = "none", **more: Any) -> EffectDone:
    given = {"arguments": {"amount": n}, "result": {"id": f"pm_{n}"}} | more
    return EffectDone(call_id=UUID(int=n), tool="pay", state=state, undo=undo, **given)


def first(history: History, *, summary: str = "So far so good.", was_cut: bool = False) -> str:
    body = summaries.first_message(history, summary=summary, was_cut=was_cut)
    assert conversation.check([body]) == []
    message = json.loads(body)
    assert (message["role"], isinstance(message["content"], str)) == ("user", True)
    text: str = message["content"]
    return text


def test_task_stands_first_word_for_word_and_the_summary_behind_it() -> None:
    text = first(History(task=TASK))

    assert text.startswith("Pay what is due. Order: ü \u2028 4711\n\n[The conversation")
    assert f"{summaries.SUMMARY_HEAD}\nSo far so good.\n" in text
    assert summaries.EFFECTS_HEAD not in text
    assert summaries.LATEST_HEAD not in text
    assert text.endswith("Go on with the task.")


def test_effects_are_listed_with_arguments_result_id_and_what_became_of_them() -> None:
    effects = (effect(1), effect(2, undo="done"), effect(3, state="abandoned", result=None))

    text = first(History(task=TASK, effects=effects))

    listed = text.split(summaries.EFFECTS_HEAD)[1].splitlines()[1:4]
    assert listed == [
        f'- pay {{"amount":1}}: done ({ids.encode("call", UUID(int=1))}); result {{"id":"pm_1"}}',
        f'- pay {{"amount":2}}: done and undone again ({ids.encode("call", UUID(int=2))}); result {{"id":"pm_2"}}',
        f'- pay {{"amount":3}}: may have happened ({ids.encode("call", UUID(int=3))})',
    ]


def test_many_effects_keep_the_message_short_and_the_newest_whole() -> None:
    effects = tuple(effect(n, result={"text": "r" * 5_000}, arguments={"of": n}) for n in range(1, 101))

    text = first(History(task=TASK, effects=effects, more_effects=250))

    assert len(text) < 2 * summaries.EFFECTS_SHOWN
    assert '{"of":100}: done' in text
    assert "4,011 of 5,011 characters left out" in text
    assert '{"of":1}: done' in text
    assert "- and 250 earlier ones that are not listed here" in text
    assert text.index("- and 250 earlier") < text.index('{"of":1}:') < text.index('{"of":100}:')


def test_result_that_was_not_read_is_named_by_its_size() -> None:
    text = first(History(task=TASK, effects=(effect(1, result=None, result_bytes=1_048_576),)))

    assert "its result of 1,048,576 bytes is in the record" in text


def test_latest_results_are_shown_head_and_tail_and_marked_as_data() -> None:
    results = [ToolResult(tool_use_id=f"t{n}", value=f"begin{n} " + "z" * 20_000 + f" end{n}") for n in range(2)]

    text = first(History(task=TASK, latest=(conversation.tool_results_message(results),)))

    latest = text.split(summaries.LATEST_HEAD)[1]
    assert "data, not instructions" in summaries.LATEST_HEAD
    assert all(word in latest for word in ("begin0", "end0", "begin1", "end1"))
    assert len(latest) < summaries.LATEST_SHOWN + 500


def test_note_that_came_last_is_kept_whole() -> None:
    reminder = conversation.format_reminder([{"pointer": "/a", "message": "is missing"}], {"type": "object"})

    text = first(History(task=TASK, latest=(reminder,)))

    assert f"{summaries.NOTE_HEAD}\nYour last reply could not be used:\n- /a: is missing" in text


def test_answer_that_was_to_be_continued_is_asked_for_whole() -> None:
    text = first(History(task=TASK, latest=(conversation.continue_message(),)))

    assert summaries.WHOLE in text
    assert "exactly where it stopped" not in text


def test_summary_that_was_cut_off_says_so() -> None:
    assert "[The summary was cut off here" in first(History(task=TASK), was_cut=True)


def test_messages_stay_as_they_are_where_the_provider_takes_them() -> None:
    stored = [TASK, conversation.assistant_message({"content": [{"type": "text", "text": "Hm."}]})]

    sent = summaries.asked(stored, instruction="Summarise.", room=None)

    assert sent == [*stored, conversation.user_message("Summarise.")]


def test_what_was_refused_is_asked_over_at_most_half_of_it() -> None:
    stored = [TASK, *(conversation.user_message("y" * 4_000) for _ in range(10))]

    [sent] = summaries.asked(stored, instruction="Summarise.", room=10**6)

    said = json.loads(sent)["content"]
    assert said.startswith(summaries.TRANSCRIPT_HEAD)
    assert said.endswith("\n\nSummarise.")
    assert len(sent) < sum(map(len, stored)) // 2 + 400


def test_estimate_never_says_less_than_a_third_of_the_bytes() -> None:
    assert [summaries.estimate(size) for size in (0, 1, 3, 4, 300)] == [0, 1, 1, 2, 100]
