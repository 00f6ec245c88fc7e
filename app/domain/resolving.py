"""What a person's word means: the verdict on a doubt, the decision on an approval step or on a held call."""

from __future__ import annotations

from app.domain import calling, concluding, doubting, drifting, ending, gating, ids, parking, probing, saga
from app.domain.aggregate import Approval, Call
from app.domain.bindings import instant
from app.domain.facts import ApprovalDecided, ApprovalExpired, DoubtResolved, IllegalTransition, name_of
from app.domain.outcomes import Failure
from app.domain.states import ApprovalKind, ApprovalStatus, CallKind, CallState, DueKind, FailureKind, StepState
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
        "vouched": call.vouched,
    }
    step = draft.step(call.step)
    draft.audit(f"effect.{fact.verdict}", by=fact.by, object=calling.shown_id(call), data={"note": fact.note})
    match fact.verdict:
        case "probe":
            probing.probe_again(draft, call)
            return
        case "happened":
            to = CallState.SUCCEEDED
        case "did_not_happen":
            to = CallState.CANCELLED if concluding.stopped(draft, call) else draft.due_state(call)
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
    elif to in (CallState.DUE, CallState.HELD):
        call.failure = None
        draft.move_call(call, CallState.DUE)
    elif to is CallState.CANCELLED:
        draft.move_call(call, CallState.CANCELLED)
        draft.transition.keys_released.append(call.id)
        ending.call_gone(draft, step)
    else:
        draft.move_call(call, CallState.ABANDONED)
        if call.kind == CallKind.TOOL:
            draft.workflow.effects_abandoned += 1
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
    draft.audit(
        f"approval.{fact.decision}",
        by=fact.by,
        object=ids.encode("apr", approval.id),
        data={"comment": fact.comment, "sha256": approval.arguments_sha256},
    )
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
        gating.clean(draft, row)  # a person's answer, whatever the question was made of
        ending.succeed_step(draft, row, output=_output(approval))
    elif (
        kind is FailureKind.APPROVAL_EXPIRED
        and approval.on_expire == "reject"
        and (asked is None or asked.on_reject != "fail")
    ):
        gating.clean(draft, row)
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
    tool = draft.plan.tools[call.tool or ""]
    released = approval.decision in ("approve", "edit")
    if released and not gating.matches(tool, call.request["arguments"], approval.arguments_sha256):
        raise IllegalTransition(f"approval {approval.id} is not about the bytes of call {call.id}")
    if approval.decision == "approve" and approval.kind == ApprovalKind.DRIFT:
        drifting.approved(draft, call, approval)
        return
    if approval.decision == "approve":
        draft.move_call(call, CallState.DUE, delay=saga.not_before(draft, call))
        draft.event("effect.call.changed", call=call, moved=(CallState.HELD, call.state), data={"reason": "approved"})
        return
    if approval.decision == "edit":
        _edited(draft, call, approval)
        return
    if approval.kind == ApprovalKind.REPEAT and approval.decision:
        why = "A person decided that this is not done a second time."
    elif approval.kind == ApprovalKind.DRIFT and approval.decision:
        why = "The tool has changed since it was listed, and a person did not agree to call it as it is now."
    else:
        why = "A person did not approve it." if approval.decision else "Nobody approved it in time."
    comment = f" They said: {approval.comment}" if approval.comment else ""
    kind = FailureKind.APPROVAL_REJECTED if approval.decision else FailureKind.APPROVAL_EXPIRED
    failure = Failure(
        kind=kind,
        message=why + comment,
        fix="POST …/retry asks again; nothing was sent." if approval.decision else None,
    )
    if call.kind == CallKind.TOOL and call.lost_past:
        # The word may have been another one in the lost time: nothing is sent, and nobody says that nothing was.
        lost = "It may have been approved and sent in the time that a restore of the database has lost."
        parking.abandon(draft, call, reason=f"{why} {lost}", by=approval.by or "approval_expires")
        concluding.close_records(call, "abandoned")
        concluding.tell_step(draft, call, doubting.given_up(call))
        return
    draft.event("effect.call.changed", call=call, moved=(CallState.HELD, CallState.FAILED), data={"reason": "rejected"})
    concluding.fail(draft, call, failure)


def _edited(draft: Draft, call: Call, approval: Approval) -> None:
    """Another request is another call: the person's arguments, approved by the same word, with what was changed."""
    tool = draft.plan.tools[call.tool or ""]
    before, after = call.request["arguments"], approval.values
    draft.move_call(call, CallState.CANCELLED)
    draft.event(
        "effect.call.changed", call=call, moved=(CallState.HELD, CallState.CANCELLED), data={"reason": "edited"}
    )
    diff = gating.difference(before, after)
    made = calling.tool_call(
        draft,
        draft.step(call.step),
        tool,
        after,
        business_key=call.request.get("business_key"),
        generation=call.generation,
        turn=call.turn,
        ordinal=call.ordinal,
        tool_use_id=call.tool_use_id,
        retry_of=call,
        change={"change": "edited", "by": approval.by, "diff": diff},
    )
    if call.business_key:
        draft.transition.keys_passed.append((call.id, made.id))
    approval.arguments_sha256 = gating.binding(tool, after)  # the word is about these; the audit has what was asked
    data = {"approval": ids.encode("apr", approval.id), "sha256": approval.arguments_sha256, "diff": diff}
    draft.event("approval.edited", call=made, data=data)
