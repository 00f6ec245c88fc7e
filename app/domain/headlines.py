"""Headlines: a sentence or two about a workflow, step, attempt or approval, with the number that matters.

Built from facts by templates, never by a model; the same in lists, pages, the CLI, webhooks and the API. What an
output *means* cannot be known here ("booked 1 meeting"), so it is not claimed: a headline says what is recorded.
Rows are mappings with the column names of `app/store/tables.py`: uuids, aware datetimes, micro-dollars. The first
sentence of a workflow needs its own row alone (`workflow_headline_brief`); steps and calls add the story.
Text that came from outside passes `plain`. Pure: "for 12 s" appears only if the caller says what time it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from app.domain.amounts import clock, counted, dollars, moment, took
from app.domain.failure_words import CHANGES, happened, in_short
from app.domain.plain import clipped
from app.domain.states import CallKind, CallState, EffectClass, StepKind, StepState

Row = Mapping[str, Any]

MESSAGE_LIMIT: Final = 300
"""A failure's message inside a headline, characters: a headline is read in a list and in a chat."""
TITLE_LIMIT: Final = 120
_TIMES: Final = {1: "once", 2: "twice"}


def workflow_headline(workflow: Row, *, steps: Sequence[Row], calls: Sequence[Row], now: datetime | None = None) -> str:
    """What a workflow came to or does now, then why: the doubt, the person waited for, the recovery, what was done."""
    parts = [workflow_headline_brief(workflow, now=now)]
    parts += _doubt_stories(calls)
    if workflow["status"] == "waiting":
        parts += _waiting_stories(steps, calls)
    if workflow["status"] == "running":
        parts += _running_story(steps)
    parts += _recovery_story(calls, ended_well=workflow["status"] not in ("failed", "cancelled"))
    return " ".join(parts)


def workflow_headline_brief(workflow: Row, *, now: datetime | None = None) -> str:
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
    if status == "failing":
        return f"Failing{_place(workflow['failure'])}: {_reason(workflow['failure'])}{_in_flight(workflow)}"
    if status == "cancelling":
        return f"{_stop(f'Being cancelled{_cancel_reason(workflow)}')}{_in_flight(workflow)}"
    if status == "compensating":
        return f"Undoing what was done: {workflow['effects_undone']} of {counted(workflow['effects_done'], 'effect')}."
    if status == "queued":
        return "Queued: held back by flow control, nothing has started."
    since = f" for {_elapsed(workflow, now)}" if now is not None and workflow["started_at"] is not None else ""
    return f"{'Paused' if status == 'paused' else 'Running'}{since}; {_progress(workflow)}."


def step_headline(step: Row, *, calls: Sequence[Row] = (), now: datetime | None = None) -> str:
    """What one step came to or does now."""
    state = step["state"]
    doubts = _doubt_stories(calls)
    if doubts:
        return " ".join(doubts)
    if state == StepState.SUCCEEDED:
        return " ".join([f"Succeeded in {_elapsed(step, now)}{_items(step)}.", *_recovery_story(calls)])
    if state == StepState.FAILED:
        tries = _tries(calls)
        after = f" after {counted(tries, 'try', plural='tries')}" if tries > 1 else ""
        return f"Failed{after}: {_reason(step['failure'])}"
    if state == StepState.SKIPPED:
        return "Skipped: its condition was false, or a step it needs was skipped."
    if state == StepState.CANCELLED:
        return "Cancelled before it ended." if step["started_at"] else "Cancelled before it began."
    if state == StepState.WAITING:
        return " ".join(_waiting_stories([step], calls) or ["Waiting."])
    if state == StepState.RUNNING:
        since = f" for {_elapsed(step, now)}" if now is not None else ""
        return " ".join([f"Running{since}{_items(step)}.", *_pending_story(calls)])
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
    if attempt["lost_at"] is not None:
        asked = "the request had left" if attempt["sent_at"] else "nobody knows whether the request had left"
        return f"The worker was lost while it was calling {_who(call)}; {asked}."
    return f"In flight to {_who(call)}{'' if attempt['sent_at'] else ', not sent yet'}."


def approval_headline(approval: Row) -> str:
    """What a person is asked, or what they said."""
    title = clipped(approval["title"], TITLE_LIMIT)
    status = approval["status"]
    if status == "open":
        until = f" It expires at {moment(approval['expires_at'])}." if approval["expires_at"] else ""
        return f"Waiting for a person: {_stop(title)}{until}"
    if status == "expired":
        return f"Nobody decided in time: {_stop(title)}"
    if status == "cancelled":
        return f"No longer asked: {_stop(title)}"
    said = {"approve": "Approved", "reject": "Rejected"}.get(approval["decision"], clipped(approval["decision"], 40))
    by = f" by {clipped(approval['by'], 60)}" if approval["by"] else ""
    comment = f" “{clipped(approval['comment'], MESSAGE_LIMIT)}”" if approval["comment"] else ""
    return f"{said}{by}: {_stop(title)}{comment}"


# --- the parts of a workflow's first sentence ---


def _failed_brief(workflow: Row, now: datetime | None) -> str:
    failure = workflow["failure"]
    return f"Failed after {_elapsed(workflow, now)}{_place(failure)}: {_reason(failure)}{_left_behind(workflow)}"


