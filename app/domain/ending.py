"""How steps and workflows end: success, skip, failure, drain.

`failing` and `cancelling` are drains: nothing new is scheduled, everything in flight is settled (doubts included),
then the workflow is final. A workflow is never final while a call with a sent attempt is unsettled.
"""

from __future__ import annotations

from app.domain import bindings, expressions, ids, parking
from app.domain.aggregate import Call, StepRow
from app.domain.facts import (
    CancelRequested,
    DeadlinePassed,
    DrainBegan,
    ItemEnded,
    ItemsEnded,
    StepEnded,
    StepsDone,
    StepTimedOut,
    UndoBegan,
)
from app.domain.outcomes import JSON, Failure
from app.domain.states import (
    ApprovalStatus,
    CallKind,
    CallState,
    DueKind,
    EffectClass,
    FailureKind,
    StepState,
    WorkflowStatus,
)
from app.domain.transition import Draft

OUT_OF_BUDGET = "out_of_budget"
"""Counter on a step whose calls took longer than its budget allows: with `timed_out`, which ends it the same way."""


def succeed_step(draft: Draft, row: StepRow, *, output: JSON) -> None:
    row.output = output
    before = row.state
    draft.move_step(row, StepState.SUCCEEDED)
    if draft.plan.steps[row.name].pivot:
        draft.workflow.pivot_passed = True
    took = None if row.started_at is None else int((draft.now - row.started_at).total_seconds() * 1000)
    draft.event("agent.step.succeeded", step=row.path, moved=(before, row.state), data={"duration_ms": took})
    _ended(draft, row)


def skip_step(draft: Draft, row: StepRow, *, because: str) -> None:
    before = row.state
    draft.move_step(row, StepState.SKIPPED)
    draft.event("agent.step.skipped", step=row.path, moved=(before, row.state), data={"because": because})
    _ended(draft, row)


def fail_step(
    draft: Draft, row: StepRow, failure: Failure, *, call: Call | None = None, told: StepState | None = None
) -> None:
    """The step failed for good. An item fails its parent, a step its workflow, unless `on_error: continue`. `told`:
    where the events have left it, if it is not there any more."""
    row.failure = {"kind": failure.kind, "message": failure.message, "fix": failure.fix}
    if call is not None:
        row.failure["call"] = ids.encode("call", call.id)
    before = told or row.state
    draft.move_step(row, StepState.FAILED)
    if row.items_total is not None:
        cancel_items(draft, row)
    draft.event("agent.step.failed", step=row.path, moved=(before, row.state), data={"failure": row.failure})
    step = draft.plan.steps[row.name]
    if row.parent is None and step.on_error != "continue":
        _clear_timeout(draft, row)
        fail_workflow(draft, {**row.failure, "step": row.path})
    else:
        _ended(draft, row)


def cancel_items(draft: Draft, row: StepRow) -> None:
    """Items that will never begin, because their for_each failed: the loaded ones here, the others in the store."""
    draft.transition.cancel_items.append(row.path)
    for item in draft.snapshot.steps.values():
        if item.parent == row.path and item.state == StepState.PENDING:
            item.state, item.ended_at = StepState.CANCELLED, draft.now
            draft.touch(item)


def _ended(draft: Draft, row: StepRow) -> None:
    _clear_timeout(draft, row)
    if row.parent is not None:
        parent = draft.step(row.parent)
        parent.items_open = (parent.items_open or 0) - 1
        if row.state == StepState.FAILED:
            parent.items_failed = (parent.items_failed or 0) + 1
        draft.touch(parent)
        if parent.state == StepState.RUNNING and not WorkflowStatus(draft.workflow.status).ending:
            if parent.counters.get("timed_out"):
                call_gone(draft, parent)
            else:
                draft.then(ItemEnded(step=parent.path))
        return
    if WorkflowStatus(draft.workflow.status).ending:
        return
    if draft.plan.steps[row.name].dependents:
        draft.then(StepEnded(step=row.path))
    steps_done(draft)


def steps_done(draft: Draft) -> None:
    """Build the output once no step is open and nothing is in flight."""
    if draft.workflow.steps_open == 0 and not draft.workflow.open_calls:
        draft.then(StepsDone())


