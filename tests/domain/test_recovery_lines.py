"""What people read of a recovery: in the trace, in a headline."""

from __future__ import annotations

from typing import Any

import pytest

from app.domain import stories
from app.domain.trace_lines import decision


def record(kind: str, change: str | None, diff: list[str], **more: Any) -> dict[str, Any]:
    return {
        "kind": kind, "rule": kind, "source": "default", "line": None, "used": 1, "allowed": 3, "waited_ms": 0,
        "message": None, "change": change, "diff": diff, "result": None, **more,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "diff", "said"),
    [
        ("continue", ["+ a", "+ b"], "change: + the part so far, and “continue exactly” (2 lines)"),
        ("double_max_tokens", ["- max_tokens 4096", "+ max_tokens 8192"], "change: max_tokens 4096 → 8192"),
        ("switch_model", ["- model a", "+ model b"], "change: model a → b"),
        (
            "switch_model",
            ["- model a", "+ model b", "+ conversation 2: the same messages"],
            "change: model a → b; + conversation 2: the same messages",
        ),
        ("tell_model", ["+ result: no"], "change: + the reason, as the tool's result (1 line)"),
        ("disable_tool", ["- look", "+ note: x"], "change: + a note that the tool is gone (2 lines)"),
        ("final", ["- tools", "+ note: x"], "change: + a note that this is the last answer (2 lines)"),
        (None, [], "change: none, the same bytes"),
    ],
)
def test_trace_says_what_was_changed(change: str | None, diff: list[str], said: str) -> None:
    lines = decision(record("output_truncated", change, diff), None, source=None)

    assert lines[-1].text == said


def test_trace_says_why_by_which_rule_and_how_often() -> None:
    message = "The answer was cut at max_tokens (4,096)."

    first = decision(record("output_truncated", "continue", [], message=message), None, source=None)[0]

    assert first.text == "because: The answer was cut at max_tokens (4,096) · default rule output_truncated (1 of 3)"


def call(**more: Any) -> dict[str, Any]:
    return {
        "id": 1, "step": "a", "kind": "tool", "tool": "look", "effect": "read_only", "state": "failed", "attempts": 1,
        "retry_of": None, "recovery": [], **more,
    }  # fmt: skip


def test_headline_says_that_the_model_was_told_and_does_not_call_it_a_recovery() -> None:
    told = call(recovery=[record("tool_error", "tell_model", [], result="told")])

    assert stories.recovery([told]) == ["look reported an error; the model was told."]
    assert stories.recovery([told, told]) == []


def test_headline_names_the_tool_that_was_taken_away_and_not_the_model() -> None:
    asked = call(kind="model", tool=None, state="succeeded", recovery=[
        record("tool_broken", "disable_tool", [], tool="look", result="succeeded")
    ])  # fmt: skip

    assert stories.recovery([asked]) == [
        "look kept failing and was taken away; asked for an alternative and it worked."
    ]
