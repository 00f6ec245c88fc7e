"""Headlines: a sentence or two about a workflow, step, attempt or approval, with the number that matters.

Built from facts by templates, never by a model; the same in lists, pages, the CLI, webhooks and the API. What an
output *means* cannot be known here ("booked 1 meeting"), so it is not claimed: a headline says what is recorded.
Rows are mappings with the column names of `app/store/tables.py`: uuids, aware datetimes, micro-dollars. The first
sentence of a workflow needs its own row alone (`workflow_headline_brief`); steps and calls add the story
(`stories.py`).
Text that came from outside passes `plain`. Pure: "for 12 s" appears only if the caller says what time it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from app.domain import stories, uninstalled
from app.domain.amounts import counted, dollars, moment, took
from app.domain.failure_words import in_short
from app.domain.plain import clipped
from app.domain.states import CallState, StepState, Undo
from app.domain.stories import TITLE_LIMIT, Row, full_stop, who

MESSAGE_LIMIT: Final = 300
"""A failure's message inside a headline, characters: a headline is read in a list and in a chat."""
ACCEPTED: Final = 202
"""RFC 9110 §15.3.3: the tool will do it, and says later what came of it."""
_UNDONE: Final = {
    Undo.DONE: "; undone since",
    Undo.RUNNING: "; being undone",
    Undo.FAILED: "; its undo failed",
    Undo.SKIPPED: "; its undo was left out",
}


_MENDED: Final = {
    "credential_refused": "Waiting for an operator: the model provider does not accept the credential",
    "spend_limited": "Waiting for an operator: the spending limit at the model provider is reached",
    "budget_exceeded": "Waiting for a top-up: its budget is used up",
}
"""What needs attention and is nobody's failure here → what is waited for."""


def workflow_headline(
    workflow: Row,
    *,
    steps: Sequence[Row],
    calls: Sequence[Row],
    pending: Sequence[Row] = (),
    pause: Row | None = None,
    missing: Row | None = None,
    now: datetime | None = None,
) -> str:
    """What a workflow came to or does now, then why: the doubt, the person waited for, the recovery, what was done.

    `pending`: rows of calls that are probed or whose result is awaited, with `asking`, `next_at` and `said`; `pause`:
    `by`, `reason` and `at`; `missing`: calls that no worker could make for want of something (`uninstalled.among`).
    """
    parts = [workflow_headline_brief(workflow, pause=pause, now=now)]
    parts += uninstalled.told(missing)
    parts += stories.doubts(calls, now=now)
    parts += stories.pending(pending)
    if workflow["status"] in ("waiting", "paused"):
        parts += stories.waiting(steps, calls)
    if workflow["status"] == "running":
        parts += stories.running(steps)
    parts += stories.recovery(calls, ended_well=workflow["status"] not in ("failed", "cancelled"))
    return " ".join(parts)


def workflow_headline_brief(workflow: Row, *, pause: Row | None = None, now: datetime | None = None) -> str:
    """The first sentence, from the row alone."""
    status = workflow["status"]
    if status == "succeeded":
        return f"Succeeded in {_elapsed(workflow, now)}{_for_money(workflow)}; {_tally(workflow)}."
    if status == "failed":
        return _failed_brief(workflow, now)
    if status == "cancelled":
        return _cancelled_brief(workflow, now)
    if status == "waiting":
        return f"{_waiting_brief(workflow)}; {_progress(workflow)}."
    if workflow["saga"] == "held" and not workflow["ended_at"]:
        return _held_brief(workflow)
    if status == "failing":
        return f"Failing{_place(workflow['failure'])}: {_reason(workflow['failure'])}{_in_flight(workflow)}"
    if status == "cancelling":
        return f"{full_stop(f'Being cancelled{_cancel_reason(workflow)}')}{_in_flight(workflow)}"
    if status == "compensating":
        return _undoing_brief(workflow)
    if status == "queued":
        return "Queued: held back by flow control, nothing has started."
    if status == "paused":
        return f"{_paused_brief(pause, now)}; {_progress(workflow)}."
    since = f" for {_elapsed(workflow, now)}" if now is not None and workflow["started_at"] is not None else ""
    return f"Running{since}; {_progress(workflow)}."