def _cancelled_brief(workflow: Row, now: datetime | None) -> str:
    return f"Cancelled after {_elapsed(workflow, now)}{_stop(_cancel_reason(workflow))}{_left_behind(workflow)}"


def _waiting_brief(workflow: Row) -> str:
    if workflow["doubts"]:
        effects = counted(workflow["doubts"], "effect")
        return f"Waiting for a person: nobody knows whether {effects} happened"
    if "approval_pending" in workflow["attention"]:
        return "Waiting for a person to decide"
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
    return ", ".join(parts)


def _left_behind(workflow: Row) -> str:
    kept = workflow["effects_done"] - workflow["effects_undone"]
    undone = f" {counted(workflow['effects_undone'], 'effect')} undone." if workflow["effects_undone"] else ""
    stay = f" {counted(kept, 'effect')} done before {'stays' if kept == 1 else 'stay'} done." if kept > 0 else ""
    return undone + stay


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
    return _stop(clipped(failure.get("message") or in_short(failure["kind"]), MESSAGE_LIMIT))


def _for_money(row: Row) -> str:
    return f" for {dollars(row['spent_microusd'])}" if row["spent_microusd"] else ""


def _elapsed(row: Row, now: datetime | None) -> str:
    began = row["started_at"] or row.get("created_at")
    ended = row["ended_at"] or now
    return took(None if began is None or ended is None else ended - began)


# --- the stories ---


def _doubt_stories(calls: Sequence[Row]) -> list[str]:
    stories = []
    for call in calls:
        if call["state"] != CallState.IN_DOUBT:
            continue
        tries = _TIMES.get(call["attempts"], f"{call['attempts']} times")
        before = f"; a request may still arrive until {clock(call['not_before'])}" if call["not_before"] else ""
        stories.append(
            f"In doubt is {call['step']}: {call['tool'] or call['kind']} was asked {tries}"
            f" and gave no certain answer{before}."
        )
    return stories


def _waiting_stories(steps: Sequence[Row], calls: Sequence[Row]) -> list[str]:
    asked = [
        f"{step['path']} asks: {_stop(clipped(step['title'] or step['path'], TITLE_LIMIT))}"
        for step in steps
        if step["kind"] == StepKind.APPROVAL and step["state"] == StepState.WAITING
    ]
    held = [
        f"{call['step']} is held: {call['held_reason']}."
        for call in calls
        if call["state"] == CallState.HELD and call["held_reason"]
    ]
    return [*asked, *held]


def _running_story(steps: Sequence[Row]) -> list[str]:
    busy = [step["path"] for step in steps if step["state"] == StepState.RUNNING and step["parent"] is None]
    return [f"Now: {', '.join(busy[:3])}{f' and {len(busy) - 3} more' if len(busy) > 3 else ''}."] if busy else []


def _pending_story(calls: Sequence[Row]) -> list[str]:
    waiting = [call for call in calls if call["state"] == CallState.DUE and call["not_before"] and call["failure"]]
    return [
        f"Last failure: {in_short(call['failure']['kind'])}; tried again at {clock(call['not_before'])}."
        for call in waiting
    ]


def _recovery_story(calls: Sequence[Row], *, ended_well: bool = True) -> list[str]:
    """One recovery is told, several are counted by what happened and where."""
    told = [(call, record) for call in calls for record in call["recovery"]]
    if len(told) == 1:
        call, record = told[0]
        return [_recovery_sentence(call, record, nth=_position(call, calls))]
    if not told:
        return []
    groups = Counter((record["kind"], call["step"].partition(".")[0]) for call, record in told)
    listed = [f"{number} × {in_short(kind)} in {step}" for (kind, step), number in groups.most_common(3)]
    more = f" and {len(groups) - 3} other reasons" if len(groups) > 3 else ""
    return [f"{'Recovered from' if ended_well else 'Tried again after'} {', '.join(listed)}{more}."]


def _recovery_sentence(call: Row, record: Row, *, nth: int) -> str:
    clause = happened(record["kind"], who=_who(call), nth=nth)
    result = record.get("result")
    if result == "succeeded":
        ending = " and it was." if record["kind"] == "malformed_output" else " and it worked."
    elif result == "failed":
        ending = ", which failed too."
    else:
        ending = "."
    return f"{clause}; {_remedy(call, record)}{ending}"


def _remedy(call: Row, record: Row) -> str:
    change = record.get("change")
    if change:
        return CHANGES.get(str(change), f"tried again with {clipped(str(change), 60)}")
    if call["kind"] in (CallKind.MODEL, CallKind.PROBE):
        return "asked again"
    if call["effect"] == EffectClass.KEYED:
        return "repeated with the same key"
    return "tried again"


def _position(call: Row, calls: Sequence[Row]) -> int:
    """Which answer of the chain it was that failed: 1 for the first."""
    by_id = {other["id"]: other for other in calls}
    position, current = 1, by_id.get(call["retry_of"])
    while current is not None and current["retry_of"] in by_id and position <= len(by_id):
        position, current = position + 1, by_id[current["retry_of"]]
    return position


# --- small words ---


def _who(call: Row) -> str:
    return "the model" if call["kind"] == CallKind.MODEL else str(call["tool"] or call["kind"])


def _tries(calls: Sequence[Row]) -> int:
    return sum(call["attempts"] for call in calls)


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


def _stop(text: str) -> str:
    return text if text.endswith((".", "!", "?", "…")) else text + "."
