"""A call comes to its end: succeeded, failed, or not needed any more; and its step is told."""

from __future__ import annotations

from app.domain import discovering, ending, gating, turns, undoing
from app.domain.aggregate import Attempt, Call, StepRow
from app.domain.facts import CompensationEnded, ProbeEnded, name_of
from app.domain.outcomes import JSON, Failure
from app.domain.plan import Step
from app.domain.states import AttemptOutcome, CallKind, CallState, EffectClass, StepKind, WorkflowStatus
from app.domain.transition import Draft


def succeed(draft: Draft, call: Call, attempt: Attempt | None, result: JSON) -> None:
    call.failure = None
    if call.kind in (CallKind.PROBE, CallKind.COMPENSATION):
        _tell_target(draft, call, output=result, attempt=attempt)
        return
    if call.effect != EffectClass.READ_ONLY:
        draft.workflow.effects_done += 1
        if call.effect == EffectClass.KEYED:
            draft.workflow.duplicates_prevented += len([a for a in call.uncertain if a is not attempt])
    row = draft.step(call.step)
    if call.kind == CallKind.MODEL:
        turns.answered(draft, row, call, attempt, result)
        return
    if call.kind == CallKind.DISCOVER:
        discovering.listed(draft, row, call, result)
        return
    draft.move_call(call, CallState.SUCCEEDED)
    close_records(call, "succeeded")
    undoing.record(draft, call, result)
    give(draft, row, call, result)


def give(draft: Draft, row: StepRow, call: Call, result: JSON) -> None:
    """The call's result goes to its step: an agent's turn goes on, a tool step ends."""
    if _untrusted(draft, call):
        gating.taint(draft, row)
    if row.kind == StepKind.AGENT:
        call.result = result
        turns.go_on(draft, row)
    elif row.counters.get("timed_out"):
        call.result = result  # the step fails without an output; who is attached to this effect has its result
        ending.call_gone(draft, row)
    else:
        ending.succeed_step(draft, row, output=result)


def _untrusted(draft: Draft, call: Call) -> bool:
    tool = None if call.tool is None else draft.plan.tools.get(call.tool)
    return tool is not None and not tool.trusted_output


def _answered(call: Call) -> bool:
    return any(attempt.outcome == AttemptOutcome.FAILED for attempt in call.history)


def _tell_target(
    draft: Draft, call: Call, *, output: JSON = None, failure: str | None = None, attempt: Attempt | None = None
) -> None:
    """A probe's or a compensation's end is about another call: what it means there is decided next."""
    if call.target is None:
        raise ValueError(f"{call.kind} {call.id} is about no call")
    if failure is None:
        draft.move_call(call, CallState.SUCCEEDED)
        close_records(call, "succeeded")
    if call.kind == CallKind.PROBE:
        asked_at = None if attempt is None else attempt.intended_at
        draft.then(ProbeEnded(call_id=call.target, step=call.step, output=output, failure=failure, asked_at=asked_at))
    else:
        call.result = output
        draft.then(CompensationEnded(call_id=call.target, step=call.step, failure=failure))


def fail(draft: Draft, call: Call, failure: Failure) -> None:
    call.failure = {**failure.to_json()}
    draft.move_call(call, CallState.FAILED)
    draft.transition.keys_released.append(call.id)
    close_records(call, "failed")
    if call.kind == CallKind.TOOL and _untrusted(draft, call) and _answered(call):
        gating.taint(draft, draft.step(call.step))  # why it failed is the tool's word, too
    tell_step(draft, call, failure)


def cancel(draft: Draft, call: Call, failure: Failure) -> None:
    """Nothing happened and nobody needs it any more."""
    call.failure = {**failure.to_json()}
    before = call.state
    draft.move_call(call, CallState.CANCELLED)
    draft.transition.keys_released.append(call.id)
    close_records(call, "cancelled")
    told = before in (CallState.IN_DOUBT, CallState.PROBING)  # with the doubt that late evidence has settled
    draft.event(
        "effect.call.changed",
        call=call,
        moved=(None, None) if told else (before, CallState.CANCELLED),
        data={"reason": "not needed any more"},
    )
    ending.call_gone(draft, draft.step(call.step))


def tell_step(draft: Draft, call: Call, failure: Failure) -> None:
    if call.kind in (CallKind.PROBE, CallKind.COMPENSATION):
        _tell_target(draft, call, failure=failure.message)
        return
    row = draft.step(call.step)
    if row.counters.get("timed_out"):
        ending.call_gone(draft, row)
    elif row.kind == StepKind.AGENT and call.kind == CallKind.TOOL:
        turns.tool_failed(draft, row, call, failure)
    elif call.kind == CallKind.MODEL:
        turns.model_failed(draft, row, call, failure)
    else:
        ending.fail_step(draft, row, failure, call=call)


def close_records(call: Call, result: str) -> None:
    call.recovery = [{**r, "result": r["result"] or result} for r in call.recovery]


def stopped(draft: Draft, call: Call) -> bool:
    """Nothing new is started for this call: its workflow drains, or its step ran out of time."""
    if call.kind in (CallKind.PROBE, CallKind.COMPENSATION):
        return False
    row = draft.step(call.step)
    return WorkflowStatus(draft.workflow.status).ending or bool(row.counters.get("timed_out"))


def step_of(draft: Draft, call: Call) -> Step:
    return draft.plan.steps[name_of(call.step)]
