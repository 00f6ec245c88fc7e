"""What a person's answer to an approval means: for an approval step, and for a call that was held for one."""

from __future__ import annotations

from app.domain import ending, ids, turns
from app.domain.aggregate import Approval, Call
from app.domain.facts import ApprovalDecided, ApprovalExpired, name_of
from app.domain.outcomes import Failure
from app.domain.starting import instant
from app.domain.states import ApprovalStatus, CallState, DueKind, FailureKind, StepState
from app.domain.transition import Draft


def decide_approval(draft: Draft, fact: ApprovalDecided) -> None:
    approval = draft.snapshot.approvals[fact.approval_id]
    if approval.status != ApprovalStatus.OPEN:
        return
    approval.status = ApprovalStatus.DECIDED
    approval.decision, approval.values, approval.comment, approval.by = fact.decision, fact.values, fact.comment, fact.by
    _close(draft, approval)
    draft.event(
        "approval.decided",
        step=approval.step,
        data={"approval": ids.encode("apr", approval.id), "decision": fact.decision, "by": fact.by},
    )
    if approval.call_id is not None:
        _release_call(draft, draft.call(approval.call_id), approval)
    else:
        _end_step(draft, approval, FailureKind.APPROVAL_REJECTED)


def expire_approval(draft: Draft, fact: ApprovalExpired) -> None:
    approval = draft.snapshot.approvals[fact.approval_id]
    if approval.status != ApprovalStatus.OPEN:
        return
    approval.status = ApprovalStatus.EXPIRED
    _close(draft, approval)
    draft.event("approval.expired", step=approval.step, data={"approval": ids.encode("apr", approval.id)})
    if approval.call_id is not None:
        _release_call(draft, draft.call(approval.call_id), approval)
    else:
        _end_step(draft, approval, FailureKind.APPROVAL_EXPIRED)


def _close(draft: Draft, approval: Approval) -> None:
    approval.decided_at = draft.now
    draft.transition.approvals[approval.id] = approval
    draft.clear_due(DueKind.EXPIRY, approval.id)
    if approval.call_id is None:
        draft.workflow.waits -= 1
    if draft.workflow.waits + draft.workflow.held <= (1 if approval.call_id is not None else 0):
        draft.workflow.attention = [what for what in draft.workflow.attention if what != "approval_pending"]


def _end_step(draft: Draft, approval: Approval, kind: FailureKind) -> None:
    row = draft.step(approval.step)
    if StepState(row.state).final:
        return
    asked = draft.plan.steps[name_of(approval.step)].approval
    approved = approval.decision == "approve"
    if approved or (kind is FailureKind.APPROVAL_REJECTED and (asked is None or asked.on_reject != "fail")):
        ending.succeed_step(draft, row, output=_output(approval))
    elif kind is FailureKind.APPROVAL_EXPIRED and approval.on_expire == "reject" and (asked is None or asked.on_reject != "fail"):
        ending.succeed_step(draft, row, output={**_output(approval), "decision": "reject", "by": None})
    else:
        said = "was rejected" if kind is FailureKind.APPROVAL_REJECTED else "expired"
        failure = Failure(
            kind=kind,
            message=f"The approval {approval.title!r:.200} {said}.",
            fix="Submit the workflow again; with `on_reject: continue` a rejection is output instead of a failure.",
        )
        ending.fail_step(draft, row, failure)


def _output(approval: Approval) -> dict[str, object]:
    return {
        "decision": approval.decision,
        "values": approval.values,
        "comment": approval.comment,
        "by": approval.by,
        "at": instant(approval.decided_at),
    }


def _release_call(draft: Draft, call: Call, approval: Approval) -> None:
    """Approved: it goes. Rejected or expired: it is never sent, and the model is told."""
    if call.state != CallState.HELD:
        return
    if approval.decision == "approve":
        draft.move_call(call, CallState.DUE)
        draft.event("effect.call.changed", call=call, moved=(CallState.HELD, CallState.DUE), data={"reason": "approved"})
        return
    why = "A person decided that this is not done a second time." if approval.decision else "Nobody approved it in time."
    comment = f" They said: {approval.comment}" if approval.comment else ""
    call.failure = Failure(kind=FailureKind.APPROVAL_REJECTED, message=why + comment).to_json()
    draft.move_call(call, CallState.FAILED)
    draft.event("effect.call.changed", call=call, moved=(CallState.HELD, CallState.FAILED), data={"reason": "rejected"})
    row = draft.step(call.step)
    if not StepState(row.state).final:
        turns.go_on(draft, row)
