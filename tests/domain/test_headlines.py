"""Headlines: one golden sentence per status, per outcome, and per failure kind."""

from __future__ import annotations

from typing import Any

import pytest

from app.domain.failure_words import HAPPENED, HELD, IN_SHORT
from app.domain.headlines import (
    approval_headline,
    attempt_headline,
    step_headline,
    workflow_headline,
    workflow_headline_brief,
)
from app.domain.states import FailureKind, HeldReason, WorkflowStatus
from tests.domain.fabricated_rows import (
    MALFORMED,
    REMINDED,
    at,
    attempt,
    call,
    model_call,
    sample,
    step,
    workflow,
)

OPEN: dict[str, Any] = {"ended_at": None}
UNDOING = "Undoing what was done after it failed in invite.1"
FAILED_THERE = "in invite.1: email.send answered 550."
NO = {"kind": "tool_error", "message": "email.send answered 550.", "fix": None, "step": "invite.1", "call": "call_1"}

BRIEFS: dict[str, tuple[dict[str, Any], str]] = {
    "queued": (OPEN, "Queued: held back by flow control, nothing has started."),
    "running": (
        OPEN | {"steps_done": 2, "spent_microusd": 12_000, "retries": 2},
        "Running; 2 of 5 steps done, $0.012 so far, 2 retries.",
    ),
    "waiting": (
        OPEN | {"steps_done": 1, "attention": ["approval_pending"], "waits": 1},
        "Waiting for a person to decide; 1 of 5 steps done.",
    ),
    "paused": (OPEN | {"steps_done": 1}, "Paused; 1 of 5 steps done."),
    "failing": (
        OPEN | {"failure": NO, "open_calls": 2},
        "Failing in invite.1: email.send answered 550. 2 calls still to be settled.",
    ),
    "cancelling": (
        OPEN | {"cancel": {"reason": "wrong customer", "by": "kim"}, "open_calls": 1},
        "Being cancelled: wrong customer. 1 call still to be settled.",
    ),
    "compensating": (
        OPEN | {"effects_done": 3, "effects_undone": 1, "undos": 2, "failure": NO},
        "Undoing what was done after it failed in invite.1: 1 of 3 effects undone.",
    ),
    "succeeded": (
        {"spent_microusd": 42_000, "effects_done": 3, "retries": 1, "duplicates_prevented": 2},
        "Succeeded in 5.75 s for $0.042; 5 steps, 3 effects, 1 retry, 2 duplicates prevented.",
    ),
    "failed": (
        {"failure": NO, "effects_done": 2, "effects_undone": 1},
        f"Failed after 5.75 s {FAILED_THERE} 1 effect was undone. 1 effect done before stays done.",
    ),
    "cancelled": ({"cancel": {"reason": "wrong customer"}}, "Cancelled after 5.75 s: wrong customer."),
}


@pytest.mark.parametrize("status", list(WorkflowStatus))
def test_workflow_headline_brief_says_it_in_a_sentence_for_every_status(status: WorkflowStatus) -> None:
    columns, sentence = BRIEFS[status.value]

    assert workflow_headline_brief(workflow(status=status.value, **columns)) == sentence


def test_workflow_headline_brief_says_for_how_long_when_it_knows_the_time() -> None:
    row = workflow(status="running", **OPEN)

    assert workflow_headline_brief(row, now=at(12)) == "Running for 12.0 s; 5 of 5 steps done."


UNDONE: dict[str, tuple[dict[str, Any], str]] = {
    "all undone": (
        {"status": "failed", "compensation": "done", "effects_done": 2, "effects_undone": 2},
        "Failed after 5.75 s in invite.1: email.send answered 550. 2 effects were undone.",
    ),
    "nothing undone": (
        {"status": "failed", "compensation": "skipped", "effects_done": 2},
        f"Failed after 5.75 s {FAILED_THERE} Nothing was undone: 2 effects done before stay done.",
    ),
    "nothing to undo": (
        {"status": "failed", "compensation": "not_needed"},
        "Failed after 5.75 s in invite.1: email.send answered 550.",
    ),
    "cancelled and undone": (
        {"status": "cancelled", "failure": None, "compensation": "done", "effects_done": 1, "effects_undone": 1},
        "Cancelled after 5.75 s. 1 effect was undone.",
    ),
    "an operator decides": (
        OPEN | {"status": "failing", "saga": "held", "undos": 2},
        f"Failed {FAILED_THERE} Waiting for an operator to decide whether 2 effects done before are undone.",
    ),
    "an undo failed": (
        OPEN | {"status": "compensating", "effects_undone": 1, "undos": 1, "undos_failed": 1},
        f"{UNDOING}: 1 of 2 effects undone; 1 could not be undone and waits for an operator.",
    ),
}


