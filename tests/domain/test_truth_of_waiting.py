"""What is said of calls that wait, are asked about or were given up is true at the moment it is read."""

from __future__ import annotations

from typing import Any

import pytest

from app.domain import ids
from app.domain.headlines import step_headline, workflow_headline, workflow_headline_brief
from app.domain.spans import Trace
from app.domain.trace import build_trace
from app.domain.trace_text import render_text
from tests.domain.fabricated_rows import at, attempt, call, step, workflow

Row = dict[str, Any]

SLOW_DOWN = {"kind": "rate_limited", "message": "email.send answered 429.", "fix": None}
BACKING_OFF = {
    "kind": "rate_limited", "rule": "rate_limited", "source": "default", "line": None, "used": 1, "allowed": 5,
    "message": "email.send answered 429.", "change": None, "waited_ms": 300_000, "result": None, "attempt": 1,
}  # fmt: skip


def drawn(trace: Trace) -> str:
    return render_text(trace, width=160)


def doubtful(*, now: float) -> tuple[Trace, str]:
    asked = call(1, "o", tool="do", effect="at_most_once", state="in_doubt", doubt_since=at(5), not_before=at(30))
    tried = attempt(1, asked, began=0, ended=None, outcome="unknown")
    row = workflow(status="waiting", ended_at=None, doubts=1)
    trace = build_trace(row, [step("o", 0, began=0, ended=None)], [asked], [tried], now=at(now))
    return trace, drawn(trace)


def test_trace_says_until_when_a_request_may_arrive_only_before_that() -> None:
    before, early = doubtful(now=20)
    after, late = doubtful(now=40)

    assert "no request of it can arrive after 14:02:41 UTC" in before.root.headline
    assert "did-not-happen only from 14:02:41 UTC on" in early
    assert "14:02:41" not in late
    assert "in doubt since 14:02:16 UTC" in late
    assert after.root.headline.endswith("do was asked once and gave no certain answer.")


def test_trace_counts_a_probed_effect_as_unknown() -> None:
    asked = call(1, "send", tool="email.send", effect="checkable", state="probing", doubt_since=at(1))
    probe = call(2, "send", n=2, kind="probe", tool="email.search", target=asked["id"], state="due")
    row = workflow(status="running", ended_at=None, open_calls=2)

    trace = build_trace(row, [step("send", 0, began=0, ended=None)], [asked, probe], [], now=at(9))

    assert "effects 0 done · 1 unknown · 0 undone" in drawn(trace)
    assert "nobody knows whether it happened; email.search is asked: no answer yet" in drawn(trace)


def test_trace_says_accepted_and_not_unknown_when_a_probed_call_had_its_202() -> None:
    asked = call(1, "send", tool="email.send", effect="checkable", state="probing", doubt_since=at(1))
    probe = call(2, "send", n=2, kind="probe", tool="email.search", target=asked["id"], state="due")
    accepted = attempt(1, asked, began=0, ended=1, outcome=None, status_code=202)
    row = workflow(status="running", ended_at=None, open_calls=2)

    trace = build_trace(row, [step("send", 0, began=0, ended=None)], [asked, probe], [accepted], now=at(9))

    assert "email.send accepted it (202); email.search is asked: no answer yet" in drawn(trace)


@pytest.mark.parametrize(
    ("outcome", "by", "note", "words"),
    [
        ("happened", "its report", "The tool reported its result.", "its result was reported"),
        ("did_not_happen", "its report", "No paper.", "its result was reported: it failed. No paper."),
        (
            "happened",
            "late evidence",
            "The answer arrived after all.",
            "settled as happened by late evidence: The answer arrived after all.",
        ),
    ],
)
def test_trace_calls_evidence_late_only_when_no_result_was_promised(
    outcome: str, by: str, note: str, words: str
) -> None:
    render = call(1, "render", tool="reports.render", effect="checkable")
    event = {
        "type": "effect.resolved", "step": "render", "call_id": render["id"], "attempt_id": None, "at": at(3),
        "data": {"outcome": outcome, "by": by, "note": note},
    }  # fmt: skip
    steps = [step("render", 0, began=0, ended=3)]

    trace = build_trace(workflow(), steps, [render], [attempt(1, render, began=0, ended=1)], findings=[event])

    assert f"✓ {words}\n" in drawn(trace)


def backing_off(**columns: Any) -> Row:
    recovery = {"attempts": 1, "recovery": [BACKING_OFF], "due_at": at(300)}
    return call(1, "b", **{"tool": "email.send", "effect": "keyed", "state": "due"} | recovery | columns)


