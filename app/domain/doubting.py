"""Doubt: a call whose outcome nobody knows, parked with its quarantine; which attempts are uncertain, and which a
person vouched for."""

from __future__ import annotations

from datetime import datetime, timedelta

from app.domain.aggregate import Attempt, Call
from app.domain.bindings import instant
from app.domain.outcomes import Failure
from app.domain.states import AttemptOutcome, CallState, FailureKind
from app.domain.transition import Draft


def uncertain(call: Call) -> list[Attempt]:
    """Attempts that may have taken effect and for which nobody has vouched."""
    word = vouched(call)
    return [a for a in call.history if a.outcome in (None, AttemptOutcome.UNKNOWN) and a.n > word]


def vouched(call: Call) -> int:
    """Up to which attempt a person said that it did not happen."""
    resolved = call.resolved or {}
    return int(resolved["attempts"]) if resolved.get("outcome") == "did_not_happen" else 0


def doubt(draft: Draft, call: Call, *, since: datetime, reason: str) -> None:
    """Park the call. `since` is when its sender was silent; what had left by then may take effect for settle_time."""
    before = call.state
    call.not_before = since + timedelta(milliseconds=call.settle_ms)
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