@pytest.mark.parametrize("what", UNDONE)
def test_workflow_headline_brief_says_what_became_of_the_effects_when_it_did_not_succeed(what: str) -> None:
    columns, sentence = UNDONE[what]

    assert workflow_headline_brief(workflow(**{"failure": NO} | columns)) == sentence


def test_workflow_headline_says_who_paused_it_and_why_when_that_is_known() -> None:
    row = workflow(status="paused", steps_done=1, **OPEN)

    headline = workflow_headline(row, steps=[], calls=[], pause={"by": "kim", "reason": "the bank is closed"})

    assert headline == "Paused by kim (the bank is closed); 1 of 5 steps done."


@pytest.mark.parametrize(
    ("said", "next_at", "sentence"),
    [
        (["unclear", "absent"], at(20), "not there yet; asked again at 14:02:31 UTC."),
        (["unclear"], at(20), "no clear answer yet; asked again at 14:02:31 UTC."),
        (None, at(20), "no answer yet."),
        (["absent"], None, "not there yet."),
    ],
)
def test_workflow_headline_says_what_the_probe_said_when_it_asked(
    said: list[str] | None, next_at: Any, sentence: str
) -> None:
    asked = call(1, "send", state="probing", tool="email.send", effect="checkable")
    pending = [{**asked, "asking": "email.search", "next_at": next_at, "said": said}]

    headline = workflow_headline(workflow(status="running", **OPEN), steps=[], calls=[], pending=pending)

    assert headline == f"Running; 5 of 5 steps done. Asked email.search whether send happened: {sentence}"


def test_workflow_headline_says_until_when_a_result_is_awaited_when_the_tool_accepted_it() -> None:
    accepted = call(1, "render", state="intended", tool="reports.render")
    pending = [{**accepted, "asking": None, "next_at": at(600)}]

    headline = workflow_headline(workflow(status="running", **OPEN), steps=[], calls=[], pending=pending)

    assert headline.endswith("reports.render accepted render (202); its result is waited for until 14:12:11 UTC.")


@pytest.mark.parametrize(
    ("lost_at", "ending"), [(None, "its result is waited for."), (at(600), "but no result came in time.")]
)
def test_attempt_headline_says_that_it_was_accepted_when_the_tool_answered_202(lost_at: Any, ending: str) -> None:
    asked = call(1, "render", tool="reports.render", state="intended")
    tried = attempt(1, asked, began=0, ended=0.5, outcome=None, status_code=202, lost_at=lost_at)

    assert attempt_headline(tried, call=asked) == f"reports.render accepted it (202) in 0.50 s; {ending}"


def test_step_headline_says_that_it_is_probed_when_nobody_knows_whether_it_happened() -> None:
    row = step("send", 0, began=0, ended=None)
    asked = call(1, "send", state="probing", tool="email.send")
    probe = call(2, "send", n=2, kind="probe", tool="email.search", target=asked["id"], state="due")

    assert step_headline(row, calls=[asked, probe]) == "Asked email.search whether send happened: no answer yet."


@pytest.mark.parametrize(
    ("undo", "ending"),
    [
        ("none", "."),
        ("recorded", "."),
        ("running", "; being undone."),
        ("done", "; undone since."),
        ("failed", "; its undo failed."),
        ("skipped", "; its undo was left out."),
    ],
)
def test_step_headline_says_what_became_of_its_effect_when_it_had_succeeded(undo: str, ending: str) -> None:
    assert step_headline(step("create", 0, began=0, ended=1.5, undo=undo)) == f"Succeeded in 1.50 s{ending}"


def test_workflow_headline_names_some_held_calls_and_counts_the_others_when_many_are_held() -> None:
    held = [call(n, f"send.{n}", state="held", held_reason="pause") for n in range(12)]

    headline = workflow_headline(workflow(status="paused", **OPEN), steps=[], calls=held)

    assert "send.0 is held: the workflow is paused." in headline
    assert headline.endswith("9 more calls are held.")


@pytest.mark.parametrize("reason", list(HeldReason))
def test_held_reason_has_words_whatever_it_is(reason: HeldReason) -> None:
    headline = workflow_headline(
        workflow(status="waiting", **OPEN), steps=[], calls=[call(1, "send", state="held", held_reason=reason.value)]
    )

    assert headline.endswith(f"send is held: {HELD[reason]}.")


def test_workflow_headline_tells_the_one_recovery_when_there_was_one() -> None:
    row, steps, calls, _ = sample()

    assert workflow_headline(row, steps=steps, calls=calls) == (
        "Succeeded in 5.75 s for $0.042; 5 steps, 3 effects, 1 retry. The model's first answer was not valid JSON;"
        " asked again with format instructions and it was."
    )


