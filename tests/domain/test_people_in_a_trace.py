"""What people did stands in the trace: approvals of calls, steps ended by hand, retries, undos that were settled."""

from __future__ import annotations

from typing import Any

import pytest

from app.domain.spans import Trace
from app.domain.trace import build_trace
from app.domain.trace_text import render_text
from tests.domain.fabricated_rows import at, attempt, call, number_id, step, workflow

Row = dict[str, Any]


def did(seconds: float, kind: str, *, of: Row | None = None, path: str | None = None, **data: Any) -> Row:
    call_id = None if of is None else of["id"]
    return {"type": kind, "step": path, "call_id": call_id, "attempt_id": None, "at": at(seconds), "data": data}


def approval(of: Row, decision: str, *, asked: float, decided: float) -> Row:
    return {
        "id": number_id(77), "step": of["step"], "call_id": of["id"], "status": "decided", "title": "May it?",
        "created_at": at(asked), "expires_at": None, "decision": decision, "by": "kim", "comment": "fine",
        "decided_at": at(decided),
    }  # fmt: skip


def text_of(trace: Trace) -> str:
    assert Trace.from_json(trace.to_json()) == trace
    return render_text(trace, width=160)


def test_trace_says_who_approved_a_call_and_how_long_it_waited() -> None:
    sent = call(1, "send", tool="mail.send", effect="at_most_once")
    tried = attempt(1, sent, began=8.5, ended=9)
    steps = [step("send", 0, began=0, ended=9)]

    text = text_of(
        build_trace(workflow(), steps, [sent], [tried], approvals=[approval(sent, "approve", asked=0.5, decided=8.5)])
    )

    assert "approved by kim at 14:02:19 UTC, 8.00 s after it was asked: fine" in text
    [waited, sending] = [line for line in text.splitlines() if "├" in line or "█" in line]
    assert "█" not in waited
    assert sending.index("█") > waited.index("├") + 20


def test_trace_says_who_changed_the_arguments_and_which_when_a_call_was_edited() -> None:
    asked = call(1, "send", tool="mail.send", effect="at_most_once", state="cancelled", attempts=0)
    diff = ['- /to: "a"', *(f'+ /to{n}: "b"' for n in range(7))]
    made = call(2, "send", n=2, tool="mail.send", effect="at_most_once", retry_of=asked["id"],
                change={"change": "edited", "by": "kim", "diff": diff})  # fmt: skip
    tried = attempt(1, made, began=8.5, ended=9)
    word = approval(asked, "edit", asked=0.5, decided=8.5)

    text = text_of(
        build_trace(workflow(), [step("send", 0, began=0, ended=9)], [asked, made], [tried], approvals=[word])
    )

    assert "approved with changes by kim at 14:02:19 UTC, 8.00 s after it was asked: fine" in text
    assert '- /to: "a"' in text
    assert "… and 2 more lines of what was changed" in text


@pytest.mark.parametrize("state", ["in_doubt", "succeeded"])
def test_trace_still_says_who_approved_a_call_when_its_doubt_was_settled(state: str) -> None:
    word = {"outcome": "happened", "by": "lee", "note": "it is there", "at": "2026-11-24T14:03:00Z"}
    settled = state == "succeeded"
    sent = call(1, "send", tool="mail.send", effect="at_most_once", state=state, resolved=word if settled else None)
    tried = attempt(1, sent, began=8.5, ended=None, outcome="unknown")
    said = approval(sent, "approve", asked=0.5, decided=8.5)

    text = text_of(build_trace(workflow(), [step("send", 0, began=0, ended=9)], [sent], [tried], approvals=[said]))

    assert "✓ approved by kim at 14:02:19 UTC" in text
    assert ("nobody knew; settled as happened by lee at 14:03:00 UTC: it is there" in text) == settled


def reopened(**replaced: Any) -> Trace:
    refused = {"kind": "tool_error", "message": "payments.authorize answered 402.", "fix": None}
    first = call(1, "pay", tool="payments.authorize", state="failed", failure=refused, ended_at=at(1))
    second = call(2, "pay", n=2, tool="payments.authorize", created_at=at(5), **replaced)
    attempts = [
        attempt(1, first, began=0, ended=1, outcome="failed", failure=refused),
        attempt(2, second, began=5.1, ended=5.5),
    ]
    findings = [did(5, "workflow.reopened", by="key:ops", note="the card was topped up")]
    steps = [step("pay", 0, began=0, ended=5.5)]
    return build_trace(workflow(), steps, [first, second], attempts, findings=findings)


