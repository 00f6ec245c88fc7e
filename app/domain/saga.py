"""The saga: what was done is undone, in reverse dependency order, siblings in parallel, after the drain.

    end_drain         the drain is over: undo, hold for an operator, or end
    begin             which steps are next: those none of whose dependents has anything left to undo
    undo_next         the next effects of one step: of each item (or the step itself) the latest
    compensation_ended, settle_undo     an effect was undone, could not be, or an operator said what is so
    decide            an operator decides about a failure that was held

An effect whose compensation failed waits for an operator, and what it depends on waits with it; other branches go on.
Compensations and probes ignore budget, deadline and pause. What is in doubt is never undone blindly: the drain waited
for it; what was abandoned is listed and left alone.
"""

from __future__ import annotations

from datetime import timedelta

from app.domain import calling, doubting, ending, gating, undoing
from app.domain.aggregate import Call, StepRow
from app.domain.facts import CompensationEnded, SagaDecided, UndoBegan, UndoSettled, UndosWanted
from app.domain.reads import UNDOS_AT_ONCE
from app.domain.states import AttemptOutcome, CallKind, Undo, WorkflowStatus
from app.domain.transition import Draft
from app.domain.undoing import UNDO, UNDOING


def begin(draft: Draft, fact: UndoBegan) -> None:
    if draft.workflow.status != WorkflowStatus.COMPENSATING:
        return
    left = {row.name for row in draft.snapshot.steps.values() if row.parent is None and row.counters.get(UNDO)}
    for name in sorted(left):
        row = draft.step(name)
        if not _after(draft, name) & left and row.counters.get(UNDOING, 0) < UNDOS_AT_ONCE:
            draft.then(UndosWanted(step=name, left=fact.left))


def _after(draft: Draft, name: str) -> set[str]:
    """Every step that depends on this one, however far."""
    found: set[str] = set()
    waiting = list(draft.plan.steps[name].dependents)
    while waiting:
        each = waiting.pop()
        if each not in found:
            found.add(each)
            waiting += draft.plan.steps[each].dependents
    return found


def undo_next(draft: Draft, fact: UndosWanted) -> None:
    if draft.workflow.status != WorkflowStatus.COMPENSATING:
        return
    row = draft.step(fact.step)
    calls = [c for c in draft.snapshot.calls.values() if draft.step_name(c) == fact.step]
    busy = {call.step for call in calls if call.undo in (Undo.RUNNING, Undo.FAILED)}
    latest: dict[str, Call] = {}
    for call in calls:
        if call.undo == Undo.RECORDED and call.step not in busy:
            before = latest.get(call.step)
            latest[call.step] = call if before is None or call.n > before.n else before
    for call in sorted(latest.values(), key=lambda each: each.n):
        if row.counters.get(UNDOING, 0) >= UNDOS_AT_ONCE:
            break
        undo(draft, call)


def undo(draft: Draft, call: Call) -> None:
    """Make the call that undoes this effect. It is due when no attempt of the effect can arrive any more."""
    row = draft.step(call.step)
    recorded = call.compensation or {}
    undoing.mark(draft, call, Undo.RUNNING)
    undoing.count(draft, row, UNDOING, 1)
    if recorded.get("error"):
        draft.then(CompensationEnded(call_id=call.id, step=call.step, failure=recorded["error"]))
        return
    tool = draft.plan.tools[recorded["tool"]]
    made = calling.compensation_call(draft, row, tool, recorded["arguments"], target=call, delay=_quiet_in(draft, call))
    call.probe_id = made.id
    draft.touch_call(call)
    draft.event("compensation.started", call=made, data={"tool": tool.name, "effect": calling.shown_id(call)})
    if gating.gated(draft, row, tool):
        gating.hold(draft, row, tool, made)