def step_headline(
    step: Row,
    *,
    calls: Sequence[Row] = (),
    operated: Row | None = None,
    missing: Row | None = None,
    now: datetime | None = None,
) -> str:
    """What one step came to or does now. `operated`: `action`, `by` and `note` of the operator who ended it by hand;
    `missing` as for a workflow."""
    state = step["state"]
    unsure = [*stories.doubts(calls, now=now), *stories.pending(stories.probed(calls))]
    if unsure:
        return " ".join(unsure)
    by_hand = _by_hand(operated)
    if state == StepState.SUCCEEDED and by_hand:
        return " ".join([f"Completed {by_hand}", *stories.recovery(calls)])
    if state == StepState.SKIPPED and by_hand:
        return f"Skipped {by_hand}"
    if state == StepState.SUCCEEDED:
        told = f"Succeeded in {_elapsed(step, now)}{_items(step)}{_UNDONE.get(step['undo'], '')}."
        return " ".join([told, *stories.recovery(calls)])
    if state == StepState.FAILED:
        tries = sum(call["attempts"] for call in calls)
        after = f" after {counted(tries, 'try', plural='tries')}" if tries > 1 else ""
        return f"Failed{after}: {_reason(step['failure'])}"
    if state == StepState.SKIPPED:
        return "Skipped: its condition was false, or a step it needs was skipped."
    if state == StepState.CANCELLED:
        return "Cancelled before it ended." if step["started_at"] else "Cancelled before it began."
    if state == StepState.WAITING:
        return " ".join(stories.waiting([step], calls) or ["Waiting."])
    if state == StepState.RUNNING:
        since = f" for {_elapsed(step, now)}" if now is not None else ""
        return " ".join([f"Running{since}{_items(step)}.", *uninstalled.told(missing), *stories.backing_off(calls)])
    if state == StepState.READY:
        return "Ready to start."
    return f"Not started: waits for {counted(step['unmet_needs'], 'step')}."


def attempt_headline(attempt: Row, *, call: Row) -> str:
    """What one try came to, what it took and cost."""
    outcome, failure = attempt["outcome"], attempt["failure"]
    spent = _spent(attempt)
    if outcome == "succeeded" and call["state"] == CallState.FAILED and call["failure"]:
        return f"Answered{spent}, but the answer could not be used: {_reason(call['failure'])}"
    if outcome == "succeeded":
        late = " Its worker had been given up; the answer came late." if attempt["lost_at"] else ""
        return f"Succeeded{spent}.{late}"
    if outcome == "not_sent":
        return f"Nothing was sent{spent}: {_reason(failure)}"
    if outcome == "failed":
        return f"Failed{spent}: {_reason(failure)}"
    if outcome == "unknown":
        return f"No certain answer{spent}: {_reason(failure)}"
    if attempt["status_code"] == ACCEPTED:
        when = "but no result came in time" if attempt["lost_at"] else "its result is waited for"
        return f"{who(call)} accepted it (202){spent}; {when}."
    if attempt["lost_at"] is not None:
        asked = "the request had left" if attempt["sent_at"] else "nobody knows whether the request had left"
        return f"The worker was lost while it was calling {who(call)}; {asked}."
    return f"In flight to {who(call)}{'' if attempt['sent_at'] else ', not sent yet'}."


def approval_headline(approval: Row) -> str:
    """What a person is asked, or what they said."""
    title = clipped(approval["title"], TITLE_LIMIT)
    status = approval["status"]
    if status == "open":
        until = f" It expires at {moment(approval['expires_at'])}." if approval["expires_at"] else ""
        return f"Waiting for a person: {full_stop(title)}{until}"
    if status == "expired":
        return f"Nobody decided in time: {full_stop(title)}"
    if status == "cancelled":
        return f"No longer asked: {full_stop(title)}"
    said = {"approve": "Approved", "edit": "Approved with changes", "reject": "Rejected"}.get(
        approval["decision"], clipped(approval["decision"], 40)
    )
    by = f" by {clipped(approval['by'], 60)}" if approval["by"] else ""
    comment = f" “{clipped(approval['comment'], MESSAGE_LIMIT)}”" if approval["comment"] else ""
    return f"{said}{by}: {full_stop(title)}{comment}"


# --- the parts of a workflow's first sentence ---


def _failed_brief(workflow: Row, now: datetime | None) -> str:
    failure = workflow["failure"]
    return f"Failed after {_elapsed(workflow, now)}{_place(failure)}: {_reason(failure)}{_left_behind(workflow)}"


def _cancelled_brief(workflow: Row, now: datetime | None) -> str:
    return f"Cancelled after {_elapsed(workflow, now)}{full_stop(_cancel_reason(workflow))}{_left_behind(workflow)}"


def _held_brief(workflow: Row) -> str:
    effects = counted(workflow["undos"], "effect")
    done = f"whether {effects} done before {'is' if workflow['undos'] == 1 else 'are'} undone"
    what = f"Failed{_place(workflow['failure'])}: {_reason(workflow['failure'])}" if workflow["failure"] else "Stopped."
    return f"{what} Waiting for an operator to decide {done}."


def _undoing_brief(workflow: Row) -> str:
    undone, failed = workflow["effects_undone"], workflow["undos_failed"]
    after = f" after it failed{_place(workflow['failure'])}" if workflow["failure"] else ""
    stuck = f"; {failed} could not be undone and {'waits' if failed == 1 else 'wait'} for an operator" if failed else ""
    return f"Undoing what was done{after}: {undone} of {counted(undone + workflow['undos'], 'effect')} undone{stuck}."


