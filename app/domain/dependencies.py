"""What a call does about what it calls: a tool of its tenant, a model under a worker's credential.

    scope_of, parking_scope   the name of a dependency, as in `breakers` and `limits`
    verdict                   what an outcome says about it
    heed                      what was known of it when an outcome was recorded, for the decision about that outcome
    repeat                    the same bytes again, but not before the breaker and the retry budget allow it
    park                      a credential that is not accepted, a spending limit: held, and never a failure
    down, looked              found shut when it was to be claimed; and let go again

Held is only what no attempt may have reached. A call that may have happened already is in flight: it stays due, and
only its next attempt is put off, so that a cancel meanwhile makes no doubt of it. Probes and compensations wait, too:
a tool that does not answer would only use up their tries, and is spared the more.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from app.domain import recovery
from app.domain.aggregate import Call
from app.domain.bindings import instant
from app.domain.breakers import PARKED_FOR, Advice, Verdict
from app.domain.changes import Due
from app.domain.dependency_facts import DependencyDown, DependencyLooked
from app.domain.facts import CallSettled
from app.domain.outcomes import Failure, Outcome
from app.domain.plan import RetryPolicy
from app.domain.states import AttemptOutcome, CallKind, CallState, DueKind, FailureKind, HeldReason
from app.domain.transition import Draft

SHARED: Final = UUID(int=0)
"""Whose models are: a credential belongs to the workers, and so to every tenant."""
NO_CREDENTIAL: Final = "none"
ADMITTED: Final = "admitted"
"""Note on the due of a call that a sweep has let through: what it takes of a rate limit is counted already."""

PARKS: Final = {FailureKind.AUTH: "credential_refused", FailureKind.SPEND_LIMITED: "spend_limited"}
"""Failures of a model call that waiting does not heal and that are not the workflow's: what needs attention."""

_ITS_FAULT: Final = frozenset(
    {FailureKind.OVERLOADED, FailureKind.SERVER_ERROR, FailureKind.TIMEOUT, FailureKind.NETWORK}
)
_OURS: Final = frozenset({FailureKind.WORKER_LOST, FailureKind.CANCELLED, FailureKind.INTERNAL})
"""Said by us, and nothing about the other side."""
_SERVER_ERRORS: Final = range(500, 600)
_TOO_SLOW: Final = 408
_SPREAD: Final = 0.2
"""Share of a pause over which those that wait for its end are spread."""
BREAKER: Final = "breaker"
RATE_LIMIT: Final = "rate_limit"
RETRY_BUDGET: Final = "retry_budget"
"""Rules of recovery records: what decided."""


def scope_of(*, kind: str, tool: str | None, model: str | None, credential: str) -> str | None:
    """`tool:crm.search`, `model:1f2e3d4c/claude-haiku-5-5`; None: it calls nothing that has a name."""
    if kind == CallKind.MODEL:
        return None if model is None else f"model:{credential}/{model}"
    return None if tool is None else f"tool:{tool}"


def parking_scope(scope: str, failure: Failure) -> str:
    """403 speaks of one model, everything else of the whole credential."""
    return scope if failure.status_code == 403 else f"{scope.partition('/')[0]}/*"


def verdict(kind: str, outcome: Outcome) -> Verdict:
    failure = outcome.failure
    if failure is None or outcome.pending:
        return Verdict.ANSWERED
    if kind == CallKind.MODEL and failure.kind in PARKS:
        return Verdict.REFUSED
    if failure.kind in _OURS:
        return Verdict.NOTHING
    status = outcome.status_code or failure.status_code
    answered = status is not None and status not in _SERVER_ERRORS and status != _TOO_SLOW
    if failure.kind in _ITS_FAULT and not (answered and kind != CallKind.MODEL):
        return Verdict.FAILED
    return Verdict.NOTHING if outcome.certainty is AttemptOutcome.NOT_SENT else Verdict.ANSWERED


def heed(draft: Draft, fact: CallSettled) -> None:
    if fact.advice is not None:
        draft.advice[fact.call_id] = fact.advice
    if fact.outcome.failure is None and draft.call(fact.call_id).kind == CallKind.MODEL:
        for what in PARKS.values():
            if what in draft.workflow.attention:
                draft.unattend(what)


def repeats_as(draft: Draft, call: Call) -> CallState:
    """Where `repeat` is about to move a call of which no attempt may have happened."""
    return CallState.HELD if _shut(draft, draft.advice.get(call.id)) is not None else draft.due_state(call)


def _shut(draft: Draft, advice: Advice | None) -> datetime | None:
    until = None if advice is None else advice.shut_until
    return None if until is None or until <= draft.now else until