def test_workflow_headline_counts_recoveries_when_there_were_several() -> None:
    calls = [
        model_call(1, "understand", recovery=[REMINDED, REMINDED]),
        call(2, "invite.3", recovery=[{"kind": "worker_lost"}]),
    ]

    headline = workflow_headline(workflow(retries=3), steps=[], calls=calls)

    assert headline.endswith("Recovered from 2 × answer not valid JSON in understand, 1 × worker lost in invite.")


def test_workflow_headline_names_the_doubt_and_until_when_it_may_still_happen() -> None:
    doubt = call(1, "pay", tool="bank.transfer", state="in_doubt", attempts=2, not_before=at(60))
    row = workflow(status="waiting", doubts=1, steps_done=4, **OPEN)

    assert workflow_headline(row, steps=[], calls=[doubt]) == (
        "Waiting for a person: nobody knows whether 1 effect happened; 4 of 5 steps done. In doubt is pay:"
        " bank.transfer was asked twice and gave no certain answer; no request of it can arrive after 14:03:11 UTC."
    )


def test_workflow_headline_says_what_a_person_is_asked() -> None:
    asked = step("review", 0, began=0, ended=None, kind="approval", state="waiting", title="Publish it?\x1b[2J")
    row = workflow(status="waiting", attention=["approval_pending"], waits=1, **OPEN)

    assert workflow_headline(row, steps=[asked], calls=[]).endswith("review asks: Publish it?\\x1b[2J.")


SENTENCES = {
    "rate_limited": "web.search asked us to slow down; tried again and it worked.",
    "spend_limited": "The spending limit at web.search was reached; tried again and it worked.",
    "overloaded": "web.search was overloaded; tried again and it worked.",
    "server_error": "web.search answered with a server error; tried again and it worked.",
    "timeout": "web.search did not answer in time; tried again and it worked.",
    "network": "The connection to web.search broke; tried again and it worked.",
    "context_too_long": "The conversation outgrew the model's window; tried again and it worked.",
    "output_truncated": "The model's first answer was cut off at its token limit; tried again and it worked.",
    "malformed_output": "The model's first answer was not valid JSON; tried again and it was.",
    "wrong_shape": "The model's first answer did not fit the schema; tried again and it worked.",
    "tool_arguments_invalid": "The arguments for web.search did not fit its schema; tried again and it worked.",
    "tool_unknown": "The model asked for a tool it was not offered; tried again and it worked.",
    "tool_error": "web.search reported an error; tried again and it worked.",
    "tool_broken": "web.search kept failing and was taken away; tried again and it worked.",
    "refused": "The model declined; tried again and it worked.",
    "paused_turn": "The model paused its turn; tried again and it worked.",
    "no_progress": "The agent went in circles; tried again and it worked.",
    "auth": "web.search did not accept the credential; tried again and it worked.",
    "model_not_found": "The model does not exist for this credential; tried again and it worked.",
    "invalid_request": "web.search did not accept the request; tried again and it worked.",
    "budget_exceeded": "The budget did not allow the call; tried again and it worked.",
    "unknown_outcome": "Nobody could tell whether web.search had done it; tried again and it worked.",
    "worker_lost": "The worker was lost while it was calling web.search; tried again and it worked.",
    "expression_error": "An expression of the definition failed; tried again and it worked.",
    "deadline_exceeded": "The workflow's deadline passed; tried again and it worked.",
    "step_timeout": "The step took longer than its timeout; tried again and it worked.",
    "approval_rejected": "A person said no; tried again and it worked.",
    "approval_expired": "Nobody decided in time; tried again and it worked.",
    "signal_timeout": "The signal did not come in time; tried again and it worked.",
    "child_failed": "The child workflow failed; tried again and it worked.",
    "item_failures_exceeded": "More items failed than are tolerated; tried again and it worked.",
    "key_conflict": "The key of web.search belongs to a call with other arguments; tried again and it worked.",
    "payload_too_large": "A payload was too large; tried again and it worked.",
    "outbound_forbidden": "The address of web.search is inside a private network; tried again and it worked.",
    "cancelled": "It was cancelled; tried again and it worked.",
    "internal": "Something broke on our side; tried again and it worked.",
}


@pytest.mark.parametrize("kind", list(FailureKind))
def test_step_headline_tells_the_recovery_for_every_failure_kind(kind: FailureKind) -> None:
    record = {"kind": kind.value, "change": None, "result": "succeeded"}
    recovered = call(1, "search", tool="web.search", recovery=[record])

    headline = step_headline(step("search", 0, began=0, ended=2), calls=[recovered])

    assert headline == f"Succeeded in 2.00 s. {SENTENCES[kind.value]}"


def test_every_failure_kind_has_its_words() -> None:
    assert set(HAPPENED) == set(IN_SHORT) == set(FailureKind)