@pytest.mark.parametrize("named", [True, False])
def test_trace_numbers_the_tries_and_names_who_reopened_it_when_a_step_was_retried(named: bool) -> None:
    """A business key is asked for anew: then the second call names no call before it."""
    text = text_of(reopened(retry_of=number_id(1001)) if named else reopened())

    assert "↻ reopened by key:ops at 14:02:16 UTC: the card was topped up" in text
    order = ["✗ try 1", "answered 402", "↻ made again: the workflow was reopened by key:ops", "✓ try 2"]
    assert [text.index(words) for words in order] == sorted(text.index(words) for words in order)
    assert text.count("try 1") == 1
    assert "payments.authorize try" not in text
    assert "recovery" not in text  # nobody counts a person's pause as the machine's repair


def test_trace_leaves_a_reopening_out_of_calls_that_it_did_not_make() -> None:
    first = call(1, "pay", tool="payments.authorize", state="failed", ended_at=at(1))
    second = call(2, "pay", n=2, tool="payments.authorize", created_at=at(2), retry_of=first["id"])
    findings = [did(0.5, "workflow.reopened", by="key:ops", note=None)]

    trace = build_trace(
        workflow(), [step("pay", 0, began=0, ended=3)], [first, second],
        [attempt(1, first, began=0, ended=1), attempt(2, second, began=2, ended=3)], findings=findings,
    )  # fmt: skip

    assert "made again" not in text_of(trace)


@pytest.mark.parametrize(
    ("action", "state", "headline"),
    [
        ("skip", "skipped", "Skipped by key:ops: not needed today."),
        ("complete", "succeeded", "Completed by key:ops: not needed today."),
        ("fail", "failed", "Failed: key:ops ended the step."),
    ],
)
def test_trace_says_who_ended_a_step_by_hand_and_why(action: str, state: str, headline: str) -> None:
    failure = {"kind": "cancelled", "message": "key:ops ended the step", "fix": None} if state == "failed" else None
    steps = [step("c", 0, began=0, ended=2, state=state, failure=failure)]
    findings = [
        did(1, "agent.step.operated", path="c", action="retry-now", by="key:other", note=None),
        did(2, "agent.step.operated", path="c", action=action, by="key:ops", note="not needed today"),
    ]

    trace = build_trace(workflow(), steps, [], [], findings=findings)

    said = {"skip": "skipped", "complete": "completed", "fail": "failed"}[action]
    assert f"{said} by key:ops at 14:02:13 UTC: not needed today" in text_of(trace)
    assert trace.root.children[0].headline == headline


def test_trace_forgets_who_ended_a_step_when_it_was_reopened_and_went_well() -> None:
    findings = [did(1, "agent.step.operated", path="c", action="fail", by="key:ops", note=None)]

    trace = build_trace(workflow(), [step("c", 0, began=0, ended=9)], [], [], findings=findings)

    assert trace.root.children[0].decided is None
    assert trace.root.children[0].headline == "Succeeded in 9.00 s."


@pytest.mark.parametrize(
    ("action", "undo", "note", "words"),
    [
        ("skip", "skipped", "undo skipped", "its undo had failed; left as it is by key:ops: paid back by hand"),
        ("done", "done", "undone", "its undo had failed; marked as undone by key:ops: paid back by hand"),
    ],
)
def test_trace_says_what_an_operator_made_of_an_undo_that_failed(action: str, undo: str, note: str, words: str) -> None:
    settled = call(1, "settle", tool="payments.settle", effect="keyed", key="k", undo=undo)
    findings = [
        did(2, "compensation.failed", of=settled, effect="call_x", reason="No."),
        did(3, "compensation.settled", of=settled, action=action, by="key:ops", note="paid back by hand"),
    ]
    steps = [step("settle", 0, began=0, ended=1, undo=undo)]

    text = text_of(
        build_trace(workflow(), steps, [settled], [attempt(1, settled, began=0, ended=1)], findings=findings)
    )

    assert f"key k  {note}\n" in text
    assert words in text


def test_trace_says_paused_for_as_long_as_the_pause_lasts_and_by_whom() -> None:
    row = workflow(status="paused", ended_at=None)
    findings = [did(16, "workflow.paused", by="key:ops", reason="the bank is closed")]

    trace = build_trace(row, [], [], [], findings=findings, now=at(20))

    assert trace.root.headline == "Paused by key:ops (the bank is closed) for 4.00 s; 5 of 5 steps done."