def not_before(draft: Draft, call: Call) -> timedelta:
    """How long a call that was held is still not due: an approved undo waits as one that nobody was asked about."""
    if call.kind != CallKind.COMPENSATION or call.target is None:
        return timedelta(0)
    return _quiet_in(draft, draft.call(call.target))


def _quiet_in(draft: Draft, call: Call) -> timedelta:
    """How long a copy of the effect's request may still arrive: its undo must not come before it."""
    settle = timedelta(milliseconds=call.settle_ms)
    silent = [
        a.settled_at if a.outcome == AttemptOutcome.UNKNOWN and a.settled_at else doubting.quiet_at(draft, call, a)
        for a in call.uncertain
    ]
    return max((at + settle - draft.now for at in silent), default=timedelta(0))


def compensation_ended(draft: Draft, fact: CompensationEnded) -> None:
    call = draft.call(fact.call_id)
    if call.undo != Undo.RUNNING:
        return
    row = draft.step(call.step)
    undoing.count(draft, row, UNDOING, -1)
    if fact.failure is None:
        _undone(draft, row, call, by=None)
        return
    undoing.mark(draft, call, Undo.FAILED)
    draft.workflow.undos_failed += 1
    draft.event(
        "compensation.failed",
        call=calling.compensation_of(draft, call) or call,
        data={"tool": (call.compensation or {}).get("tool"), "effect": calling.shown_id(call), "reason": fact.failure},
    )
    draft.attend("compensation_failed", tool=call.tool)
    _go_on(draft, row)  # its place is free


def _undone(draft: Draft, row: StepRow, call: Call, *, by: str | None) -> None:
    """Done, by the tool or by a person's word: the key is free, what it depended on may be undone."""
    undoing.mark(draft, call, Undo.DONE)
    draft.workflow.effects_undone += 1
    if call.business_key:
        draft.transition.keys_released.append(call.id)
    if by is None:
        data = {"tool": (call.compensation or {}).get("tool"), "effect": calling.shown_id(call)}
        draft.event("compensation.succeeded", call=calling.compensation_of(draft, call) or call, data=data)
    _one_less(draft, row)


def _one_less(draft: Draft, row: StepRow) -> None:
    undoing.count(draft, row, UNDO, -1)
    draft.workflow.undos -= 1
    _go_on(draft, row)


def _go_on(draft: Draft, row: StepRow) -> None:
    left = draft.workflow.undos - draft.workflow.undos_failed
    if draft.step(row.name).counters.get(UNDO):
        draft.then(UndosWanted(step=row.name, left=left))
    else:  # only now does another step's turn come: every step is looked at
        draft.then(UndoBegan(left=left))


def settle_undo(draft: Draft, fact: UndoSettled) -> None:
    """An operator's word about a compensation that failed: again, done by hand, or left as it is."""
    call = draft.call(fact.call_id)
    if call.undo != Undo.FAILED:
        return
    row = draft.step(call.step)
    draft.workflow.undos_failed -= 1
    if not draft.workflow.undos_failed:
        draft.unattend("compensation_failed")
    data = {"action": fact.action, "by": fact.by, "note": fact.note, "effect": calling.shown_id(call)}
    draft.event("compensation.settled", call=call, data=data)
    draft.audit(f"compensation.{fact.action}", by=fact.by, object=calling.shown_id(call), data={"note": fact.note})
    match fact.action:
        case "retry":
            undo(draft, call)
        case "done":
            _undone(draft, row, call, by=fact.by)
        case _:
            undoing.mark(draft, call, Undo.SKIPPED)
            _one_less(draft, row)


def decide(draft: Draft, fact: SagaDecided) -> None:
    """A failure that was held: its effects are undone or kept. What follows is `ending.end_drained`'s."""
    workflow = draft.workflow
    if workflow.saga != "held":
        return
    ending.release_hold(draft)
    workflow.saga = fact.mode
    draft.audit(f"workflow.{fact.mode}", by=fact.by, object=ending.shown_id(draft), data={"note": fact.note})