@pytest.mark.parametrize(
    ("record", "ending"),
    [
        ({"change": None, "result": None}, "repeated with the same key."),
        ({"change": None, "result": "failed"}, "repeated with the same key, which failed too."),
        ({"change": "more_tokens", "result": "succeeded"}, "asked again with more room for the answer and it worked."),
        ({"change": "other_region", "result": None}, "tried again with other_region."),
    ],
)
def test_a_recovery_says_what_was_done_and_what_came_of_it(record: dict[str, Any], ending: str) -> None:
    recovered = call(1, "book", tool="crm.book", effect="keyed", recovery=[{"kind": "timeout", **record}])

    assert workflow_headline(workflow(), steps=[], calls=[recovered]).endswith(ending)


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"state": "pending", "unmet_needs": 2}, "Not started: waits for 2 steps."),
        ({"state": "ready"}, "Ready to start."),
        ({"state": "running"}, "Running."),
        (
            {"state": "running", "items_total": 9, "items_open": 4, "items_failed": 1},
            "Running; 4 of 9 items ok, 1 failed.",
        ),
        ({"state": "waiting", "kind": "approval", "title": "Refund $480?"}, "invite asks: Refund $480?"),
        ({"state": "failed", "failure": NO}, "Failed after 3 tries: email.send answered 550."),
        ({"state": "skipped"}, "Skipped: its condition was false, or a step it needs was skipped."),
        ({"state": "cancelled"}, "Cancelled before it ended."),
        ({"state": "cancelled", "started_at": None}, "Cancelled before it began."),
    ],
)  # fmt: skip
def test_step_headline_says_it_in_a_sentence_for_every_state(columns: dict[str, Any], sentence: str) -> None:
    row = step("invite", 0, began=0, ended=None, **columns)

    assert step_headline(row, calls=[call(1, "invite", attempts=3)]) == sentence


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"cost_microusd": 14_300}, "Succeeded in 1.50 s for $0.0143."),
        ({"lost_at": at(1)}, "Succeeded in 1.50 s. Its worker had been given up; the answer came late."),
        ({"outcome": "failed", "failure": MALFORMED}, "Failed in 1.50 s: Expecting ',' delimiter, line 4 col 37."),
        ({"outcome": "unknown", "failure": NO, "received_at": None}, "No certain answer: email.send answered 550."),
        (
            {"outcome": "not_sent", "failure": NO, "received_at": None},
            "Nothing was sent: email.send answered 550.",
        ),
        (
            {"outcome": None, "received_at": None, "lost_at": at(2)},
            "The worker was lost while it was calling calendar.free_busy; the request had left.",
        ),
        (
            {"outcome": None, "received_at": None, "lost_at": at(2), "sent_at": None},
            "The worker was lost while it was calling calendar.free_busy; nobody knows whether the request had left.",
        ),
        ({"outcome": None, "received_at": None}, "In flight to calendar.free_busy."),
        ({"outcome": None, "received_at": None, "sent_at": None}, "In flight to calendar.free_busy, not sent yet."),
    ],
)
def test_attempt_headline_says_what_became_of_it(columns: dict[str, Any], sentence: str) -> None:
    of = call(1, "availability")

    assert attempt_headline(attempt(1, of, began=0, ended=1.5, **columns), call=of) == sentence


def test_attempt_headline_says_why_an_answer_could_not_be_used() -> None:
    of = model_call(1, "understand", state="failed", failure=MALFORMED)

    assert attempt_headline(attempt(1, of, began=0, ended=1.5), call=of) == (
        "Answered in 1.50 s, but the answer could not be used: Expecting ',' delimiter, line 4 col 37."
    )


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"status": "open"}, "Waiting for a person: Refund $480?"),
        (
            {"status": "open", "expires_at": at(60)},
            "Waiting for a person: Refund $480? It expires at 2026-11-24 14:03:11 UTC.",
        ),
        (
            {"status": "decided", "decision": "approve", "by": "kim", "comment": "ok\x07"},
            "Approved by kim: Refund $480? “ok\\x07”",
        ),
        ({"status": "decided", "decision": "edit", "by": "kim"}, "Approved with changes by kim: Refund $480?"),
        ({"status": "decided", "decision": "reject"}, "Rejected: Refund $480?"),
        ({"status": "expired"}, "Nobody decided in time: Refund $480?"),
        ({"status": "cancelled"}, "No longer asked: Refund $480?"),
    ],
)
def test_approval_headline_says_what_is_asked_or_was_answered(columns: dict[str, Any], sentence: str) -> None:
    asked = {"title": "Refund $480?", "expires_at": None, "decision": None, "by": None, "comment": None}

    assert approval_headline(asked | columns) == sentence


def test_a_headline_stays_short_when_a_message_is_long() -> None:
    failure = NO | {"message": "x" * 5_000}

    assert len(workflow_headline_brief(workflow(status="failed", failure=failure))) < 400
