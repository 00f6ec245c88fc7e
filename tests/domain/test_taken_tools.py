"""Tools that agents have to do without: what rows say of them, and what is said of it."""

from __future__ import annotations

from typing import Any

import pytest

from app.domain import ids
from app.domain.situation import Situation
from app.domain.taken_tools import Taken, of_step, of_workflow, out_of_reach
from app.domain.why_tools import explain
from tests.domain.fabricated_rows import at, workflow

ID = ids.encode("wf", workflow()["id"])
ENTRY: dict[str, Any] = {"failures": 3, "message": "look answered 503.", "step": "plan", "at": "2026-11-24T14:02:16Z"}
WHOLE = Taken(tool="look", scope="workflow", step="plan", failures=3, reason="look answered 503.", since=at(5))
ALONE = Taken(tool="book", scope="step", step="draft.2", failures=4, reason="its arguments did not fit its schema")
RUNNING = {"status": "running", "ended_at": None}


def missed(*taken: Taken, **columns: Any) -> list[tuple[str, list[str]]]:
    found = explain(Situation(workflow=workflow(**columns), now=at(60), taken=taken))
    return [(one.headline, [command.cli for command in one.commands]) for one in found]


def test_tools_of_a_workflow_are_read_with_those_given_back() -> None:
    assert of_workflow(None) == []
    assert of_workflow({"look": ENTRY}) == [WHOLE]
    [again] = of_workflow({"look": {**ENTRY, "lifted": True}})
    assert again.given_back


def test_tools_of_a_step_are_read_from_its_counters() -> None:
    assert of_step("draft.2", {"disabled:book": 4, "invalid:book": 4, "failing:look": 2, "switch_model": 1}) == [ALONE]


def test_step_cannot_reach_what_it_was_offered_and_was_taken_away() -> None:
    entries = {"look": ENTRY, "other": ENTRY, "again": {**ENTRY, "lifted": True}}

    found = out_of_reach("draft.2", {"disabled:book": 4}, entries=entries, offered=("again", "book", "look"))

    assert found == [WHOLE, ALONE]


@pytest.mark.parametrize("columns", [RUNNING, RUNNING | {"status": "waiting"}])
def test_sentence_says_when_a_retry_gives_a_tool_back_while_the_workflow_goes_on(columns: dict[str, Any]) -> None:
    assert missed(WHOLE, ALONE, **columns) == [
        (
            (
                "The tool look was taken away from every agent after 3 failures in a row, the last in plan: look "
                f"answered 503; to give it back if the workflow fails without it: surefoot retry {ID}."
            ),
            [f"surefoot show {ID} plan"],
        ),
        (
            (
                "The tool book was taken away from draft.2 after 4 failures in a row: its arguments did not fit its "
                f"schema; to give it back if the workflow fails without it: surefoot retry {ID}."
            ),
            [f"surefoot show {ID} draft.2"],
        ),
    ]


@pytest.mark.parametrize(
    "columns", [{"status": "failed"}, {"status": "cancelled"}, {"status": "failing", "ended_at": None, "saga": "held"}]
)
def test_retry_is_offered_when_it_gives_the_tool_back_now(columns: dict[str, Any]) -> None:
    [(headline, commands)] = missed(WHOLE, **columns)

    assert headline.endswith(f"look answered 503; to give it back: surefoot retry {ID}.")
    assert commands == [f"surefoot retry {ID}", f"surefoot show {ID} plan"]


@pytest.mark.parametrize(
    "columns",
    [{"status": "succeeded"}, {"status": "failed", "effects_undone": 1}, {"status": "failed", "effects_abandoned": 1}],
)
def test_no_retry_is_offered_when_there_is_nothing_to_go_on_with(columns: dict[str, Any]) -> None:
    [(headline, commands)] = missed(WHOLE, **columns)

    assert headline.endswith("the last in plan: look answered 503.")
    assert commands == [f"surefoot show {ID} plan"]


def test_nothing_is_said_of_a_tool_that_was_given_back() -> None:
    assert missed(*of_workflow({"look": {**ENTRY, "lifted": True}}), **RUNNING) == []
