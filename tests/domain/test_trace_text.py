"""The picture of a trace, compared with pictures a person has looked at (`pictures/`), and what must hold at any width.

To look at a changed picture: print `render_text` of its story; accept it by writing it into its file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.domain.plain import cells
from app.domain.spans import Trace
from app.domain.trace import build_trace
from app.domain.trace_text import render_text
from tests.domain.fabricated_rows import REMINDED, at, attempt, call, model_call, number_id, sample, step, workflow

PICTURES = Path(__file__).parent / "pictures"


def succeeded() -> Trace:
    return build_trace(*sample(), source_name="meeting-scheduler.yaml")


def in_doubt() -> Trace:
    row, steps, calls, attempts = sample()
    unanswered = {"kind": "timeout", "message": "calendar.create_event did not answer within 10 s.", "fix": None}
    steps, calls, attempts = steps[:6], calls[:6], attempts[:6]
    steps[-1].update(state="running", ended_at=None, output=None)
    calls[-1].update(
        state="in_doubt", effect="at_most_once", key=None, business_key=False, result=None, failure=unanswered,
        doubt_since=at(20), not_before=at(80),
    )  # fmt: skip
    attempts[-1].update(outcome="unknown", received_at=None, settled_at=at(15), failure=unanswered)
    row.update(
        status="waiting", ended_at=None, updated_at=at(20), doubts=1, steps_done=3, effects_done=0,
        attention=["outcome_unknown"],
    )  # fmt: skip
    return build_trace(row, steps, calls, attempts, source_name="meeting-scheduler.yaml")


def waiting_for_approval() -> Trace:
    title = "Publish \x1b]0;pwned\x07it?"
    steps = [step("write", 0, began=0, ended=1), step("review", 1, began=1, ended=None)]
    steps[1].update(kind="approval", state="waiting", title=title)
    row = workflow(
        status="waiting", ended_at=None, updated_at=at(20), waits=1, steps_done=1, steps_total=2,
        attention=["approval_pending"],
    )  # fmt: skip
    approval = {
        "id": number_id(77), "step": "review", "call_id": None, "status": "open", "title": title, "created_at": at(1),
        "expires_at": None,
    }  # fmt: skip
    return build_trace(row, steps, [], [], approvals=[approval])


def failed() -> Trace:
    row, steps, calls, attempts = sample()
    failure = {
        "kind": "tool_error",
        "message": "email.send answered 550: mailbox rejected bo@x.io.",
        "fix": "Correct the address and submit again with a new key.",
        "step": "invite.1",
        "call": "call_1",
    }
    steps[-1].update(state="failed", failure=failure)
    steps[-3].update(state="failed", items_failed=1, failure={"kind": "item_failures_exceeded", "message": "1 of 2."})
    calls[-1].update(state="failed", failure=failure, result=None)
    attempts[-1].update(outcome="failed", failure=failure)
    row.update(status="failed", failure=failure, effects_done=2)
    return build_trace(row, steps, calls, attempts, source_name="meeting-scheduler.yaml")


def worker_lost() -> Trace:
    row, steps, calls, attempts = sample()
    lost = {
        "kind": "worker_lost", "rule": "worker_lost", "source": "default", "line": None, "used": 1, "allowed": 5,
        "message": "The worker's process ended.", "change": None, "waited_ms": 0, "result": "succeeded",
    }  # fmt: skip
    calls[5].update(attempts=2, recovery=[lost])
    attempts[5].update(outcome=None, lost_at=at(5.1), received_at=None)
    again = attempt(99, calls[5], n=2, began=5.2, ended=5.46)
    row.update(retries=2)
    return build_trace(row, steps, calls, [*attempts, again], source_name="meeting-scheduler.yaml")


def agent_with_tools() -> Trace:
    first = model_call(1, "plan")
    search = call(2, "plan", n=2, tool="web.search", turn=1, attempts=2)
    again = {"kind": "server_error", "rule": "transient", "source": "default", "line": None, "used": 1, "allowed": 5}
    search["recovery"] = [again | {"message": None, "change": None, "waited_ms": 800, "result": None}]
    second = model_call(3, "plan", n=3, state="due") | {"turn": 2, "state": "intended"}
    oops = {"kind": "server_error", "message": "web.search answered 503.", "fix": None}
    attempts = [
        attempt(1, first, began=0, ended=1, cost_microusd=2_000),
        attempt(2, search, began=1, ended=1.5, outcome="failed", failure=oops),
        attempt(3, search, n=2, began=2.3, ended=3),
        attempt(4, second, began=3, ended=None),
    ]
    row = workflow(
        status="running", ended_at=None, updated_at=at(4), steps_total=1, steps_done=0, retries=1, spent_microusd=2_000
    )
    steps = [step("plan", 0, began=0, ended=None, kind="agent")]
    return build_trace(row, steps, [first, search, second], attempts)


def found(seconds: float, of: dict[str, Any], **data: Any) -> dict[str, Any]:
    kind = data.pop("type", "effect.probed")
    return {"type": kind, "call_id": of["id"], "attempt_id": None, "at": at(seconds), "data": data}


def probed() -> Trace:
    """A mail whose answer was lost: absent at first, then it was there."""
    send = call(1, "send", tool="email.send", effect="checkable", result={"message_id": "m1"}, ended_at=at(12))
    asked = [
        call(2 + index, "send", n=2 + index, kind="probe", tool="email.search", target=send["id"], ended_at=at(ended))
        for index, ended in enumerate((6.2, 12.0))
    ]
    late = {"kind": "timeout", "message": "email.send did not answer within 5 s.", "fix": None}
    attempts = [
        attempt(1, send, began=0, ended=None, outcome="unknown", settled_at=at(5), failure=late),
        attempt(2, asked[0], began=6, ended=6.2),
        attempt(3, asked[1], began=11.8, ended=12.0),
    ]
    row = workflow(steps_total=1, steps_done=1, effects_done=1, updated_at=at(12), ended_at=at(12))
    verdicts = [found(6.2, send, verdict="unclear"), found(12, send, verdict="found")]
    steps = [step("send", 0, began=0, ended=12)]
    return build_trace(row, steps, [send, *asked], attempts, findings=verdicts)


def undo_failed() -> Trace:
    """A payment that failed at its last step: one effect undone, the undo of the other was refused."""
    calls = [
        call(1, "authorize", tool="payments.authorize", effect="keyed", key="pay:1", ended_at=at(1), undo="done"),
        call(2, "settle", tool="payments.settle", effect="keyed", key="pay:1s", ended_at=at(2), undo="failed"),
        call(3, "report", tool="reports.file", state="failed", failure={"kind": "tool_error", "message": "No."}),
    ]
    refused = {"kind": "tool_error", "message": "payments.refund answered 409.", "fix": None}
    undos = [
        call(4, "settle", n=2, kind="compensation", tool="payments.refund", effect="keyed", target=calls[1]["id"],
             state="failed", failure=refused, ended_at=at(5)),
        call(5, "authorize", n=2, kind="compensation", tool="payments.void", effect="idempotent",
             target=calls[0]["id"], ended_at=at(4)),
    ]  # fmt: skip
    attempts = [
        attempt(1, calls[0], began=0, ended=1),
        attempt(2, calls[1], began=1, ended=2),
        attempt(3, calls[2], began=2, ended=3, outcome="failed", failure=calls[2]["failure"]),
        attempt(4, undos[0], began=4, ended=5, outcome="failed", failure=refused),
        attempt(5, undos[1], began=3.2, ended=4),
    ]
    steps = [
        step("authorize", 0, began=0, ended=1, undo="done"),
        step("settle", 1, began=1, ended=2, undo="failed"),
        step("report", 2, began=2, ended=3, state="failed", failure={"kind": "tool_error", "message": "No."}),
    ]
    row = workflow(
        status="compensating", ended_at=None, updated_at=at(5), steps_total=3, steps_done=2, effects_done=2,
        effects_undone=1, undos=1, undos_failed=1, attention=["compensation_failed"],
        failure={"kind": "tool_error", "message": "reports.file answered 422.", "step": "report", "fix": None},
    )  # fmt: skip
    return build_trace(row, steps, [*calls, *undos], attempts)


STORIES: dict[str, Callable[[], Trace]] = {
    "succeeded": succeeded,
    "in_doubt": in_doubt,
    "waiting_for_approval": waiting_for_approval,
    "failed": failed,
    "worker_lost": worker_lost,
    "agent_with_tools": agent_with_tools,
    "probed": probed,
    "undo_failed": undo_failed,
}
PICTURED = [
    *((name, 100) for name in STORIES),
    ("succeeded", 112),
    ("succeeded", 80),
    ("succeeded", 60),
    ("failed", 44),
]


@pytest.mark.parametrize(("story", "width"), PICTURED)
def test_render_text_draws_the_picture_somebody_looked_at(story: str, width: int) -> None:
    drawn = render_text(STORIES[story](), width=width)

    assert drawn == (PICTURES / f"{story}_{width}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [40, 57, 63, 64, 79, 80, 81, 99, 100, 120, 200])
@pytest.mark.parametrize("story", STORIES)
def test_render_text_keeps_to_its_width_except_for_commands(story: str, width: int) -> None:
    lines = render_text(STORIES[story](), width=width).splitlines()

    too_wide = [line for line in lines if cells(line) > width and "surefoot " not in line and "wf_" not in line]
    assert too_wide == []


@pytest.mark.parametrize("width", [40, 60, 80, 100, 160])
def test_render_text_never_leaves_the_reason_out_when_it_gets_narrow(width: int) -> None:
    text = " ".join(render_text(failed(), width=width).split())

    assert "mailbox rejected bo@x.io" in text
    assert "malformed_output" in text
    assert "line 26" in text or "meeting-scheduler.yaml:26" in text


def test_render_text_drops_the_bars_first_and_then_the_cost() -> None:
    wide, middle, narrow = (render_text(succeeded(), width=width) for width in (100, 80, 60))

    assert ("█" in wide, "█" in middle, "█" in narrow) == (True, False, False)
    assert ("0.0121  malformed" in middle, "$0.0264" in middle, "$0.0264" in narrow) == (True, True, False)


def test_render_text_ends_with_the_reason_when_the_workflow_failed() -> None:
    last = render_text(failed(), width=100).splitlines()[-1]

    assert last == "✗ invite.1: email.send answered 550: mailbox rejected bo@x.io. (tool_error)"


def test_render_text_says_what_to_do_when_an_effect_is_in_doubt() -> None:
    text = render_text(in_doubt(), width=80)

    commands = [line.split("surefoot resolve ")[1] for line in text.splitlines() if "surefoot resolve" in line]
    assert [command.split()[1] for command in commands] == ["happened", "did-not-happen", "abandon"]
    assert "|" not in "".join(commands)
    assert "did-not-happen only from 14:03:31 UTC" in text


def test_render_text_lets_no_control_character_through_when_color_is_off() -> None:
    text = render_text(waiting_for_approval(), width=100)

    assert all(character.isprintable() for line in text.splitlines() for character in line)
    assert "Publish \\x1b]0;pwned\\x07it?" in text


def test_render_text_colours_glyphs_only_when_color_is_on() -> None:
    plainly, coloured = render_text(failed(), width=100), render_text(failed(), width=100, color=True)

    assert "\x1b[31m✗\x1b[0m" in coloured
    without = coloured
    for code in ("0", "2", "31", "32", "33", "36"):
        without = without.replace(f"\x1b[{code}m", "")
    assert without == plainly


def test_render_text_counts_the_items_it_does_not_show() -> None:
    asked = [call(number, f"each.{number}", state="failed", failure=_no()) for number in range(30)]
    steps = [step("each", 0, began=0, ended=2, items_total=30, items_open=0, items_failed=30)]
    steps += [step(f"each.{number}", 0, began=0, ended=2, state="failed", failure=_no()) for number in range(30)]
    tries = [
        attempt(number, one, began=0, ended=1, outcome="failed", failure=_no()) for number, one in enumerate(asked)
    ]

    text = render_text(build_trace(workflow(), steps, asked, tries), width=100)

    assert "✓ each ×30" in text
    assert "0 ok, 30 failed" in text
    assert "… and 20 more of 30 items with something to see" in text


@pytest.mark.parametrize(("diff", "said"), [(["+ a", "+ b"], " (2 lines)"), ("+ a", " (1 line)"), (None, "")])
def test_render_text_says_how_much_was_added_to_the_request(diff: Any, said: str) -> None:
    row, steps, calls, attempts = sample()
    calls[1]["recovery"] = [{**REMINDED, "diff": diff}]

    text = render_text(build_trace(row, steps, calls, attempts), width=100)

    assert f"+ schema and the exact complaint{said} · waited" in text


def test_render_text_numbers_tries_through_when_a_changed_request_was_repeated_too() -> None:
    row, steps, calls, attempts = sample()
    calls[1].update(attempts=2, recovery=[REMINDED, {**REMINDED, "kind": "network", "change": None, "used": 1}])
    attempts[1].update(outcome="unknown", failure={"kind": "network", "message": "The connection broke."})
    attempts.append(attempt(50, calls[1], n=2, began=3.0, ended=3.31))

    text = render_text(build_trace(row, steps, calls, attempts), width=100)

    order = [text.index(words) for words in ("try 1", "schema and the exact", "try 2", "none, the same", "try 3")]
    assert order == sorted(order)


def _no() -> dict[str, Any]:
    return {"kind": "tool_error", "message": "No.", "fix": None}


def test_render_text_says_who_settled_a_doubt_and_why() -> None:
    row, steps, calls, attempts = sample()
    word = {"outcome": "happened", "by": "key:5fK2", "note": "it is in the outbox", "at": "2026-11-22T10:00:09Z"}
    calls[-1].update(effect="at_most_once", resolved=word)
    attempts[-1].update(outcome="unknown", failure={"kind": "timeout", "message": "No answer within 30 s."})

    trace = build_trace(row, steps, calls, attempts)
    text = render_text(trace, width=100)

    assert "nobody knew; settled as happened by key:5fK2 at 10:00:09 UTC: it is in the outbox" in text
    assert Trace.from_json(trace.to_json()) == trace


def test_render_text_says_who_decided_an_approval_and_with_what_words() -> None:
    steps = [step("review", 0, began=0, ended=4)]
    steps[0].update(kind="approval", title="Publish it?")
    approval = {
        "id": number_id(77), "step": "review", "call_id": None, "status": "decided", "title": "Publish it?",
        "created_at": at(0), "expires_at": None, "decision": "approve", "by": "key:5fK2", "comment": "fine \x1b[31mme",
        "decided_at": at(4),
    }  # fmt: skip

    text = render_text(
        build_trace(workflow(steps_total=1, steps_done=1), steps, [], [], approvals=[approval]), width=100
    )

    assert "approved by key:5fK2 at" in text
    assert "fine" in text
    assert "\x1b" not in text
