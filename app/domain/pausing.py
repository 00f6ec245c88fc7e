"""Pause and resume a workflow; hold a call because an operator switched its tool, model or tenant off.

What is due and not sent is held(pause), as is whatever would become due while the workflow is paused; what is in
flight is finished and recorded. Probes and compensations go on. The deadline and timeouts go on, too: a pause is no
more time.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from app.domain import ending
from app.domain.facts import PauseRequested, ResumeRequested, SwitchedOff, SwitchReleased
from app.domain.states import CallState, DueKind, HeldReason, WorkflowStatus
from app.domain.transition import Draft, Due

LOOK_AGAIN: Final = timedelta(hours=1)
"""A release makes held calls due at once; this is for a release that missed one."""


def pause(draft: Draft, fact: PauseRequested) -> None:
    before = WorkflowStatus(draft.workflow.status)
    if before.final or before.ending or before is WorkflowStatus.PAUSED:
        return
    draft.move_workflow(WorkflowStatus.PAUSED)
    draft.event("workflow.paused", moved=(before, WorkflowStatus.PAUSED), data={"reason": fact.reason, "by": fact.by})
    draft.audit("workflow.pause", by=fact.by, object=ending.shown_id(draft), data={"reason": fact.reason})
    for call in list(draft.snapshot.calls.values()):
        if call.state == CallState.DUE and draft.pauses(call):  # what goes on keeps its time: a pause hurries nothing
            draft.move_call(call, CallState.HELD, held=HeldReason.PAUSE)
            draft.event(
                "effect.call.changed", call=call, moved=(CallState.DUE, CallState.HELD), data={"reason": "pause"}
            )


def resume(draft: Draft, fact: ResumeRequested) -> None:
    if draft.workflow.status != WorkflowStatus.PAUSED:
        return
    draft.move_workflow(WorkflowStatus.RUNNING)
    draft.event(
        "workflow.resumed",
        moved=(WorkflowStatus.PAUSED, WorkflowStatus.RUNNING),
        data={"reason": fact.reason, "by": fact.by},
    )
    draft.audit("workflow.resume", by=fact.by, object=ending.shown_id(draft), data={"reason": fact.reason})
    for call in list(draft.snapshot.calls.values()):
        if call.state == CallState.HELD and call.held_reason == HeldReason.PAUSE:
            draft.move_call(call, CallState.DUE)
            draft.event(
                "effect.call.changed", call=call, moved=(CallState.HELD, CallState.DUE), data={"reason": "resumed"}
            )


def switch_off(draft: Draft, fact: SwitchedOff) -> None:
    """Found when it was to be claimed: nothing of it leaves while the switch is off."""
    call = draft.call(fact.call_id)
    if call.state != CallState.DUE:
        return
    draft.move_call(call, CallState.HELD, held=HeldReason.OPERATOR)
    at = draft.now + LOOK_AGAIN
    draft.set_due(Due(kind=DueKind.SWITCH, ref=call.id, due_at=at, ring_at=at, note=fact.scope))
    draft.event(
        "effect.call.changed",
        call=call,
        moved=(CallState.DUE, CallState.HELD),
        data={"reason": f"operator: {fact.scope} is switched off"},
    )


def switch_on(draft: Draft, fact: SwitchReleased) -> None:
    call = draft.call(fact.call_id)
    if call.state != CallState.HELD or call.held_reason != HeldReason.OPERATOR:
        return
    draft.move_call(call, CallState.DUE)
    draft.event(
        "effect.call.changed", call=call, moved=(CallState.HELD, call.state), data={"reason": "operator: released"}
    )
