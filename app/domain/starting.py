"""How a step begins: its needs are met, the skip rule, its condition; then its items or its kind.

Inputs freeze once, here, in the transition that makes the call.
"""

from __future__ import annotations

from app.domain import bindings, ending, expressions, gating, ids, items, kinds
from app.domain.aggregate import StepRow
from app.domain.facts import StepEnded, StepReady
from app.domain.outcomes import JSON
from app.domain.plan import Step
from app.domain.states import DueKind, StepState, WorkflowStatus
from app.domain.transition import Draft, Due


def count_down(draft: Draft, fact: StepEnded) -> None:
    """A step is final: who waits for it has one unmet need less."""
    for name in draft.plan.steps[fact.step].dependents:
        dependent = draft.step(name)
        dependent.unmet_needs -= 1
        draft.touch(dependent)
        if dependent.unmet_needs == 0 and dependent.state == StepState.PENDING:
            draft.then(StepReady(step=name))


def begin(draft: Draft, fact: StepReady) -> None:
    row = draft.step(fact.step)
    step = draft.plan.steps[fact.step]
    if WorkflowStatus(draft.workflow.status).ending or row.state != StepState.PENDING:
        return
    try:
        if _unneeded(draft, step):
            ending.skip_step(draft, row, because="a step it needs was skipped")
            return
        seen = bindings.seen_by(draft, step.needs, row)
        if step.condition is not None and not _holds(step.condition.evaluate(seen), step):
            ending.skip_step(draft, row, because="its condition is false")
            return
        if step.title is not None and step.for_each is None:
            row.title = str(step.title.render(seen))
        draft.move_step(row, StepState.RUNNING)
        gating.inherit(draft, row, step)
        arm_timeout(draft, row, step)
        if step.for_each is not None:
            items.begin_items(draft, row, step, seen)
        else:
            kinds.begin_kind(draft, row, step, seen)
    except expressions.ExpressionError as error:
        kinds.expression_failed(draft, row, error)


def _holds(value: JSON, step: Step) -> bool:
    """A condition is true or false: anything else is a mistake, not a no."""
    if not isinstance(value, bool):
        raise expressions.ExpressionError(
            f"`if` of {step.id} is not true or false but {type(value).__name__}", fix="Compare it: `if: x == 'yes'`."
        )
    return value


def _unneeded(draft: Draft, step: Step) -> bool:
    """The skip rule: a skipped need skips, unless the condition mentions it."""
    asked_about = step.condition.steps if step.condition is not None else frozenset()
    return any(draft.step(need).state == StepState.SKIPPED and need not in asked_about for need in step.needs)


def arm_timeout(draft: Draft, row: StepRow, step: Step) -> None:
    """A step begins, or goes on after a reopening: its time runs from here. Items have their parent's."""
    if step.timeout is not None and row.parent is None:
        at = draft.now + step.timeout
        ref = ids.derived("step_timeout", str(row.workflow_id), row.path)
        draft.set_due(Due(kind=DueKind.STEP_TIMEOUT, ref=ref, due_at=at, ring_at=at, note=row.path))
