"""Retry: a workflow that failed or was cancelled goes on with what did not succeed. What succeeded stays.

Allowed while nothing was undone and no effect was given up: the engine (`app/engine/retry.py`) says no otherwise. A
step that had not begun waits for its needs again; one that had begun goes on where it stopped: the same arguments as a
new call with a new generation of its key, the same conversation with a new model call.
"""

from __future__ import annotations

from typing import Final

from app.domain import (
    disabling,
    discovering,
    ending,
    estimating,
    gating,
    items,
    kinds,
    starting,
    turning,
    turns,
    undoing,
)
from app.domain.aggregate import Call, StepRow
from app.domain.facts import RetryRequested, StepReady, StepReopened, StepsDone, name_of
from app.domain.plan import Step
from app.domain.states import CallKind, CallState, DueKind, StepKind, StepState, WorkflowStatus
from app.domain.transition import Draft, Due

_REOPENED: Final = (StepState.FAILED, StepState.CANCELLED)
_KEPT: Final = (gating.TAINTED, undoing.UNDO, *estimating.WEIGHED)
"""Counters of a step that outlive its failure."""


def reopen(draft: Draft, fact: RetryRequested) -> None:
    workflow = draft.workflow
    before = workflow.status
    ending.release_hold(draft)
    workflow.saga = workflow.compensation = None
    workflow.failure = workflow.cancel = workflow.output = workflow.ended_at = None
    draft.move_workflow(WorkflowStatus.RUNNING)
    draft.event("workflow.reopened", moved=(before, WorkflowStatus.RUNNING), data={"by": fact.by, "note": fact.note})
    draft.audit("workflow.retry", by=fact.by, object=ending.shown_id(draft), data={"note": fact.note})
    _new_deadline(draft)
    disabling.give_back(draft)
    top = [row for row in draft.snapshot.steps.values() if row.parent is None]
    for row in top:
        if row.state in _REOPENED and not _tolerated(draft, row):
            _reopen_step(draft, row)
    workflow.steps_open = sum(not StepState(row.state).final for row in top)
    if not workflow.steps_open:
        draft.then(StepsDone())  # every step had ended: it was the output that could not be built


def _new_deadline(draft: Draft) -> None:
    """As much time again as the submission had."""
    workflow = draft.workflow
    began = workflow.reopened_at or workflow.created_at
    workflow.deadline_at, workflow.reopened_at = draft.now + (workflow.deadline_at - began), draft.now
    at = workflow.deadline_at
    draft.set_due(Due(kind=DueKind.DEADLINE, ref=workflow.id, due_at=at, ring_at=at))


def _tolerated(draft: Draft, row: StepRow) -> bool:
    return row.state == StepState.FAILED and draft.plan.steps[row.name].on_error == "continue"


def _reopen_step(draft: Draft, row: StepRow) -> None:
    begun = row.started_at is not None
    _forget(draft, row)
    draft.move_step(row, StepState.PENDING)
    row.unmet_needs = _unmet(draft, row)
    if begun and not row.unmet_needs:
        draft.then(StepReopened(step=row.path))
    elif not row.unmet_needs:
        draft.then(StepReady(step=row.path))


def _forget(draft: Draft, row: StepRow) -> None:
    """How it failed, and what was counted until then. As many turns again as the agent had."""
    row.failure = None
    kept = {name: n for name, n in row.counters.items() if name in _KEPT}
    row.counters = kept | (turning.kept_when_reopened(draft, row) if row.kind == StepKind.AGENT else {})


def _unmet(draft: Draft, row: StepRow) -> int:
    return sum(not _met(draft, draft.step(need)) for need in draft.plan.steps[row.name].needs)


def _met(draft: Draft, need: StepRow) -> bool:
    return need.state in (StepState.SUCCEEDED, StepState.SKIPPED) or _tolerated(draft, need)


def reopen_begun(draft: Draft, fact: StepReopened) -> None:
    """A step whose calls of the current turn are loaded goes on where it stopped."""
    row = draft.step(fact.step)
    step = draft.plan.steps[name_of(fact.step)]
    if row.state != StepState.PENDING:
        return
    calls = draft.calls_of(row.path, turn=row.turn)
    guarded = turns.guarded_again(draft, turns.latest(calls)) if row.kind == StepKind.AGENT else ()
    if guarded != fact.repeats:
        draft.then(StepReopened(step=row.path, repeats=guarded))
    elif row.items_total is not None and row.parent is None:
        _reopen_items(draft, row)
        starting.arm_timeout(draft, row, step)
    elif not calls or row.kind not in (StepKind.TOOL, StepKind.AGENT):
        _begin_anew(draft, row)
    else:
        draft.move_step(row, StepState.RUNNING)
        starting.arm_timeout(draft, row, step)
        if all(call.kind == CallKind.DISCOVER for call in calls):
            discovering.again(draft, row, max(calls, key=lambda call: call.n))
        elif row.kind == StepKind.AGENT:
            _converse_on(draft, row, calls)
        else:
            _call_on(draft, row, step, calls)


def _begin_anew(draft: Draft, row: StepRow) -> None:
    """Nothing of it was ever called: its condition and inputs are read again."""
    if row.parent is None:
        draft.then(StepReady(step=row.path))
    else:
        items.begin_item(draft, row, draft.plan.steps[row.name])


def _reopen_items(draft: Draft, row: StepRow) -> None:
    draft.move_step(row, StepState.RUNNING)
    draft.transition.reopen_items.append(row.path)
    begun = [
        item
        for item in draft.snapshot.steps.values()
        if item.parent == row.path and item.state in _REOPENED and item.started_at is not None
    ]
    row.items_failed, row.items_open = 0, len(begun)
    for item in draft.snapshot.steps.values():
        if item.parent == row.path and item.state == StepState.CANCELLED and item.started_at is None:
            item.state, item.ended_at = StepState.PENDING, None  # as the store does with those that are not loaded
            draft.touch(item)
    for item in begun:
        _forget(draft, item)
        draft.move_step(item, StepState.PENDING)
        draft.then(StepReopened(step=item.path))
    items.fill_items(draft, row)


def _call_on(draft: Draft, row: StepRow, step: Step, calls: list[Call]) -> None:
    """The same arguments as a new call. What was done after all, when its step had run out of time, is not done again:
    its result is the step's."""
    last = max((c for c in calls if c.kind == CallKind.TOOL), key=lambda call: call.n)
    if last.state == CallState.SUCCEEDED:
        ending.succeed_step(draft, row, output=last.result)
    elif step.tool is not None:
        kinds.call_again(draft, row, step.tool, last)


def _converse_on(draft: Draft, row: StepRow, calls: list[Call]) -> None:
    """Tool calls that were not made are made; when all are settled, or there were none, the model is asked again."""
    step = draft.plan.steps[row.name]
    uses = turns.latest(calls)
    if row.counters.get(turning.RESULTS_AT) == row.turn:  # its results are in the conversation already
        row.turn += 1
        turning.ask(draft, row, step)
        return
    if not uses:
        model = max((c for c in calls if c.kind == CallKind.MODEL), key=lambda call: call.n)
        turning.ask(draft, row, step, retry_of=model, change={"change": "reopened", "diff": None})
        return
    for call in uses:
        if turns.not_made(call) and call.tool is not None:
            turns.call_again(draft, row, draft.plan.tools[call.tool], call)
    turns.go_on(draft, row)
