"""What an attempt's outcome means for its call: on time, or late. The effect class decides.

Certainty belongs to the attempt, the decision to the call: a call is `failed` only if every attempt definitely did
not happen; what cannot be known is `in_doubt` and parked, never guessed. A success settles the call however late it
arrives; a late failure settles nothing while another attempt is uncertain.
"""

from __future__ import annotations

from datetime import timedelta

from app.domain import calling, concluding, doubting, evidence, recovery
from app.domain.aggregate import Attempt, Call
from app.domain.facts import CallSettled, IllegalTransition
from app.domain.outcomes import Failure, Outcome
from app.domain.states import AttemptOutcome, CallKind, CallState, DueKind, EffectClass, FailureKind
from app.domain.transition import Draft


def settle(draft: Draft, fact: CallSettled) -> None:
    call = draft.call(fact.call_id)
    attempt = call.attempt(fact.attempt_id)
    if attempt is None:
        raise IllegalTransition(f"attempt {fact.attempt_id} is not one of call {fact.call_id}")
    at_fence = call.attempt_id == attempt.id and call.state == CallState.INTENDED
    if fact.kept:
        draft.clear_due(DueKind.APPLY, call.id)
    elif attempt.outcome is not None and not at_fence:
        return  # told twice: an outcome is written once
    if attempt.outcome is None:
        evidence.write(draft, call, attempt, fact.outcome)
    if at_fence:
        call.lost_in_a_row = 0
        _on_time(draft, call, attempt, fact.outcome)
    else:
        _late(draft, call, attempt, fact.outcome)


def keep(draft: Draft, fact: CallSettled) -> None:
    """Evidence alone, without a decision: for the day when deciding fails."""
    call = draft.call(fact.call_id)
    attempt = call.attempt(fact.attempt_id)
    if attempt is not None and attempt.outcome is None:
        evidence.write(draft, call, attempt, fact.outcome)


def _on_time(draft: Draft, call: Call, attempt: Attempt, outcome: Outcome) -> None:
    failure = outcome.failure
    match outcome.certainty:
        case AttemptOutcome.SUCCEEDED:
            concluding.succeed(draft, call, attempt, evidence.result_of(call, outcome))
        case AttemptOutcome.NOT_SENT if failure is not None:
            _again_or(draft, call, attempt, failure, new_generation=False)
        case AttemptOutcome.FAILED if failure is not None:
            executed_nothing = failure.kind is FailureKind.RATE_LIMITED
            _again_or(draft, call, attempt, failure, new_generation=not executed_nothing)
        case AttemptOutcome.UNKNOWN if failure is not None:
            _unknown(draft, call, attempt, failure)


def _unknown(draft: Draft, call: Call, attempt: Attempt, failure: Failure) -> None:
    """The request may have taken effect. Only a class that says repeating is safe is repeated."""
    if repeatable(draft, call):
        _again_or(draft, call, attempt, failure, new_generation=False)
    else:
        doubting.doubt(draft, call, since=draft.now, reason=failure.message)


def repeatable(draft: Draft, call: Call) -> bool:
    match call.effect:
        case EffectClass.READ_ONLY | EffectClass.IDEMPOTENT:
            return True
        case EffectClass.KEYED:
            needed = draft.now + timedelta(milliseconds=call.timeout_ms)
            return call.key_deadline is None or needed <= call.key_deadline
        case _:
            return False