@pytest.mark.parametrize(
    ("columns", "ending"),
    [
        ({}, "email.send asked us to slow down; the next try is due at 14:07:11 UTC."),
        ({"state": "held", "held_reason": "pause"}, "email.send asked us to slow down; it is to be tried again."),
        ({"state": "cancelled"}, "email.send asked us to slow down; it was not tried again."),
        ({"attempts": 2, "state": "intended"}, "email.send asked us to slow down; repeated with the same key."),
    ],
)
def test_workflow_headline_says_tried_again_only_when_it_was(columns: dict[str, Any], ending: str) -> None:
    headline = workflow_headline(workflow(status="running", ended_at=None), steps=[], calls=[backing_off(**columns)])

    assert headline == f"Running; 5 of 5 steps done. {ending}"


def test_workflow_headline_counts_only_what_was_tried_again_when_there_were_several() -> None:
    again = BACKING_OFF | {"attempt": 2}

    headline = workflow_headline(
        workflow(), steps=[], calls=[backing_off(attempts=2, recovery=[BACKING_OFF, again], state="cancelled")]
    )

    assert headline.endswith("Recovered from 1 × rate limited in b.")


def test_step_headline_says_when_the_next_try_is_due_when_it_backs_off() -> None:
    headline = step_headline(step("b", 0, began=0, ended=None), calls=[backing_off()])

    assert headline == "Running. Last failure: rate limited; the next try is due at 14:07:11 UTC."


@pytest.mark.parametrize("state", ["due", "cancelled"])
def test_trace_draws_a_try_that_failed_although_none_followed(state: str) -> None:
    asked = backing_off(state=state)
    tried = attempt(1, asked, began=0, ended=1, outcome="failed", failure=SLOW_DOWN)
    row = workflow(status="running", ended_at=None)

    text = drawn(build_trace(row, [step("b", 0, began=0, ended=None)], [asked], [tried], now=at(9)))

    assert "✗ try 1" in text
    assert "because: email.send answered 429" in text
    assert ("the next try is due at 14:07:11 UTC" in text) == (state == "due")


def test_trace_does_not_call_a_call_backing_off_when_its_time_has_come() -> None:
    tried = attempt(1, backing_off(), began=0, ended=1, outcome="failed", failure=SLOW_DOWN)
    row = workflow(status="running", ended_at=None)

    trace = build_trace(row, [step("b", 0, began=0, ended=None)], [backing_off()], [tried], now=at(301))

    assert trace.root.children[0].calls[0].waiting is None


def test_trace_says_when_an_undo_failed_and_not_when_its_effect_was_done() -> None:
    effect = call(1, "settle", tool="payments.settle", effect="keyed", undo="failed", ended_at=at(1))
    event = {
        "type": "compensation.failed", "step": "settle", "call_id": effect["id"], "attempt_id": None, "at": at(4),
        "data": {"effect": ids.encode("call", effect["id"]), "reason": "No."},
    }  # fmt: skip
    row = workflow(status="compensating", ended_at=None, undos=1, undos_failed=1)
    steps = [step("settle", 0, began=0, ended=1, undo="failed")]

    trace = build_trace(row, steps, [effect], [attempt(1, effect, began=0, ended=1)], findings=[event])

    assert "its undo failed at 14:02:15 UTC; an operator settles it" in drawn(trace)


def test_trace_says_whose_effect_it_is_when_a_call_took_another_ones_result() -> None:
    attached = call(1, "send", effect="keyed", attempts=0, business_key=True, key="order:7")
    attached["resolved"] = {"outcome": "attached", "owner": "call_9", "by": "effect_keys", "at": "2026-11-24T14:02:11Z"}
    event = {
        "type": "effect.attached", "step": "send", "call_id": attached["id"], "attempt_id": None, "at": at(1),
        "data": {"owner": "call_9", "key": "order:7"},
    }  # fmt: skip

    trace = build_trace(workflow(), [step("send", 0, began=0, ended=1)], [attached], [], findings=[event])

    assert "✓ The key belongs to call_9: its result is taken, nothing is sent" in drawn(trace)


GIVEN_UP = {
    ("cancelled", 1): "Cancelled after 5.75 s. 1 effect given up: nobody knows whether it happened.",
    ("failed", 2): (
        "Failed after 5.75 s: no reason was recorded. 2 effects given up: nobody knows whether they happened."
    ),
    ("succeeded", 1): ("Succeeded in 5.75 s; 5 steps, 0 effects, 1 effect given up: nobody knows whether it happened."),
}


@pytest.mark.parametrize(("status", "number"), GIVEN_UP)
def test_headline_and_trace_never_hide_an_effect_that_was_given_up(status: str, number: int) -> None:
    row = workflow(status=status, effects_abandoned=number)

    assert workflow_headline_brief(row) == GIVEN_UP[status, number]
    assert f"effects 0 done · 0 unknown · 0 undone · {number} given up" in drawn(build_trace(row, [], [], []))