def _clear_timeout(draft: Draft, row: StepRow) -> None:
    if draft.plan.steps[row.name].timeout is not None and row.parent is None:
        draft.clear_due(DueKind.STEP_TIMEOUT, ids.derived("step_timeout", str(row.workflow_id), row.path))


def items_ended(draft: Draft, fact: ItemsEnded) -> None:
    """Every item is final: the parent's output is the list of theirs, in input order."""
    row = draft.step(fact.step)
    if row.state != StepState.RUNNING:
        return
    items = sorted((s for s in draft.snapshot.steps.values() if s.parent == row.path), key=lambda s: s.item_index or 0)
    if row.items_failed:
        first = next((item for item in items if item.state == StepState.FAILED), None)
        why = first.failure["message"] if first is not None and first.failure else "an item failed"
        failure = Failure(
            kind=FailureKind.ITEM_FAILURES_EXCEEDED,
            message=f"{row.items_failed} of {row.items_total} items failed; the first: {why}",
            fix="Look at the failed item; `on_error: continue` on the step lets the workflow go on without it.",
        )
        fail_step(draft, row, failure)
        return
    succeed_step(draft, row, output=[item.output for item in items])


def build_output(draft: Draft, fact: StepsDone) -> None:
    status = WorkflowStatus(draft.workflow.status)
    if draft.workflow.steps_open or draft.workflow.open_calls or status.draining or status.final:
        return
    template = draft.plan.output
    if template is not None:
        try:
            draft.workflow.output = template.render(bindings.seen_by(draft, template.steps))
        except expressions.ExpressionError as error:
            failure = {"kind": FailureKind.EXPRESSION_ERROR, "message": error.message, "fix": error.fix, "call": None}
            fail_workflow(draft, {**failure, "step": None})
            return
    _end_workflow(draft, WorkflowStatus.SUCCEEDED, "workflow.succeeded", {})


# --- drains --------------------------------------------------------------------------------------------------------


def fail_workflow(draft: Draft, failure: dict[str, JSON]) -> None:
    """Begin to fail. The first failure names the reason; those that come while draining are on their steps."""
    if WorkflowStatus(draft.workflow.status).ending:
        return
    before = draft.workflow.status
    draft.workflow.failure = {"call": None, "fix": None, **failure}
    draft.move_workflow(WorkflowStatus.FAILING)
    draft.event("workflow.failing", moved=(before, WorkflowStatus.FAILING), data={"failure": draft.workflow.failure})
    draft.then(DrainBegan())


def cancel(draft: Draft, fact: CancelRequested) -> None:
    status = WorkflowStatus(draft.workflow.status)
    if status.final or status in (WorkflowStatus.CANCELLING, WorkflowStatus.COMPENSATING):
        return
    before = draft.workflow.status
    release_hold(draft)
    draft.workflow.cancel = {"reason": fact.reason, "by": fact.by, "at": bindings.instant(draft.now)}
    draft.audit("workflow.cancel", by=fact.by, object=shown_id(draft), data={"reason": fact.reason})
    draft.move_workflow(WorkflowStatus.CANCELLING)
    draft.event(
        "workflow.cancelling", moved=(before, WorkflowStatus.CANCELLING), data={"reason": fact.reason, "by": fact.by}
    )
    draft.then(DrainBegan())


def pass_deadline(draft: Draft, fact: DeadlinePassed) -> None:
    if WorkflowStatus(draft.workflow.status).final or WorkflowStatus(draft.workflow.status).ending:
        return
    fail_workflow(
        draft,
        {
            "kind": FailureKind.DEADLINE_EXCEEDED,
            "message": f"The workflow was not done by its deadline, {bindings.instant(draft.workflow.deadline_at)}.",
            "step": None,
            "fix": "Submit it again with a longer `deadline`, or look at the trace for what took so long.",
        },
    )


def drain(draft: Draft, fact: DrainBegan) -> None:
    """End whatever can be ended now: calls that no attempt may have sent, approvals, steps that have not begun, and
    the deadline, which has nothing more to say (a drain may wait days for a person)."""
    draft.clear_due(DueKind.DEADLINE, draft.workflow.id)
    for call in list(draft.snapshot.calls.values()):
        drain_call(draft, call)
    for approval in draft.snapshot.approvals.values():
        close_approval(draft, approval.id)
    draft.transition.cancel_steps = "unstarted"
    for row in draft.snapshot.steps.values():
        if row.state in (StepState.PENDING, StepState.READY):
            row.state, row.ended_at = StepState.CANCELLED, draft.now
            draft.touch(row)


