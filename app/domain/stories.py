"""The stories behind a headline: what is in doubt, who is asked, what is probed, what was recovered, sentence by
sentence. Rows are mappings with the column names of `app/store/tables.py`. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from app.domain.amounts import clock
from app.domain.failure_words import CHANGES, HELD, happened, in_short
from app.domain.outcomes import JSON
from app.domain.plain import clipped
from app.domain.states import CallKind, CallState, EffectClass, HeldReason, StepKind, StepState

Row = Mapping[str, Any]

TITLE_LIMIT: Final = 120
"""Of a title or a name somebody gave, characters."""
HELD_TOLD: Final = 3
"""Held calls that are named; the others are counted."""
BY_HAND: Final[Mapping[str, StepState]] = {
    "skip": StepState.SKIPPED,
    "complete": StepState.SUCCEEDED,
    "fail": StepState.FAILED,
}
"""How an operator ends a step → the state it has then."""
TOLD: Final = "tell_model"
"""A recovery record's change: nothing was tried again, the model got the failure as the tool's result."""
DRIFTED: Final = "definition"
"""The same of a tool of an MCP server that is another now: a person is asked."""
_UNTRIED: Final = frozenset({TOLD, DRIFTED})
_AGREED: Final[Mapping[JSON, str]] = {
    "approved": "a person agreed to what it is now",
    "failed": "nobody agreed to what it is now",
    "cancelled": "it was not needed any more",
}
_TIMES: Final = {1: "once", 2: "twice"}
_SAID: Final = {"found": "it did", "absent": "not there yet", "unclear": "no clear answer yet"}


def doubts(calls: Sequence[Row], *, now: datetime | None = None) -> list[str]:
    """Said so that it stays true: without `now` nobody knows whether the quarantine is over."""
    stories = []
    for call in calls:
        if call["state"] != CallState.IN_DOUBT:
            continue
        tries = _TIMES.get(call["attempts"], f"{call['attempts']} times")
        until = call["not_before"]
        open_ended = until is not None and (now is None or until > now)
        before = f"; no request of it can arrive after {clock(until)}" if open_ended else ""
        stories.append(
            f"In doubt is {call['step']}: {call['tool'] or call['kind']} was asked {tries}"
            f" and gave no certain answer{before}."
        )
    return stories


def waiting(steps: Sequence[Row], calls: Sequence[Row]) -> list[str]:
    asked = [
        f"{step['path']} asks: {full_stop(clipped(step['title'] or step['path'], TITLE_LIMIT))}"
        for step in steps
        if step["kind"] == StepKind.APPROVAL and step["state"] == StepState.WAITING
    ]
    held = [call for call in calls if call["state"] == CallState.HELD and call["held_reason"]]
    told = [f"{call['step']} is held: {HELD[HeldReason(call['held_reason'])]}." for call in held[:HELD_TOLD]]
    more = [f"{len(held) - HELD_TOLD} more calls are held."] if len(held) > HELD_TOLD else []
    return [*asked, *told, *more]


def pending(rows: Sequence[Row]) -> list[str]:
    """Calls that are probed or whose result is awaited: with `asking` (the tool that is asked, None for a result),
    `next_at`, and perhaps `said`, what the probes said so far."""
    told = []
    for row in rows:
        at = row["next_at"]
        if row["asking"] is None:
            until = f" until {clock(at)}" if at else ""
            told.append(f"{row['tool']} accepted {row['step']} (202); its result is waited for{until}.")
            continue
        said = row.get("said") or []
        answer = _SAID.get(said[-1], said[-1]) if said else "no answer yet"
        again = f"; asked again at {clock(at)}" if at and said else ""
        told.append(f"Asked {row['asking']} whether {row['step']} happened: {answer}{again}.")
    return told


def probed(calls: Sequence[Row], *, said: Mapping[UUID, Sequence[str]] | None = None) -> list[Row]:
    """Of these calls those that are being probed, as rows for `pending`: their probes are among them."""
    asked = {call["target"]: call["tool"] for call in calls if call["kind"] == CallKind.PROBE}
    return [
        {**call, "asking": asked.get(call["id"], "the tool"), "next_at": None, "said": (said or {}).get(call["id"])}
        for call in calls
        if call["state"] == CallState.PROBING
    ]


def running(steps: Sequence[Row]) -> list[str]:
    busy = [step["path"] for step in steps if step["state"] == StepState.RUNNING and step["parent"] is None]
    return [f"Now: {', '.join(busy[:3])}{f' and {len(busy) - 3} more' if len(busy) > 3 else ''}."] if busy else []


def backing_off(calls: Sequence[Row]) -> list[str]:
    """Calls that are tried again: with `due_at`, when."""
    waiting = [call for call in calls if call["state"] == CallState.DUE and call.get("due_at") and call["recovery"]]
    return [
        f"Last failure: {in_short(call['recovery'][-1]['kind'])}; the next try is due at {clock(call['due_at'])}."
        for call in waiting
        if not _tried_again(call, call["recovery"][-1])
    ]


def recovery(calls: Sequence[Row], *, ended_well: bool = True) -> list[str]:
    """One recovery is told, several are counted by what happened and where. Of a call that is due `due_at` says when,
    if that was read."""
    told = [(call, record) for call in calls for record in call["recovery"]]
    if len(told) == 1:
        call, record = told[0]
        return [_recovery_sentence(call, record, nth=_position(call, calls))]
    told = [
        (call, record) for call, record in told if record.get("change") not in _UNTRIED and _tried_again(call, record)
    ]
    if not told:
        return []
    groups = Counter((record["kind"], call["step"].partition(".")[0]) for call, record in told)
    listed = [f"{number} × {in_short(kind)} in {step}" for (kind, step), number in groups.most_common(3)]
    more = f" and {len(groups) - 3} other reasons" if len(groups) > 3 else ""
    return [f"{'Recovered from' if ended_well else 'Tried again after'} {', '.join(listed)}{more}."]


def _recovery_sentence(call: Row, record: Row, *, nth: int) -> str:
    clause = happened(record["kind"], who=str(record.get("tool") or who(call)), nth=nth)
    if record.get("change") == TOLD:
        return f"{clause}; {CHANGES[TOLD]}."
    if record.get("change") == DRIFTED:
        return (
            f"{who(call)} has changed since it was listed; {_AGREED.get(record['result'], 'a person is asked first')}."
        )
    if not _tried_again(call, record):
        return f"{clause}; {_not_yet(call)}."
    result = record.get("result")
    if result == "succeeded":
        ending = " and it was." if record["kind"] == "malformed_output" else " and it worked."
    elif result == "failed":
        ending = ", which failed too."
    else:
        ending = "."
    return f"{clause}; {_remedy(call, record)}{ending}"


def _tried_again(call: Row, record: Row) -> bool:
    """Whether the try that was decided has begun. A record without its attempt's number made the call it is on."""
    failed = record.get("attempt")
    return bool(call["attempts"] > (failed if isinstance(failed, int) else 0))


def _not_yet(call: Row) -> str:
    if CallState(call["state"]).final:
        return "it was not tried again"
    due_at = call.get("due_at") if call["state"] == CallState.DUE else None
    return f"the next try is due at {clock(due_at)}" if due_at else "it is to be tried again"


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


def who(call: Row) -> str:
    return "the model" if call["kind"] == CallKind.MODEL else str(call["tool"] or call["kind"])


def full_stop(text: str) -> str:
    return text if text.endswith((".", "!", "?", "…")) else text + "."
