"""Doubt: a call whose outcome nobody knows, parked with its quarantine; which attempts are uncertain, and which a
person vouched for."""

from __future__ import annotations

from datetime import datetime, timedelta

from app.domain.aggregate import Attempt, Call
from app.domain.bindings import instant
from app.domain.outcomes import Failure
from app.domain.states import ACCEPTED, CallState, FailureKind
from app.domain.transition import Draft


def silent_at(draft: Draft, attempt: Attempt) -> datetime:
    """When the sender is known to be silent: its death as its parent's waitpid reported it; when both its send
    deadline and its lease are over; for one that lives its send deadline, which it keeps."""
    sender = draft.snapshot.workers.get(attempt.worker)
    if sender is None or sender.lost_at is None:
        return attempt.send_deadline
    if sender.reaped_at is not None:
        return sender.reaped_at
    return max(attempt.send_deadline, sender.lease_until)


def quarantine_of(draft: Draft, call: Call, *, since: datetime) -> datetime:
    """Until when a request of the call may still take effect. `since` is when its last sender was silent; an earlier
    one, whose call was repeated before it was, may be sending yet; what a tool accepted (202) it may act on for as long
    as its result may take."""
    open_ = [a for a in call.uncertain if a.outcome is None]
    silent = [quiet_at(draft, call, a) for a in open_ if a.status_code != ACCEPTED or a.id != call.attempt_id]
    return max([since, *silent]) + timedelta(milliseconds=call.settle_ms)


def quiet_at(draft: Draft, call: Call, attempt: Attempt) -> datetime:
    """When nothing of an attempt is sent any more; of one that was accepted while its call was repeated, when the tool
    has had as long as its result may take. (How long the latest one is waited for is decided when it is accepted.)"""
    if attempt.status_code != ACCEPTED or attempt.id == call.attempt_id or call.tool is None:
        return silent_at(draft, attempt)
    return (attempt.received_at or attempt.intended_at) + draft.plan.tools[call.tool].result_within


def doubt(draft: Draft, call: Call, *, since: datetime, reason: str) -> None:
    """Park the call. `since` is when its sender was silent; what had left by then may take effect for settle_time."""
    before = call.state
    call.not_before = quarantine_of(draft, call, since=since)
    call.doubt_since = draft.now
    call.failure = {"kind": FailureKind.UNKNOWN_OUTCOME, "message": reason, "fix": resolve_hint(call)}
    draft.move_call(call, CallState.IN_DOUBT)
    draft.event(
        "effect.in_doubt",
        call=call,
        attempt=call.attempt_id,
        moved=(before, CallState.IN_DOUBT),
        data={"tool": call.tool, "not_before": instant(call.not_before), "reason": reason},
    )
    draft.attend("outcome_unknown", tool=call.tool)


def resolve_hint(call: Call) -> str:
    return f"Look at {call.tool} itself, then resolve this effect: happened, did_not_happen or abandon."


def given_up(call: Call) -> Failure:
    """Why a step fails whose effect a person abandoned."""
    return Failure(
        kind=FailureKind.UNKNOWN_OUTCOME,
        message=f"Whether {call.tool} happened was given up by {(call.resolved or {}).get('by')}.",
        fix="Check the tool by hand; nothing of this effect was undone.",
    )


def clear(draft: Draft, call: Call) -> None:
    if draft.workflow.doubts <= 1:
        draft.workflow.attention = [a for a in draft.workflow.attention if a != "outcome_unknown"]
