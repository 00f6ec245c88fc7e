"""An operator ends a step by hand (skip, complete, fail), or does not wait for its next try (retry-now).

Only what no attempt may have reached is ended by hand: a call that is in flight or in doubt is settled first, because
a step that is "skipped" while its effect happens would be a guess.
"""

from __future__ import annotations

from app.domain import ending, gating
from app.domain.aggregate import Call, StepRow
from app.domain.facts import StepOperated, name_of
from app.domain.outcomes import Failure
from app.domain.states import CallState, EffectClass, FailureKind, HeldReason, StepState
from app.domain.transition import Draft

RELEASABLE = frozenset({HeldReason.POISONED})
"""Held calls that `retry-now` sets free; the others wait for their own answer."""


def calls_of(draft: Draft, path: str) -> list[Call]:
    """The step's calls that are not final, its items' included."""
    return [
        call
        for call in draft.snapshot.calls.values()
        if (call.step == path or call.step.startswith(f"{path}.")) and not CallState(call.state).final
    ]


def in_the_way(call: Call) -> bool:
    """Whether the step cannot be ended by hand before this call is settled."""
    lost_past = call.lost_past and call.effect != EffectClass.READ_ONLY
    unsettled = CallState(call.state) in (CallState.INTENDED, CallState.PROBING, CallState.IN_DOUBT)
    return call.maybe_done or lost_past or unsettled


def retryable(call: Call) -> bool:
    return call.state == CallState.DUE or (call.state == CallState.HELD and call.held_reason in RELEASABLE)


def operate(draft: Draft, fact: StepOperated) -> None:
    row = draft.step(fact.step)
    if StepState(row.state).final:
        return
    data = {"action": fact.action, "by": fact.by, "note": fact.note}
    draft.event("agent.step.operated", step=row.path, data=data)
    draft.audit(
        f"step.{fact.action}", by=fact.by, object=f"{ending.shown_id(draft)}/{row.path}", data={"note": fact.note}
    )
    if fact.action == "retry-now":
        _retry_now(draft, row)
        return
    _clear(draft, row)
    _attend_no_more(draft)
    match fact.action:
        case "skip":
            ending.skip_step(draft, row, because=f"{fact.by} skipped it")
        case "complete":
            gating.clean(draft, row)
            ending.succeed_step(draft, row, output=fact.output)
        case _:
            failure = Failure(
                kind=FailureKind.CANCELLED,
                message=f"{fact.by} ended the step: {fact.note or 'no reason was given'}",
                fix="If nothing was undone, POST …/retry goes on from this step.",
            )
            ending.fail_step(draft, row, failure)


def _retry_now(draft: Draft, row: StepRow) -> None:
    for call in calls_of(draft, row.path):
        if retryable(call):
            before = call.state
            call.lost_in_a_row = 0
            draft.move_call(call, CallState.DUE)
            if before != call.state:
                draft.event("effect.call.changed", call=call, moved=(before, call.state), data={"reason": "retry-now"})
    _attend_no_more(draft)


def _attend_no_more(draft: Draft) -> None:
    if not draft.workflow.held:
        draft.unattend("poisoned")


def _clear(draft: Draft, row: StepRow) -> None:
    """Whatever of the step waits, and is not needed any more."""
    for call in calls_of(draft, row.path):
        ending.drain_call(draft, call)
    for approval in list(draft.snapshot.approvals.values()):
        if approval.step == row.path or name_of(approval.step) == row.path:
            ending.close_approval(draft, approval.id)
    if row.items_total is None:
        return
    ending.cancel_items(draft, row)
    for item in draft.snapshot.steps.values():
        if item.parent == row.path and item.state in (StepState.RUNNING, StepState.WAITING):
            before = item.state
            draft.move_step(item, StepState.CANCELLED)
            draft.event("agent.step.cancelled", step=item.path, moved=(before, StepState.CANCELLED))
            row.items_open = (row.items_open or 0) - 1
