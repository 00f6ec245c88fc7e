"""May the same bytes be sent again? The effect class says whether it is safe, a policy whether it is wanted.

again_or     again if a policy allows; else the call fails, or is parked if an attempt may have happened
leads_to     what `again_or` makes of a call of which nothing happened, for whoever tells it beforehand
repeatable   whether the class allows a repeat after an unknown outcome
park         not to be repeated: probed, in doubt or given up, and its step told
"""

from __future__ import annotations

from datetime import datetime, timedelta

from app.domain import calling, concluding, dependencies, doubting, parking, recovery
from app.domain.aggregate import Attempt, Call
from app.domain.outcomes import Failure
from app.domain.recovery import Retry
from app.domain.states import CallState, EffectClass, FailureKind
from app.domain.transition import Draft


def executed_nothing(failure: Failure) -> bool:
    """Answered, but not acted upon (429, or declared so): the same key goes again."""
    return failure.kind is FailureKind.RATE_LIMITED or bool(failure.detail.get("not_executed"))


def repeatable(draft: Draft, call: Call) -> bool:
    match call.effect:
        case EffectClass.READ_ONLY | EffectClass.IDEMPOTENT:
            return True
        case EffectClass.KEYED:
            needed = draft.now + timedelta(milliseconds=call.timeout_ms)
            return call.key_deadline is None or needed <= call.key_deadline
        case _:
            return False


def park(draft: Draft, call: Call, *, since: datetime, reason: str) -> None:
    """Not to be repeated. If it is given up by declaration its step is told."""
    parking.park(draft, call, since=since, reason=reason)
    if call.state == CallState.ABANDONED:
        concluding.close_records(call, "abandoned")
        concluding.tell_step(draft, call, doubting.given_up(call))


def leads_to(draft: Draft, call: Call, attempt: Attempt, failure: Failure) -> CallState:
    """Of a call of which no attempt may have happened: where `again_or` is about to move it."""
    if concluding.stopped(draft, call):
        return CallState.CANCELLED
    if _fenced(failure):
        return draft.due_state(call)
    if _next_try(draft, call, attempt, failure) is not None:
        return dependencies.repeats_as(draft, call)
    return CallState.FAILED


def again_or(draft: Draft, call: Call, attempt: Attempt, failure: Failure, *, new_generation: bool) -> None:
    """The same bytes again if a policy allows; else the call fails, or is in doubt if an attempt may have happened."""
    harmless = call.effect == EffectClass.READ_ONLY
    maybe_done = not harmless and bool(call.uncertain or call.lost_past)
    retry = _next_try(draft, call, attempt, failure)
    if concluding.stopped(draft, call) and not maybe_done:
        concluding.cancel(draft, call, failure)
    elif _fenced(failure):
        # The worker stopped itself before sending: nobody's failure.
        draft.move_call(call, CallState.DUE, delay=failure.retry_after or timedelta(0))
    elif retry is not None and not (new_generation and maybe_done):
        _again(draft, call, attempt, failure, retry, new_generation=new_generation)
    elif maybe_done:
        park(draft, call, since=draft.now, reason=failure.message)
    elif not dependencies.park(draft, call, failure):
        concluding.fail(draft, call, failure)


def _fenced(failure: Failure) -> bool:
    return failure.kind is FailureKind.WORKER_LOST


def _next_try(draft: Draft, call: Call, attempt: Attempt, failure: Failure) -> Retry | None:
    step = concluding.step_of(draft, call)
    return recovery.next_try(step, failure, tries=call.tries.get(failure.kind, 0), attempt_id=attempt.id)


def _again(draft: Draft, call: Call, attempt: Attempt, failure: Failure, retry: Retry, *, new_generation: bool) -> None:
    call.tries = {**call.tries, failure.kind: retry.used}
    if new_generation:
        calling.next_generation(call)
    record = recovery.record(
        failure.kind, retry.policy, change=None, waited=retry.delay, message=failure.message, used=retry.used
    )
    call.recovery = [*call.recovery, {**record, "attempt": attempt.n}]
    draft.workflow.retries += 1
    before = call.state
    dependencies.repeat(draft, call, delay=retry.delay)
    # Late, the move is told with the doubt it settles, or there is none: it waited to be repeated already.
    told = before in (CallState.IN_DOUBT, CallState.PROBING) or before == call.state
    draft.event(
        "agent.step.retried",
        call=call,
        attempt=attempt.id,
        moved=(None, None) if told else (before, call.state),
        data={"kind": failure.kind, "rule": record["rule"], "change": None, "delay_ms": record["waited_ms"]},
    )
