"""What a person's word means: the verdict on a doubt, the decision on an approval step or on a held call."""

from __future__ import annotations

from app.domain import concluding, doubting, ending, ids, turns
from app.domain.aggregate import Approval, Call
from app.domain.bindings import instant
from app.domain.facts import ApprovalDecided, ApprovalExpired, DoubtResolved, IllegalTransition, name_of
from app.domain.outcomes import Failure
from app.domain.states import ApprovalStatus, CallState, DueKind, FailureKind, StepState
from app.domain.transition import Draft


def resolve_doubt(draft: Draft, fact: DoubtResolved) -> None:
    call = draft.call(fact.call_id)
    if call.state != CallState.IN_DOUBT:
        raise IllegalTransition(f"call {call.id} is {call.state}, not in doubt")
    call.resolved = {
        "outcome": fact.verdict,
        "note": fact.note,
        "by": fact.by,
        "at": instant(draft.now),
        "attempts": call.attempts,
    }
    step = draft.step(call.step)
    match fact.verdict:
        case "happened":
            to = CallState.SUCCEEDED
        case "did_not_happen":
            to = CallState.CANCELLED if concluding.stopped(draft, call) else CallState.DUE
        case _:
            to = CallState.ABANDONED
    draft.event(
        "effect.resolved",
        call=call,
        moved=(CallState.IN_DOUBT, to),
        data={"outcome": fact.verdict, "by": fact.by, "note": fact.note},
    )
    doubting.clear(draft, call)
    if to is CallState.SUCCEEDED:
        attempt = call.attempt(call.attempt_id) if call.attempt_id else None
        concluding.succeed(draft, call, attempt, fact.result)
    elif to is CallState.DUE:
        call.failure = None
        draft.move_call(call, CallState.DUE)
    elif to is CallState.CANCELLED:
        draft.move_call(call, CallState.CANCELLED)
        draft.transition.keys_released.append(call.id)
        ending.call_gone(draft, step)
    else:
        draft.move_call(call, CallState.ABANDONED)
        concluding.close_records(call, "abandoned")
        concluding.tell_step(draft, call, doubting.given_up(call))


def decide_approval(draft: Draft, fact: ApprovalDecided) -> None:
    approval = draft.snapshot.approvals[fact.approval_id]
    if approval.status != ApprovalStatus.OPEN:
        return
    approval.status = ApprovalStatus.DECIDED
    approval.decision, approval.values, approval.comment, approval.by = (
        fact.decision,
        fact.values,
        fact.comment,
        fact.by,
    )
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
    elif (
        kind is FailureKind.APPROVAL_EXPIRED
        and approval.on_expire == "reject"
        and (asked is None or asked.on_reject != "fail")
    ):
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
        draft.event(
            "effect.call.changed", call=call, moved=(CallState.HELD, CallState.DUE), data={"reason": "approved"}
        )
        return
    why = (
        "A person decided that this is not done a second time." if approval.decision else "Nobody approved it in time."
    )
    comment = f" They said: {approval.comment}" if approval.comment else ""
    call.failure = Failure(kind=FailureKind.APPROVAL_REJECTED, message=why + comment).to_json()
    draft.move_call(call, CallState.FAILED)
    draft.event("effect.call.changed", call=call, moved=(CallState.HELD, CallState.FAILED), data={"reason": "rejected"})
    row = draft.step(call.step)
    if not StepState(row.state).final:
        turns.go_on(draft, row)
