"""What people may ask for, in this model's own words: a verb and the rows it is judged on in, facts out.

Each returns the facts that the verb brings to the door, none if that is so already, and raises `Refused` where the
product answers 409 or 422. Held against `app/engine/*.py` by `tests/engine/test_machine_on_postgres.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from app.domain.aggregate import Approval, Call, Snapshot
from app.domain.facts import (
    ApprovalDecided,
    ApprovalExpired,
    CancelRequested,
    DoubtResolved,
    Fact,
    PauseRequested,
    ResumeRequested,
    RetryRequested,
    SagaDecided,
    StepOperated,
    UndoSettled,
)
from app.domain.plan import Plan
from app.domain.states import CallState, EffectClass, StepState, Undo, WorkflowStatus

WHO: Final = "kim"
NOTE: Final = "looked"

Judge = Callable[[Snapshot, Plan], Sequence[Fact]]


class Refused(Exception):
    """What was asked for is not possible now."""


def cancel(snapshot: Snapshot, plan: Plan) -> Sequence[Fact]:
    workflow = snapshot.workflow
    status = WorkflowStatus(workflow.status)
    told = status in (WorkflowStatus.CANCELLED, WorkflowStatus.CANCELLING)
    if told or (status is WorkflowStatus.COMPENSATING and workflow.cancel):
        return []
    if status.final or status is WorkflowStatus.COMPENSATING:
        raise Refused(status)
    return [CancelRequested(reason=None, by=WHO)]


def pause(snapshot: Snapshot, plan: Plan) -> Sequence[Fact]:
    status = _goes_on(snapshot)
    return [] if status is WorkflowStatus.PAUSED else [PauseRequested(reason=None, by=WHO)]


def resume(snapshot: Snapshot, plan: Plan) -> Sequence[Fact]:
    status = _goes_on(snapshot)
    return [ResumeRequested(reason=None, by=WHO)] if status is WorkflowStatus.PAUSED else []


def _goes_on(snapshot: Snapshot) -> WorkflowStatus:
    status = WorkflowStatus(snapshot.workflow.status)
    if status.final or status.ending:
        raise Refused(status)
    return status


def retry(snapshot: Snapshot, plan: Plan) -> Sequence[Fact]:
    workflow = snapshot.workflow
    status = WorkflowStatus(workflow.status)
    if status not in (WorkflowStatus.FAILED, WorkflowStatus.CANCELLED) and workflow.saga != "held":
        if status.final or status.ending or status is WorkflowStatus.PAUSED:
            raise Refused(status)
        return []
    if workflow.effects_undone or workflow.effects_abandoned or "contradicted" in workflow.attention:
        raise Refused("going on might repeat what happened")
    return [RetryRequested(note=None, by=WHO)]


def decide_saga(mode: str) -> Judge:
    def judge(snapshot: Snapshot, plan: Plan) -> Sequence[Fact]:
        if snapshot.workflow.saga == mode:
            return []
        if snapshot.workflow.saga != "held":
            raise Refused(snapshot.workflow.status)
        return [SagaDecided(mode=mode, note=NOTE, by=WHO)]

    return judge


def settle_undo(call_id: UUID, *, step: str, action: str) -> Judge:
    done = {"retry": (Undo.RUNNING,), "done": (Undo.DONE,), "skip": (Undo.SKIPPED,)}[action]

    def judge(snapshot: Snapshot, plan: Plan) -> Sequence[Fact]:
        undo = snapshot.calls[call_id].undo
        if undo == Undo.FAILED:
            return [UndoSettled(call_id=call_id, step=step, action=action, note=NOTE, by=WHO)]
        if undo in done:
            return []
        raise Refused(undo)

    return judge


def resolve(call_id: UUID, *, step: str, verdict: str, result: Any, now: datetime) -> Judge:
    def judge(snapshot: Snapshot, plan: Plan) -> Sequence[Fact]:
        call = snapshot.calls[call_id]
        said = (call.resolved or {}).get("outcome")
        if call.state == CallState.PROBING and verdict == "probe":
            return []
        if call.state != CallState.IN_DOUBT:
            if said == verdict and call.state != CallState.PROBING:
                return []
            raise Refused(call.state)
        if verdict == "did_not_happen" and call.not_before is not None and now < call.not_before:
            raise Refused("quarantine")
        if verdict == "probe" and plan.tools[call.tool or ""].probe is None:
            raise Refused("no probe")
        return [DoubtResolved(call_id=call_id, step=step, verdict=verdict, result=result, note=NOTE, by=WHO)]

    return judge


def decide_approval(
    approval_id: UUID, *, step: str, call_id: UUID | None, decision: str, values: Any, now: datetime
) -> Judge:
    def judge(snapshot: Snapshot, plan: Plan) -> Sequence[Fact]:
        approval = snapshot.approvals[approval_id]
        if approval.status == "decided" and (approval.decision, approval.values) == (decision, values):
            return []
        if approval.status != "open" or decision not in approval.allow:
            raise Refused(approval.status)
        if approval.expires_at is not None and approval.expires_at <= now:
            return [ApprovalExpired(approval_id=approval_id, step=step, call_id=call_id)]
        return [
            ApprovalDecided(
                approval_id=approval_id, step=step, call_id=call_id, decision=decision, values=values, comment=None,
                by=WHO,
            )
        ]  # fmt: skip

    return judge


def operate(path: str, *, action: str, output: Any) -> Judge:
    wanted = {"skip": StepState.SKIPPED, "complete": StepState.SUCCEEDED, "fail": StepState.FAILED}.get(action)

    def judge(snapshot: Snapshot, plan: Plan) -> Sequence[Fact]:
        row, status = snapshot.steps[path], WorkflowStatus(snapshot.workflow.status)
        if StepState(row.state).final:
            if row.state == wanted and (action != "complete" or row.output == output):
                return []
            raise Refused(row.state)
        if status.final or status.ending:
            raise Refused(status)
        found = [
            c for c in snapshot.calls.values()
            if (c.step == path or c.step.startswith(f"{path}.")) and not CallState(c.state).final
        ]  # fmt: skip
        if action == "retry-now":
            if not any(_retryable(call) for call in found):
                raise Refused("no call of it waits for a next try")
        elif any(_in_the_way(call) for call in found) or (row.state == StepState.PENDING and row.parent is not None):
            raise Refused("in the way")
        return [StepOperated(step=path, action=action, output=output, note=None, by=WHO)]

    return judge


def _retryable(call: Call) -> bool:
    return call.state == CallState.DUE or call.held_reason == "poisoned"


def _in_the_way(call: Call) -> bool:
    """Something of it may have happened, or may yet."""
    if call.state in (CallState.INTENDED, CallState.PROBING, CallState.IN_DOUBT):
        return True
    vouched = call.vouched
    unknown = [a for a in call.history if a.outcome in (None, "unknown") and a.n > vouched]
    return call.effect != EffectClass.READ_ONLY and bool(unknown)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One thing that a person asks for: which verb, of what, with which word."""

    verb: str
    workflow_id: UUID
    word: str = ""
    ref: UUID | None = None
    """The call or the approval."""
    path: str = ""
    """The step."""
    values: Any = None