def _again_or(draft: Draft, call: Call, attempt: Attempt, failure: Failure, *, new_generation: bool) -> None:
    """The same bytes again if a policy allows; else the call fails, or is in doubt if an attempt may have happened."""
    step = concluding.step_of(draft, call)
    harmless = call.effect == EffectClass.READ_ONLY
    maybe_done = [] if harmless else doubting.uncertain(call)
    if concluding.stopped(draft, call) and not maybe_done:
        concluding.cancel(draft, call, failure)
        return
    fenced = failure.kind is FailureKind.WORKER_LOST
    tries = call.tries.get(failure.kind, 0)
    retry = recovery.next_try(step, failure, tries=tries, attempt_id=attempt.id)
    if fenced:
        draft.move_call(call, CallState.DUE)  # the worker stopped itself before sending: nobody's failure
    elif retry is not None and not (new_generation and maybe_done):
        call.tries = {**call.tries, failure.kind: tries + 1}
        if new_generation:
            calling.next_generation(call)
        record = recovery.record(
            failure.kind, retry.policy, change=None, waited=retry.delay, message=failure.message, used=retry.used
        )
        call.recovery = [*call.recovery, {**record, "attempt": attempt.n}]
        draft.workflow.retries += 1
        draft.move_call(call, CallState.DUE, delay=retry.delay)
        draft.event(
            "agent.step.retried",
            call=call,
            attempt=attempt.id,
            moved=(CallState.INTENDED, CallState.DUE),
            data={
                "kind": failure.kind,
                "rule": record["rule"],
                "change": None,
                "delay_ms": record["waited_ms"],
            },
        )
    elif maybe_done:
        doubting.doubt(draft, call, since=draft.now, reason=failure.message)
    else:
        concluding.fail(draft, call, failure)


def _late(draft: Draft, call: Call, attempt: Attempt, outcome: Outcome) -> None:
    state = CallState(call.state)
    if state.final:
        _contradiction(draft, call, attempt, outcome)
        return
    alone = not [a for a in doubting.uncertain(call) if a is not attempt]
    failure = outcome.failure
    match outcome.certainty:
        case AttemptOutcome.SUCCEEDED:
            call.attempt_id = attempt.id  # revokes a repeat that was not sent yet
            if attempt.n <= doubting.vouched(call):
                _contradicted(draft, call, attempt, outcome, settled="did_not_happen")
            if state is CallState.IN_DOUBT:
                draft.event(
                    "effect.resolved",
                    call=call,
                    attempt=attempt.id,
                    moved=(state, CallState.SUCCEEDED),
                    data={"outcome": "happened", "by": "late evidence", "note": "The answer arrived after all."},
                )
                doubting.clear(draft, call)
            concluding.succeed(draft, call, attempt, evidence.result_of(call, outcome))
        case AttemptOutcome.NOT_SENT | AttemptOutcome.FAILED if alone and state is not CallState.INTENDED and failure:
            if state is CallState.IN_DOUBT:
                draft.event(
                    "effect.resolved",
                    call=call,
                    attempt=attempt.id,
                    moved=(state, CallState.DUE),
                    data={"outcome": "did_not_happen", "by": "late evidence", "note": failure.message},
                )
                doubting.clear(draft, call)
            call.failure = None
            _again_or(draft, call, attempt, failure, new_generation=outcome.certainty is AttemptOutcome.FAILED)
        case AttemptOutcome.UNKNOWN if state is CallState.IN_DOUBT:
            quarantine = draft.now + timedelta(milliseconds=call.settle_ms)
            call.not_before = max(call.not_before or quarantine, quarantine)
            draft.touch_call(call)
        case _:
            draft.touch_call(call)  # evidence only


def _contradiction(draft: Draft, call: Call, attempt: Attempt, outcome: Outcome) -> None:
    """After a verdict or a final state evidence changes nothing, and is never silent."""
    if call.effect == EffectClass.READ_ONLY or call.kind == CallKind.MODEL:
        return
    match outcome.certainty:
        case AttemptOutcome.SUCCEEDED:
            contradicts = call.state != CallState.SUCCEEDED or attempt.n <= doubting.vouched(call)
        case AttemptOutcome.FAILED | AttemptOutcome.NOT_SENT:
            by_word = call.resolved is not None and call.resolved.get("outcome") == "happened"
            contradicts = by_word and not doubting.uncertain(call)
        case _:
            contradicts = False
    if contradicts:
        _contradicted(draft, call, attempt, outcome, settled=call.state)


def _contradicted(draft: Draft, call: Call, attempt: Attempt, outcome: Outcome, *, settled: str) -> None:
    draft.event(
        "effect.contradicted", call=call, attempt=attempt.id, data={"settled": settled, "evidence": outcome.certainty}
    )
    draft.attend("contradicted", tool=call.tool)