def _paused_brief(pause: Row | None, now: datetime | None) -> str:
    """Since when it is paused only the pause itself says."""
    if pause is None:
        return "Paused"
    by = f" by {clipped(pause['by'], TITLE_LIMIT)}" if pause["by"] else ""
    why = f" ({clipped(pause['reason'], TITLE_LIMIT)})" if pause["reason"] else ""
    since = pause.get("at")
    return f"Paused{by}{why}" + (f" for {took(now - since)}" if now is not None and since is not None else "")


def _by_hand(operated: Row | None) -> str:
    """Who ended a step by hand, and why; empty if nobody did."""
    if operated is None:
        return ""
    note = f": {clipped(operated['note'], MESSAGE_LIMIT)}" if operated["note"] else ""
    return full_stop(f"by {clipped(operated['by'] or 'an operator', TITLE_LIMIT)}{note}")


def _waiting_brief(workflow: Row) -> str:
    if workflow["doubts"]:
        effects = counted(workflow["doubts"], "effect")
        return f"Waiting for a person: nobody knows whether {effects} happened"
    if "approval_pending" in workflow["attention"]:
        return "Waiting for a person to decide"
    mended = next((words for what, words in _MENDED.items() if what in workflow["attention"]), None)
    if mended is not None:
        return mended
    if workflow["held"]:
        return f"Waiting: {counted(workflow['held'], 'call')} held back"
    return "Waiting for its time" if workflow["timers"] else "Waiting"


def _progress(workflow: Row) -> str:
    parts = [f"{workflow['steps_done']:,} of {counted(workflow['steps_total'], 'step')} done"]
    if workflow["spent_microusd"]:
        parts.append(f"{dollars(workflow['spent_microusd'])} so far")
    if workflow["retries"]:
        parts.append(counted(workflow["retries"], "retry", plural="retries"))
    return ", ".join(parts)


def _tally(workflow: Row) -> str:
    parts = [counted(workflow["steps_total"], "step"), counted(workflow["effects_done"], "effect")]
    if workflow["retries"]:
        parts.append(counted(workflow["retries"], "retry", plural="retries"))
    if workflow["duplicates_prevented"]:
        parts.append(f"{counted(workflow['duplicates_prevented'], 'duplicate')} prevented")
    if workflow["effects_abandoned"]:
        parts.append(_given_up(workflow))
    return ", ".join(parts)


def _given_up(workflow: Row) -> str:
    number = workflow["effects_abandoned"]
    return f"{counted(number, 'effect')} given up: nobody knows whether {'it' if number == 1 else 'they'} happened"


def _left_behind(workflow: Row) -> str:
    """What became of the effects: given up, undone, or still done."""
    undone = workflow["effects_undone"]
    kept = workflow["effects_done"] - undone
    parts = [f" {_given_up(workflow)}."] if workflow["effects_abandoned"] else []
    if undone:
        parts.append(f" {counted(undone, 'effect')} {'was' if undone == 1 else 'were'} undone.")
    if kept > 0:
        nothing = "Nothing was undone: " if workflow["compensation"] == "skipped" else ""
        parts.append(f" {nothing}{counted(kept, 'effect')} done before {'stays' if kept == 1 else 'stay'} done.")
    return "".join(parts)


def _in_flight(workflow: Row) -> str:
    open_ones = workflow["open_calls"] + workflow["doubts"]
    return f" {counted(open_ones, 'call')} still to be settled." if open_ones else ""


def _cancel_reason(workflow: Row) -> str:
    reason = (workflow["cancel"] or {}).get("reason")
    return f": {clipped(reason, MESSAGE_LIMIT)}" if reason else ""


def _place(failure: Any) -> str:
    step = (failure or {}).get("step")
    return f" in {clipped(step, TITLE_LIMIT)}" if step else ""


def _reason(failure: Any) -> str:
    """The message as a sentence; the kind's words if there is no message."""
    if not failure:
        return "no reason was recorded."
    return full_stop(clipped(failure.get("message") or in_short(failure["kind"]), MESSAGE_LIMIT))


def _for_money(row: Row) -> str:
    return f" for {dollars(row['spent_microusd'])}" if row["spent_microusd"] else ""


def _elapsed(row: Row, now: datetime | None) -> str:
    began = row["started_at"] or row.get("created_at")
    ended = row["ended_at"] or now
    return took(None if began is None or ended is None else ended - began)


# --- small words ---


def _items(step: Row) -> str:
    total = step["items_total"]
    if total is None:
        return ""
    failed = step["items_failed"] or 0
    open_ones = step["items_open"] or 0
    done = max(total - failed - open_ones, 0)
    parts = [f"{done:,} of {counted(total, 'item')} ok"]
    if failed:
        parts.append(f"{failed:,} failed")
    return "; " + ", ".join(parts)


def _spent(attempt: Row) -> str:
    began = attempt["sent_at"] or attempt["intended_at"]
    ended = attempt["received_at"]
    after = f" in {took(ended - began)}" if ended is not None and ended - began >= timedelta() else ""
    cost = attempt["cost_microusd"]
    return after + (f" for {dollars(cost)}" if cost else "")
