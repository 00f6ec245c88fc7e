"""A call comes to its end: succeeded, failed, or not needed any more; and its step is told."""

from __future__ import annotations

from app.domain import doubting, ending, turns
from app.domain.aggregate import Attempt, Call
from app.domain.facts import name_of
from app.domain.outcomes import JSON, Failure
from app.domain.plan import Step
from app.domain.states import CallKind, CallState, EffectClass, StepKind, WorkflowStatus
from app.domain.transition import Draft


def succeed(draft: Draft, call: Call, attempt: Attempt | None, result: JSON) -> None:
    call.failure = None
    if call.effect != EffectClass.READ_ONLY:
        draft.workflow.effects_done += 1
        if call.effect == EffectClass.KEYED:
            draft.workflow.duplicates_prevented += len([a for a in doubting.uncertain(call) if a is not attempt])
    row = draft.step(call.step)
    if call.kind == CallKind.MODEL:
        turns.answered(draft, row, call, attempt, result)
        return
    draft.move_call(call, CallState.SUCCEEDED)
    close_records(call, "succeeded")
    if row.kind == StepKind.AGENT:
        call.result = result
        turns.go_on(draft, row)
    elif row.counters.get("timed_out"):
        ending.call_gone(draft, row)
    else:
        ending.succeed_step(draft, row, output=result)


def fail(draft: Draft, call: Call, failure: Failure) -> None:
    call.failure = {**failure.to_json()}
    draft.move_call(call, CallState.FAILED)
    draft.transition.keys_released.append(call.id)
    close_records(call, "failed")
    tell_step(draft, call, failure)


def cancel(draft: Draft, call: Call, failure: Failure) -> None:
    """Nothing happened and nobody needs it any more."""
    call.failure = {**failure.to_json()}
    draft.move_call(call, CallState.CANCELLED)
    draft.transition.keys_released.append(call.id)
    close_records(call, "cancelled")
    draft.event(
        "effect.call.changed",
        call=call,
        moved=(CallState.INTENDED, CallState.CANCELLED),
        data={"reason": "not needed any more"},
    )
    ending.call_gone(draft, draft.step(call.step))


def tell_step(draft: Draft, call: Call, failure: Failure) -> None:
    row = draft.step(call.step)
    if row.counters.get("timed_out"):
        ending.call_gone(draft, row)
    elif row.kind == StepKind.AGENT and call.kind == CallKind.TOOL:
        turns.go_on(draft, row)
    else:
        ending.fail_step(draft, row, failure, call=call)


def close_records(call: Call, result: str) -> None:
    call.recovery = [{**r, "result": r["result"] or result} for r in call.recovery]


def stopped(draft: Draft, call: Call) -> bool:
    """Nothing new is started for this call: its workflow drains, or its step ran out of time."""
    row = draft.step(call.step)
    return WorkflowStatus(draft.workflow.status).draining or bool(row.counters.get("timed_out"))


def step_of(draft: Draft, call: Call) -> Step:
    return draft.plan.steps[name_of(call.step)]