def drain_call(draft: Draft, call: Call) -> None:
    """End a call of which no attempt may have reached the tool; one that may have is waited for, or parked."""
    state = CallState(call.state)
    if state not in (CallState.DUE, CallState.HELD) or call.kind in (CallKind.PROBE, CallKind.COMPENSATION):
        return
    if call.maybe_done and state is CallState.DUE:
        return  # in flight: claim lets it pass, and the drain waits for it
    if call.maybe_done or (call.lost_past and call.effect != EffectClass.READ_ONLY):
        parking.park(draft, call, since=draft.now, reason="It was held after an attempt whose outcome is unknown.")
        return
    draft.move_call(call, CallState.CANCELLED)
    draft.transition.keys_released.append(call.id)
    draft.event(
        "effect.call.changed", call=call, moved=(state, CallState.CANCELLED), data={"reason": draft.workflow.status}
    )


def close_approval(draft: Draft, approval_id: object) -> None:
    """Nobody needs the answer any more."""
    approval = next((a for a in draft.snapshot.approvals.values() if a.id == approval_id), None)
    if approval is None or approval.status != ApprovalStatus.OPEN:
        return
    approval.status = ApprovalStatus.CANCELLED
    approval.decided_at = draft.now
    draft.transition.approvals[approval.id] = approval
    if approval.call_id is None:
        draft.workflow.waits -= 1
    draft.clear_due(DueKind.EXPIRY, approval.id)
    if not draft.workflow.waits and not draft.workflow.held:
        draft.workflow.attention = [what for what in draft.workflow.attention if what != "approval_pending"]


def end_drained(draft: Draft) -> None:
    """The drain is over when nothing is in flight and nothing in doubt: then what was done is undone, an operator
    decides, or the workflow ends. Asked whenever a decision has come to rest."""
    workflow = draft.workflow
    status = WorkflowStatus(workflow.status)
    if not status.ending or workflow.open_calls or workflow.doubts or workflow.held or workflow.saga == "held":
        return
    if status is WorkflowStatus.COMPENSATING:
        if not workflow.undos:
            _end_undone(draft)
        return
    _cancel_open_steps(draft)
    cause = "cancel" if workflow.cancel else "failure"
    wanted = cause in draft.plan.compensate_on or workflow.saga == "undo"
    if not workflow.undos or workflow.saga == "keep" or not wanted:
        _end_undone(draft)
    elif workflow.saga is None and (workflow.pivot_passed or (cause == "failure" and draft.plan.on_failure == "hold")):
        _hold(draft)
    else:
        draft.move_workflow(WorkflowStatus.COMPENSATING)
        draft.event(
            "workflow.compensating", moved=(status, WorkflowStatus.COMPENSATING), data={"effects": workflow.undos}
        )
        draft.then(UndoBegan(left=workflow.undos))


def _hold(draft: Draft) -> None:
    """Drained; whether anything is undone is an operator's to say."""
    draft.workflow.saga = "held"
    draft.workflow.waits += 1
    draft.event("workflow.held", data={"effects": draft.workflow.undos, "pivot_passed": draft.workflow.pivot_passed})
    draft.attend("failure_held")


def release_hold(draft: Draft) -> None:
    if draft.workflow.saga == "held":
        draft.workflow.saga = None
        draft.workflow.waits -= 1
        draft.unattend("failure_held")


def _cancel_open_steps(draft: Draft) -> None:
    draft.transition.cancel_steps = "all"
    for row in draft.snapshot.steps.values():
        if not StepState(row.state).final:
            row.state, row.ended_at = StepState.CANCELLED, draft.now
            draft.touch(row)


def _end_undone(draft: Draft) -> None:
    """The end of a workflow that failed or was cancelled; nothing is left to undo."""
    workflow = draft.workflow
    workflow.compensation = _undone(draft)
    if not workflow.cancel:
        _end_workflow(draft, WorkflowStatus.FAILED, "workflow.failed", {"failure": workflow.failure})
    else:
        reason = (workflow.cancel or {}).get("reason")
        _end_workflow(draft, WorkflowStatus.CANCELLED, "workflow.cancelled", {"reason": reason})