def judged(asked: Asked, *, now: datetime) -> tuple[Judge, Fact]:
    """How it is judged, and the fact whose rows the verb reads for that."""
    ref, step, word = asked.ref or asked.workflow_id, asked.path, asked.word
    match asked.verb:
        case "pause":
            return pause, PauseRequested(reason=None, by=WHO)
        case "resume":
            return resume, ResumeRequested(reason=None, by=WHO)
        case "retry":
            return retry, RetryRequested(note=None, by=WHO)
        case "saga":
            return decide_saga(word), SagaDecided(mode=word, note=NOTE, by=WHO)
        case "undo":
            fact: Fact = UndoSettled(call_id=ref, step=step, action=word, note=NOTE, by=WHO)
            return settle_undo(ref, step=step, action=word), fact
        case "resolve":
            judge = resolve(ref, step=step, verdict=word, result=asked.values, now=now)
            fact = DoubtResolved(call_id=ref, step=step, verdict=word, result=asked.values, note=NOTE, by=WHO)
            return judge, fact
        case "operate":
            fact = StepOperated(step=step, action=word, output=asked.values, note=None, by=WHO)
            return operate(step, action=word, output=asked.values), fact
    return cancel, CancelRequested(reason=None, by=WHO)


def judged_approval(approval: Approval, asked: Asked, *, now: datetime) -> tuple[Judge, Fact]:
    judge = decide_approval(
        approval.id, step=approval.step, call_id=approval.call_id, decision=asked.word, values=asked.values, now=now
    )
    return judge, ApprovalExpired(approval_id=approval.id, step=approval.step, call_id=approval.call_id)