def repeat(draft: Draft, call: Call, *, delay: timedelta) -> None:
    """Due again after `delay`: later, or held, if what it calls is in trouble."""
    advice = draft.advice.get(call.id)
    if advice is None:
        draft.move_call(call, CallState.DUE, delay=delay)
    elif (until := _shut(draft, advice)) is not None:
        kind = FailureKind(call.recovery[-1]["kind"]) if call.recovery else FailureKind.NETWORK
        _stand_back(draft, call, scope=advice.scope, kind=kind, reason=advice.reason, until=until)
    else:
        if advice.wait > timedelta(0):
            _note(draft, call, rule=RETRY_BUDGET, kind=None, waited=advice.wait, message=_spent(advice.scope))
        draft.move_call(call, CallState.DUE, delay=delay + advice.wait)


def _spent(scope: str) -> str:
    return f"The retry budget of {scope} was used up: repeats wait, so that an outage is not made worse by them."


def park(draft: Draft, call: Call, failure: Failure) -> bool:
    """Whether the failure is one that an operator mends, and the call waits for that."""
    if call.kind != CallKind.MODEL or failure.kind not in PARKS:
        return False
    advice = draft.advice.get(call.id)
    scope = f"model:{NO_CREDENTIAL}/*" if advice is None else advice.scope
    until = None if advice is None else advice.shut_until
    before = call.state
    call.failure = failure.to_json()
    _stand_back(
        draft, call, scope=scope, kind=failure.kind, reason=failure.message, until=until or draft.now + PARKED_FOR
    )
    _told(draft, call, before, reason=f"{BREAKER}: {failure.message}")
    _attend(draft, failure.kind)
    return True


def down(draft: Draft, fact: DependencyDown) -> None:
    """Found when it was to be claimed: nothing of it leaves now."""
    call = draft.call(fact.call_id)
    if call.state != CallState.DUE:
        return
    before, rule = call.state, RATE_LIMIT if fact.quota else BREAKER
    kind = FailureKind(fact.kind)
    _stand_back(draft, call, scope=fact.scope, kind=kind, reason=fact.reason, until=fact.until, quota=fact.quota)
    _told(draft, call, before, reason=f"{rule}: {fact.reason}")
    _attend(draft, kind)


def looked(draft: Draft, fact: DependencyLooked) -> None:
    call = draft.call(fact.call_id)
    if call.state != CallState.HELD or call.held_reason not in (HeldReason.BREAKER, HeldReason.QUOTA):
        return
    why = RATE_LIMIT if call.held_reason == HeldReason.QUOTA else BREAKER
    draft.move_call(call, CallState.DUE)
    due = draft.transition.dues.get((DueKind.CALL, call.id))
    if call.state == CallState.DUE and due is not None:
        draft.set_due(replace(due, note=ADMITTED))
    _told(draft, call, CallState.HELD, reason=f"{why}: let go")


def _stand_back(
    draft: Draft, call: Call, *, scope: str, kind: FailureKind, reason: str, until: datetime, quota: bool = False
) -> None:
    """Held until a sweep lets it go; in flight, it is only put off."""
    rule = RATE_LIMIT if quota else BREAKER
    _note(draft, call, rule=rule, kind=kind, waited=max(until - draft.now, timedelta(0)), message=reason)
    if call.maybe_done or call.lost_past:
        pause = max(until - draft.now, timedelta(0))
        draft.move_call(call, CallState.DUE, delay=pause + pause * (_SPREAD * recovery.jitter(call.id)))
        return
    draft.move_call(call, CallState.HELD, held=HeldReason.QUOTA if quota else HeldReason.BREAKER)
    # Its place in the line is since when it waits; when it is looked at is the sweep's, which lets few go at once.
    draft.set_due(
        Due(kind=DueKind.DEPENDENCY, ref=call.id, due_at=draft.now, ring_at=until, lane=call.lane, note=scope)
    )


def _told(draft: Draft, call: Call, before: str, *, reason: str) -> None:
    """An event of its own, where no attempt's tells it."""
    moved = (None, None) if before == call.state else (before, call.state)
    draft.event("effect.call.changed", call=call, moved=moved, data={"reason": reason})


def _attend(draft: Draft, kind: FailureKind) -> None:
    what = PARKS.get(kind)
    if what is not None and what not in draft.workflow.attention:
        draft.attend(what)


def _note(draft: Draft, call: Call, *, rule: str, kind: FailureKind | None, waited: timedelta, message: str) -> None:
    """A recovery record; of an outage that lasts one record, however often the call was put off."""
    last = call.recovery[-1] if call.recovery else None
    if last is not None and last["rule"] == rule and last["result"] is None:
        more = {"used": last["used"] + 1, "message": message}
        more["waited_ms"] = last["waited_ms"] + int(waited.total_seconds() * 1000)
        call.recovery = [*call.recovery[:-1], {**last, **more}]
    else:
        why = kind or (FailureKind(last["kind"]) if last is not None else FailureKind.NETWORK)
        policy = RetryPolicy(max_retries=0, rule=rule)
        record = recovery.record(why, policy, change=None, waited=waited, message=message, used=1)
        call.recovery = [*call.recovery, {**record, "until": instant(draft.now + waited), "attempt": call.attempts}]
    draft.touch_call(call)