def _undone(draft: Draft) -> str:
    """What became of the effects. What was abandoned may have happened, and so may what a person's word stands
    against: neither is ever undone silently."""
    workflow = draft.workflow
    open_question = bool(workflow.effects_abandoned) or "contradicted" in workflow.attention
    if not workflow.effects_done and not open_question:
        return "not_needed"
    if not workflow.effects_undone:
        return "skipped"
    whole = workflow.effects_undone >= workflow.effects_done and not open_question
    return "done" if whole else "partial"


def shown_id(draft: Draft) -> str:
    return ids.encode("wf", draft.workflow.id)


def _end_workflow(draft: Draft, to: WorkflowStatus, event: str, data: dict[str, JSON]) -> None:
    before = draft.workflow.status
    draft.tell_moves()  # nothing is told after the end
    draft.move_workflow(to)
    draft.workflow.attention = [a for a in draft.workflow.attention if a == "contradicted"]
    draft.transition.end_dues = True
    draft.event(event, moved=(before, to), data=data)


# --- step timeouts -------------------------------------------------------------------------------------------------


def time_out(draft: Draft, fact: StepTimedOut) -> None:
    """A step's time is up. With an effect in flight it drains: it never says "failed" of what may have happened."""
    row = draft.step(fact.step)
    _clear_timeout(draft, row)  # said once: what is in flight may take days to be settled
    if StepState(row.state).final or WorkflowStatus(draft.workflow.status).ending:
        return
    row.counters = {**row.counters, "timed_out": 1}
    draft.touch(row)
    for call in list(draft.snapshot.calls.values()):
        if call.step == row.path or call.step.startswith(f"{row.path}."):
            drain_call(draft, call)
    for approval in list(draft.snapshot.approvals.values()):
        if approval.step == row.path or approval.step.startswith(f"{row.path}."):
            close_approval(draft, approval.id)
    for item in draft.snapshot.steps.values():
        if item.parent == row.path:
            _time_out_item(draft, row, item)
    call_gone(draft, row)


def _time_out_item(draft: Draft, parent: StepRow, item: StepRow) -> None:
    if item.state not in (StepState.RUNNING, StepState.WAITING):
        return  # nothing of it is under way: if the step is reopened, it begins with all its time
    item.counters = {**item.counters, "timed_out": 1}
    draft.touch(item)
    if not _open_calls(draft, item.path):
        before = item.state
        draft.move_step(item, StepState.CANCELLED)
        draft.event("agent.step.cancelled", step=item.path, moved=(before, StepState.CANCELLED))
        parent.items_open = (parent.items_open or 0) - 1
        draft.touch(parent)


def _open_calls(draft: Draft, path: str) -> bool:
    return any(
        call.step == path or call.step.startswith(f"{path}.")
        for call in draft.snapshot.calls.values()
        if not CallState(call.state).final
    )


def call_gone(draft: Draft, row: StepRow) -> None:
    """A call of a step that goes no further was settled: fail the step once nothing of it is open."""
    if WorkflowStatus(draft.workflow.status).ending or StepState(row.state).final:
        return
    if not row.counters.get("timed_out"):
        return
    if row.parent is not None:
        if not _open_calls(draft, row.path):
            draft.move_step(row, StepState.CANCELLED)
            draft.event("agent.step.cancelled", step=row.path, moved=(StepState.RUNNING, StepState.CANCELLED))
            _ended(draft, row)
        return
    if row.items_open or _open_calls(draft, row.path):
        return
    step = draft.plan.steps[row.name]
    over = bool(row.counters.get(OUT_OF_BUDGET))
    allowed = "the duration that its budget allows" if over else f"its timeout of {step.timeout}"
    longer = "top up its budget's `duration` and retry" if over else "give the step a longer `timeout`"
    failure = Failure(
        kind=FailureKind.BUDGET_EXCEEDED if over else FailureKind.STEP_TIMEOUT,
        message=f"The step was not done within {allowed}.",
        fix=f"Look at the trace for what took so long, or {longer}.",
    )
    fail_step(draft, row, failure)
