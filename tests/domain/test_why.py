"""Why nothing moves: one golden reason for each of its kinds, and that nothing open is ever left unexplained."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from typing import get_args

import pytest

from app.domain import ids
from app.domain.situation import Kind
from app.domain.states import FINAL_CALL_STATES, FINAL_STATUSES, CallState, HeldReason, WorkflowStatus
from app.domain.why import KINDS, Reason, after_end
from tests.domain import why_stories
from tests.domain.fabricated_rows import at, call, number_id, workflow
from tests.domain.why_stories import asks, due, reasons, running, sends, tried, waiting

ID = ids.encode("wf", workflow()["id"])
APPROVAL = ids.encode("apr", number_id(77))
CALL = ids.encode("call", number_id(1001))

GOLDEN: dict[str, tuple[Callable[[], list[Reason]], str, str, list[str]]] = {
    "in flight": (
        why_stories.in_flight,
        "in_flight",
        "worker.2 is calling email.send in send (attempt 1); it answers by 14:03:31 UTC or is given up.",
        [],
    ),
    "model in flight": (
        why_stories.model_in_flight,
        "in_flight",
        "worker.2 is calling the model in plan (attempt 1); it answers by 14:03:31 UTC or is given up.",
        [],
    ),
    "worker lost": (
        why_stories.worker_lost,
        "worker_lost",
        (
            "The worker worker.2 was lost at 14:03:06 UTC while it was calling email.send in send; until 14:03:31 UTC "
            "a late answer may still settle it, then it is decided (at_most_once)."
        ),
        [],
    ),
    "worker silent": (
        why_stories.worker_silent,
        "worker_lost",
        (
            "The worker worker.2 has not said what became of email.send in send; until 14:03:24 UTC a late answer may "
            "still settle it, then it is decided (at_most_once)."
        ),
        [],
    ),
    "recording": (
        why_stories.recording,
        "recording",
        "The answer of email.send in send is stored; what follows from it is being recorded.",
        [],
    ),
    "result awaited": (
        why_stories.result_awaited,
        "result",
        "email.send in send was accepted (202); its result is waited for until 2026-11-24 14:13:01 UTC.",
        [],
    ),
    "backing off": (
        why_stories.backing_off,
        "backing_off",
        "email.send in send is asked again after rate limited at 14:03:41 UTC.",
        [f"surefoot step {ID} send retry-now"],
    ),
    "not on this worker": (
        why_stories.not_on_this_worker,
        "backing_off",
        (
            "email.send was not called: worker.2 has no distribution `acme-tools`. It is tried again at 14:03:41 UTC, "
            "on whichever worker is free."
        ),
        [f"surefoot step {ID} send retry-now"],
    ),
    "queued": (why_stories.queued, "queued", "email.send in send is queued behind 1,930 calls.", []),
    "next in line": (why_stories.next_in_line, "queued", "email.send in send is next to be sent.", []),
    "no worker": (
        why_stories.no_worker,
        "no_worker",
        "No worker is alive: email.send in send has been due since 14:02:41 UTC.",
        ["surefoot worker"],
    ),
    "workers of another version": (
        why_stories.old_workers,
        "no_worker",
        "No living worker knows engine version 2, which email.send in send needs.",
        [],
    ),
    "restored": (
        why_stories.restored,
        "restored",
        "The database was restored: email.send in send may have been sent in the time that is lost.",
        ["surefoot recover --since 2h --dry-run"],
    ),
    "probing": (
        why_stories.probing,
        "probing",
        (
            "Nobody knows whether email.send in send happened; email.search is asked at 14:03:21 UTC (2 answers so "
            "far, the last: not there); still unclear at 14:07:51 UTC, it becomes a doubt."
        ),
        [],
    ),
    "being probed": (
        why_stories.being_probed,
        "probing",
        (
            "Nobody knows whether email.send in send happened; email.search is being asked now (no answer yet); still "
            "unclear at 14:07:51 UTC, it becomes a doubt."
        ),
        [],
    ),
    "accepted and probed": (
        why_stories.accepted_and_probed,
        "probing",
        "email.send in send was accepted (202); email.search is asked at 14:03:21 UTC (no answer yet).",
        [],
    ),
    "doubt in quarantine": (
        why_stories.doubt_in_quarantine,
        "doubt",
        (
            "Nobody knows whether email.send in send happened (2 requests sent); what has left may still arrive until "
            "14:03:21 UTC, so did-not-happen only from then on."
        ),
        [f"surefoot resolve {CALL} {verdict} --note '…'" for verdict in ("happened", "did-not-happen", "abandon")],
    ),
    "doubt with a probe": (
        why_stories.doubt_with_probe,
        "doubt",
        "Nobody knows whether email.send in send happened (1 request sent).",
        [
            f"surefoot resolve {CALL} {verdict} --note '…'"
            for verdict in ("happened", "did-not-happen", "abandon", "probe")
        ],
    ),
    "approval": (
        why_stories.approval,
        "approval",
        "review asks a person: Send it? Nobody answering by 2026-11-24 15:02:11 UTC counts as a no.",
        [f"surefoot approve {APPROVAL}", f"surefoot reject {APPROVAL} --comment '…'"],
    ),
    "approval of a call": (
        why_stories.approval_of_a_call,
        "approval",
        "send asks a person (it was done before): Send it?",
        [f"surefoot show {APPROVAL}", f"surefoot approve {APPROVAL}", f"surefoot reject {APPROVAL} --comment '…'"],
    ),
    "paused": (
        why_stories.paused,
        "paused",
        "Paused by kim: the bank is closed; 2 calls held.",
        [f"surefoot resume {ID}"],
    ),
    "paused with many calls": (
        why_stories.paused_with_many,
        "paused",
        "Paused; at least 1 call held.",
        [f"surefoot resume {ID}"],
    ),
    "switched off": (
        why_stories.switched_off,
        "held",
        "tool email.send is switched off by kim: it sends twice; 1 call held.",
        ["surefoot release tool email.send"],
    ),
    "attached": (
        why_stories.attached,
        "attached",
        (
            f"email.send in send has the same key as send of {ids.encode('wf', number_id(5))} (intended): it takes "
            "that result and is not sent."
        ),
        [f"surefoot why {ids.encode('wf', number_id(5))}"],
    ),
    "poisoned": (
        why_stories.poisoned,
        "held",
        "email.send in send is held: it lost several workers in a row.",
        [f"surefoot step {ID} send retry-now", f"surefoot step {ID} send fail", f"surefoot cancel {ID}"],
    ),
    "saga held": (
        why_stories.saga_held,
        "saga_held",
        "Failed in settle; an operator decides whether 2 effects done before are undone.",
        [*(f"surefoot compensate {ID} {mode} --note '…'" for mode in ("undo", "keep")), f"surefoot retry {ID}"],
    ),
    "undo failed": (
        why_stories.undo_failed,
        "compensation_failed",
        "send could not be undone: payments.refund answered 409.",
        [f"surefoot undo {CALL} {action} --note '…'" for action in ("retry", "done", "skip")],
    ),
    "undo failed without a word": (
        why_stories.undo_failed_without_a_word,
        "compensation_failed",
        "send could not be undone: the undo of email.send in send failed.",
        [f"surefoot undo {CALL} {action} --note '…'" for action in ("retry", "done", "skip")],
    ),
    "nothing": (
        why_stories.nothing,
        "nothing",
        (
            "Nothing would wake it before its time is up at 2026-12-01 14:02:11 UTC: no row says what it waits for. "
            "Please report it."
        ),
        [f"surefoot trace {ID}", f"surefoot cancel {ID}"],
    ),
    "due without a due": (
        why_stories.due_without_a_due,
        "nothing",
        "email.send in send is due, and no row would wake it. That is a fault of Surefoot; report it.",
        [f"surefoot trace {ID}", f"surefoot cancel {ID}"],
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_explain_says_what_is_waited_for_and_how_to_move_it(name: str) -> None:
    story, kind, headline, commands = GOLDEN[name]

    first = story()[0]

    assert first.kind == kind
    assert first.headline == headline
    assert [command.cli for command in first.commands] == commands


def test_golden_reasons_leave_no_kind_out() -> None:
    told = {reason.kind for story, *_ in GOLDEN.values() for reason in story()}

    assert told | {"draining"} == set(get_args(Kind)) == set(KINDS)


def test_explain_says_since_and_until_when_somebody_waits() -> None:
    [flying], [asked], [off] = why_stories.in_flight(), why_stories.approval(), why_stories.backing_off()

    assert (flying.since, flying.until, flying.who) == (at(50), at(80), "the tool")
    assert (asked.since, asked.until, asked.who) == (at(5), at(3600), "anyone with the scope approve")
    assert (off.since, off.until) == (None, at(90))
    assert why_stories.approval_of_a_call()[0].who.endswith("except who submitted it")
    assert why_stories.probing()[0].not_before is None  # over since 40 s
    assert why_stories.undo_failed()[0].since == at(33)
    assert why_stories.probing()[0].until == at(70)
    assert why_stories.doubt_in_quarantine()[0].not_before == at(70)


def test_explain_names_the_call_and_whether_it_is_an_effect_when_it_is_about_one() -> None:
    [flying], [model] = why_stories.in_flight(), why_stories.model_in_flight()

    assert (flying.step, flying.call, flying.effect) == ("send", CALL, CALL)
    assert (model.step, model.call, model.effect) == ("plan", CALL, None)


def test_explain_tells_the_drain_and_the_calls_that_it_waits_for_when_failing() -> None:
    found = why_stories.failing()

    assert [reason.kind for reason in found] == ["doubt", "draining"]
    assert found[1].headline == ("Failing in settle: nothing new is started; 1 call must be settled before it ends.")


def test_explain_counts_a_probe_with_its_call_and_not_by_itself() -> None:
    assert [reason.kind for reason in why_stories.probing()] == ["probing"]


def test_explain_tells_an_undo_in_flight_beside_the_saga_when_compensating() -> None:
    undo = call(2, "send", n=2, kind="compensation", tool="email.recall", effect="keyed", state="intended",
                attempt_id=number_id(2001), target=number_id(1001))  # fmt: skip
    row = workflow(status="compensating", ended_at=None, open_calls=1, undos=1)

    found = reasons(row, undo, dues=(due("attempt", undo["id"], 95),), attempts=[tried(undo)])

    assert [reason.kind for reason in found] == ["in_flight", "compensating"]
    assert "the undo by email.recall in send" in found[0].headline


@pytest.mark.parametrize("status", sorted(FINAL_STATUSES))
def test_explain_says_nothing_when_the_workflow_has_ended(status: WorkflowStatus) -> None:
    assert reasons(workflow(status=status.value), sends("succeeded", undo="recorded")) == []


UNDOING: dict[str, tuple[dict[str, int], bool, str, str]] = {
    "another undo is under way": (
        {"effects_undone": 1, "undos": 2, "undos_failed": 1},
        True,
        "Undoing what was done: 1 undone, 1 to go.",
        "workers",
    ),
    "the others wait for the one that failed": (
        {"effects_undone": 0, "undos": 2, "undos_failed": 1},
        False,
        ("Undoing what was done: 0 undone, 1 to go, which waits for an operator's word about the undo that failed."),
        "an operator",
    ),
    "only failed ones are left": (
        {"effects_undone": 3, "undos": 2, "undos_failed": 2},
        False,
        "Undoing what was done: 3 undone, it ends with an operator's word about the undos that failed.",
        "an operator",
    ),
}


@pytest.mark.parametrize("what", UNDOING)
def test_explain_says_workers_undo_only_when_an_undo_is_under_way(what: str) -> None:
    columns, moving, headline, who = UNDOING[what]
    row = workflow(status="compensating", ended_at=None, open_calls=int(moving), **columns)
    undo = call(2, "other", kind="compensation", tool="email.recall", effect="keyed", state="due")
    calls = [sends("succeeded", undo="failed", ended_at=at(30)), *([undo] if moving else [])]

    [told] = [reason for reason in reasons(row, *calls) if reason.kind == "compensating"]

    assert (told.headline, told.who) == (headline, who)


@pytest.mark.parametrize(
    ("status", "columns", "retried"),
    [
        ("failed", {}, True),
        ("cancelled", {}, True),
        ("failed", {"effects_undone": 1}, False),
        ("cancelled", {"effects_abandoned": 1}, False),
        ("succeeded", {}, False),
    ],
)
def test_after_end_offers_a_retry_only_when_the_workflow_can_go_on(
    status: str, columns: dict[str, int], retried: bool
) -> None:
    commands = [command.cli for command in after_end(workflow(status=status, **columns))]

    assert commands == [*([f"surefoot retry {ID}"] if retried else []), f"surefoot trace {ID}"]


def test_after_end_offers_nothing_when_the_workflow_goes_on() -> None:
    assert after_end(running()) == []


@pytest.mark.parametrize("state", [state for state in CallState if state not in FINAL_CALL_STATES])
@pytest.mark.parametrize("reason", list(HeldReason))
def test_explain_accounts_for_every_open_call_whatever_rows_are_missing(state: CallState, reason: HeldReason) -> None:
    held = reason.value if state is CallState.HELD else None

    found = reasons(running(), sends(state.value, held_reason=held))

    assert found
    assert all(one.headline for one in found)


def test_explain_puts_what_needs_a_person_first_when_much_is_open() -> None:
    doubtful = sends("in_doubt", doubt_since=at(10), not_before=at(20))
    flying = call(2, "other", state="intended", attempt_id=number_id(2001))
    dues = (due("attempt", flying["id"], 95),)

    found = reasons(running(doubts=1), flying, doubtful, dues=dues, approvals=[asks()])

    assert [reason.kind for reason in found] == ["approval", "doubt", "in_flight"]


def test_curl_can_be_pasted_whatever_the_names_hold() -> None:
    asked = sends("held", held_reason="operator")
    marker = due("switch", asked["id"], 75, note="tool:it's $HOME")
    [switch] = reasons(waiting(held=1), asked, dues=(marker,))
    [curl] = [command.curl for command in switch.commands]

    assert shlex.split(switch.commands[0].cli) == ["surefoot", "release", "tool", "it's $HOME"]
    assert curl is not None
    assert "tool%3Ait%27s%20%24HOME" in curl


def test_curl_says_the_same_as_the_command_when_a_person_decides() -> None:
    [reason] = why_stories.approval()

    words = shlex.split(reason.commands[1].curl or "")

    assert f"$SUREFOOT_URL/v1/approvals/{ids.encode('apr', number_id(77))}/decision" in words
    assert json.loads(words[-1]) == {"decision": "reject", "revision": 3, "comment": "…"}


def test_explain_shows_text_of_others_without_control_characters() -> None:
    [reason] = reasons(waiting(waits=1), approvals=[asks(title="Send \x1b]0;pwned\x07it?")])

    assert "\x1b" not in reason.headline
    assert "pwned" in reason.headline
