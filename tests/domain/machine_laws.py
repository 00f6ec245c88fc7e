"""What is always so, whatever happened: the laws of the rows, asked after every rule of a machine.

    Laws.breaches(store, workflow_id)    every sentence that is not so now
    Laws.look(store, workflow_id)        remembers what must not change later: outcomes, ends

The numbers S6 to S8 are the invariants of the verification plan.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from app.domain.aggregate import Call
from app.domain.states import CallKind, CallState, DueKind, HeldReason, StepState, Undo, WorkflowStatus
from tests.domain.machine_store import Store

OPEN: Final = ("due", "intended", "probing")
UNDOS: Final = ("recorded", "running", "failed")
WAKES: Final = (
    DueKind.CALL, DueKind.ATTEMPT, DueKind.RESULT, DueKind.ATTACHED, DueKind.SWITCH, DueKind.APPLY, DueKind.DEPENDENCY,
)  # fmt: skip
"""Dues that make a workflow go on; a deadline or a timeout only ends it."""


@dataclass(kw_only=True)
class Laws:
    outcomes: dict[UUID, str] = field(default_factory=dict)
    ended_calls: dict[UUID, str] = field(default_factory=dict)
    ended_workflows: dict[UUID, str] = field(default_factory=dict)

    def breaches(self, store: Store, workflow_id: UUID) -> Iterator[str]:
        yield from _counted(store, workflow_id)
        yield from _steps(store, workflow_id)
        yield from _calls(store, workflow_id)
        yield from _sagas(store, workflow_id)
        yield from _end(store, workflow_id)
        yield from _woken(store, workflow_id)
        yield from self._kept(store, workflow_id)

    def look(self, store: Store, workflow_id: UUID) -> None:
        for call in store.calls[workflow_id].values():
            if CallState(call.state).final:
                self.ended_calls[call.id] = call.state
            for attempt in call.history:
                if attempt.outcome is not None:
                    self.outcomes[attempt.id] = attempt.outcome
        workflow = store.workflows[workflow_id]
        if WorkflowStatus(workflow.status).final:
            self.ended_workflows[workflow_id] = workflow.status

    def reopened(self, workflow_id: UUID) -> None:
        """Somebody retried it: the only way out of an end."""
        self.ended_workflows.pop(workflow_id, None)

    def _kept(self, store: Store, workflow_id: UUID) -> Iterator[str]:
        for call in store.calls[workflow_id].values():
            if self.ended_calls.get(call.id, call.state) != call.state:
                yield f"S6: {_named(call)} had ended as {self.ended_calls[call.id]}"
            for attempt in call.history:
                if attempt.id in self.outcomes and attempt.outcome != self.outcomes[attempt.id]:
                    yield f"S6: attempt {attempt.n} of {_named(call)} was {self.outcomes[attempt.id]}"
        status = store.workflows[workflow_id].status
        if self.ended_workflows.get(workflow_id, status) != status:
            yield f"S6: the workflow had ended as {self.ended_workflows[workflow_id]} and is {status}"


def _named(call: Call) -> str:
    held = "" if call.held_reason is None else f"({call.held_reason})"
    return f"{call.kind} {call.step}#{call.n} ({call.effect}, {call.state}{held})"


def _counted(store: Store, workflow_id: UUID) -> Iterator[str]:
    workflow, calls = store.workflows[workflow_id], store.calls[workflow_id].values()
    states = Counter(call.state for call in calls)
    undos = Counter(call.undo for call in calls)
    asked = [a for a in store.approvals[workflow_id].values() if a.status == "open" and a.call_id is None]
    counted: dict[str, int] = {
        "open_calls": sum(states[each] for each in OPEN),
        "held": states["held"],
        "doubts": states["in_doubt"],
        "waits": len(asked) + (workflow.saga == "held"),
        "undos": sum(undos[each] for each in UNDOS),
        "undos_failed": undos["failed"],
        "effects_undone": undos["done"],
    }
    for name, n in counted.items():
        if getattr(workflow, name) != n:
            yield f"{name} says {getattr(workflow, name)}, the rows {n}"
    if workflow.status in ("waiting", "running") and (workflow.status == "waiting") != (workflow.open_calls == 0):
        yield f"{workflow.status} with {workflow.open_calls} open calls"


def _steps(store: Store, workflow_id: UUID) -> Iterator[str]:
    workflow, rows, calls = store.workflows[workflow_id], store.steps[workflow_id], store.calls[workflow_id].values()
    top = [row for row in rows.values() if row.parent is None]
    n = sum(row.ended_at is None for row in top)
    if workflow.status in ("running", "waiting", "succeeded") and workflow.steps_open != n:
        yield f"steps_open says {workflow.steps_open}, the rows {n}"
    for row in rows.values():
        if (row.ended_at is not None) != StepState(row.state).final:
            yield f"step {row.path} is {row.state} and ended_at {row.ended_at}"
        begun = sum(item.parent == row.path and item.state in ("running", "waiting") for item in rows.values())
        if row.items_total is not None and row.state == "running" and row.items_open != begun:
            yield f"items_open of {row.path} says {row.items_open}, the rows {begun}"
    for call in calls:
        if call.ended_at is None and call.kind not in (CallKind.PROBE, CallKind.COMPENSATION):
            for path in {call.step, call.step.partition(".")[0]}:
                if rows[path].ended_at is not None:
                    yield f"step {path} has ended, and {_named(call)} is open behind it"
    made = Counter(
        (call.step, call.turn, call.ordinal)
        for call in calls
        if call.kind == CallKind.TOOL and call.effect != "read_only" and call.state == "succeeded"
    )
    for place, times in made.items():
        if times > 1:
            yield f"S3: {place} succeeded {times} times"


def _calls(store: Store, workflow_id: UUID) -> Iterator[str]:
    workflow, calls = store.workflows[workflow_id], store.calls[workflow_id]
    for call in calls.values():
        open_attempts = [a for a in call.history if a.outcome is None and a.lost_at is None and a.status_code is None]
        if len(open_attempts) > 1:
            yield f"S6: {_named(call)} has {len(open_attempts)} open attempts"
        undecided = (DueKind.APPLY, call.id) in store.dues  # what was kept may settle it
        if call.state in ("in_doubt", "probing") and not call.uncertain and not undecided:
            yield f"S5: {_named(call)}, though it is certain of every attempt what it came to"
        woken_by = _woken_by(call)
        dues = {kind for (kind, ref) in store.dues if ref == call.id} - {DueKind.APPLY}
        if dues not in woken_by:
            yield f"{_named(call)} is woken by {sorted(dues)}"
        probes = [c for c in calls.values() if c.kind == CallKind.PROBE and c.target == call.id and c.ended_at is None]
        if [probe.id for probe in probes] != ([call.probe_id] if call.state == CallState.PROBING else []):
            yield f"{_named(call)} has the open probes {[_named(probe) for probe in probes]}"
        sent_late = call.state == "due" and call.attempts == 0 and call.kind not in ("probe", "compensation")
        if sent_late and workflow.status in ("failing", "cancelling", "paused"):
            yield f"{_named(call)} is about to be sent for the first time while {workflow.status}"
    for approval in store.approvals[workflow_id].values():
        if approval.call_id is not None and approval.status == "open":
            asked_about = calls[approval.call_id]
            if asked_about.held_reason not in (HeldReason.APPROVAL, HeldReason.REPEAT):
                yield f"a person is asked about {_named(asked_about)}"


def _woken_by(call: Call) -> list[set[DueKind]]:
    if call.state == CallState.DUE:
        return [{DueKind.CALL}]
    if call.state == CallState.INTENDED:
        return [{DueKind.CALL}, {DueKind.ATTEMPT}, {DueKind.RESULT}]
    held = {
        HeldReason.ATTACHED: DueKind.ATTACHED,
        HeldReason.OPERATOR: DueKind.SWITCH,
        HeldReason.BREAKER: DueKind.DEPENDENCY,
        HeldReason.QUOTA: DueKind.DEPENDENCY,
    }
    kind = held.get(HeldReason(call.held_reason)) if call.held_reason else None
    return [set() if kind is None else {kind}]


def _sagas(store: Store, workflow_id: UUID) -> Iterator[str]:
    workflow, calls = store.workflows[workflow_id], store.calls[workflow_id]
    for call in calls.values():
        undoing = [c for c in calls.values() if c.kind == CallKind.COMPENSATION and c.target == call.id]
        open_ones = [c.id for c in undoing if c.ended_at is None]
        if open_ones != ([call.probe_id] if call.undo == Undo.RUNNING else []):
            yield f"{_named(call)} is undone ({call.undo}) by {len(open_ones)} open compensations"
        if call.undo != Undo.NONE and call.state != CallState.SUCCEEDED:
            yield f"{_named(call)} is to be undone ({call.undo}) and is not known done"
        if sum(c.state == CallState.SUCCEEDED for c in undoing) > 1:
            yield f"{_named(call)} was undone twice"
        others = call.kind not in (CallKind.PROBE, CallKind.COMPENSATION) and call.ended_at is None
        if others and workflow.status == "compensating":
            yield f"{_named(call)} is open while others are being undone"
    left = {c.step.partition(".")[0] for c in calls.values() if c.undo in UNDOS}
    for name in {c.step.partition(".")[0] for c in calls.values() if c.undo == Undo.RUNNING}:
        for later in _after(store, workflow_id, name) & left:
            yield f"{name} is being undone before {later}, which depends on it"


def _after(store: Store, workflow_id: UUID, name: str) -> set[str]:
    steps, found = store.plans[workflow_id].steps, set[str]()
    waiting = list(steps[name].dependents)
    while waiting:
        each = waiting.pop()
        if each not in found:
            found.add(each)
            waiting += steps[each].dependents
    return found


def _end(store: Store, workflow_id: UUID) -> Iterator[str]:
    workflow = store.workflows[workflow_id]
    if (workflow.ended_at is not None) != WorkflowStatus(workflow.status).final:
        yield f"the workflow is {workflow.status} and ended_at {workflow.ended_at}"
    if workflow.ended_at is None:
        return
    rows: list[Any] = [*store.calls[workflow_id].values(), *store.steps[workflow_id].values()]
    for row in rows:
        if row.ended_at is None:
            yield f"the workflow is {workflow.status}, and {row.state} is {getattr(row, 'path', '')}{row}"
    if any(a.status == "open" for a in store.approvals[workflow_id].values()):
        yield "the workflow has ended, and a person is asked"
    after = (DueKind.DELIVERY, DueKind.APPLY)  # evidence that came late is decided about after the end, too
    if any(owner == workflow_id and kind not in after for (kind, _), (owner, _) in store.dues.items()):
        yield "the workflow has ended, and something of it is due"


def _woken(store: Store, workflow_id: UUID) -> Iterator[str]:
    workflow = store.workflows[workflow_id]
    if workflow.ended_at is not None or workflow.status == "paused":
        return
    due = any(owner == workflow_id and kind in WAKES for (kind, _), (owner, _) in store.dues.items())
    asked = any(a.status == "open" for a in store.approvals[workflow_id].values())
    held = any(call.held_reason == HeldReason.POISONED for call in store.calls[workflow_id].values())
    if not (due or asked or held or workflow.doubts or workflow.saga == "held" or workflow.undos_failed):
        yield f"S8: the workflow is {workflow.status}, and nothing wakes it"
