"""What people see of the rows in memory: `why` and the trace, asked after every rule. They never raise, account for
every call that is not settled, and speak of every doubt."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from uuid import UUID

from app.domain import ids
from app.domain.situation import ENDING_DUES, Situation
from app.domain.states import ApprovalStatus, CallState, HeldReason, Undo, WorkflowStatus
from app.domain.trace import build_trace
from app.domain.trace_text import render_text
from app.domain.why import explain
from app.store.trace_views import FINDINGS
from tests.domain.machine_store import Store

Row = dict[str, Any]


def row_of(row: Any, **more: Any) -> Row:
    """A row as the store reads it: column name → value."""
    return {each.name: getattr(row, each.name) for each in dataclasses.fields(row) if each.name != "history"} | more


def unseen(store: Store, workflow_id: UUID, *, now: datetime) -> Iterator[str]:
    """What is so and is not told."""
    yield from _why(store, workflow_id, now)
    yield from _trace(store, workflow_id, now)


def _why(store: Store, workflow_id: UUID, now: datetime) -> Iterator[str]:
    found = situation(store, workflow_id, now=now)
    reasons = explain(found)
    if WorkflowStatus(store.workflows[workflow_id].status).final:
        if reasons:
            yield f"why tells of a workflow that has ended: {reasons[0].headline}"
        return
    if any(reason.kind == "nothing" for reason in reasons):
        yield f"why finds nothing that is waited for: {[reason.headline for reason in reasons]}"
    told = {reason.call for reason in reasons if reason.kind == "doubt"}
    for call in found.calls:
        if call["state"] == CallState.IN_DOUBT and ids.encode("call", call["id"]) not in told:
            yield f"why does not speak of the doubt {call['step']}#{call['n']}"


def situation(store: Store, workflow_id: UUID, *, now: datetime) -> Situation:
    calls = [
        call
        for call in store.calls[workflow_id].values()
        if not CallState(call.state).final or call.undo == Undo.FAILED
    ]
    attempts = [a for call in calls for a in call.history if a.id == call.attempt_id]
    refs = {call.id for call in calls}
    approvals = store.approvals[workflow_id].values()
    events = [row_of(event) for event in store.events[workflow_id]]
    paused = [event for event in events if event["type"] == "workflow.paused"]
    wants_pause = any(call.held_reason == HeldReason.PAUSE for call in calls)
    is_paused = store.workflows[workflow_id].status == WorkflowStatus.PAUSED
    owners = {call.target for call in calls if call.held_reason == HeldReason.ATTACHED}
    plan = store.plans[workflow_id]
    return Situation(
        workflow=row_of(store.workflows[workflow_id]),
        now=now,
        calls=[row_of(call) for call in calls],
        attempts=[_with_worker(store, attempt) for attempt in attempts],
        dues=[
            row_of(due, rung=0, workflow_id=workflow_id)
            for (kind, ref), (owner, due) in store.dues.items()
            if owner == workflow_id and (ref in refs or kind in ENDING_DUES)
        ],
        approvals=[row_of(each) for each in approvals if each.status == ApprovalStatus.OPEN],
        switches=[
            {"scope": scope, "reason": None, "by": "kim", "created_at": at} for scope, at in store.switches.items()
        ],
        pause={**paused[-1]["data"], "at": paused[-1]["at"]} if paused and (is_paused or wants_pause) else None,
        verdicts=_verdicts(events),
        undo_failures=_undo_failures(events),
        owners={call.id: row_of(call) for call in store.every_call() if call.id in owners},
        probes={name: tool.probe for name, tool in plan.tools.items() if tool.probe is not None},
        ahead={ref: 0 for (kind, ref) in store.dues if kind == "call"},
        workers=[1 for worker in store.workers.values() if worker.lost_at is None],
    )


def _with_worker(store: Store, attempt: Any) -> Row:
    sender = store.workers[attempt.worker]
    named = {"worker_name": "w", "worker_lost_at": sender.lost_at, "worker_lease_until": sender.lease_until}
    return row_of(attempt, **named)


def _verdicts(events: list[Row]) -> dict[UUID, list[str]]:
    said: dict[UUID, list[str]] = {}
    for event in events:
        if event["type"] == "effect.probed":
            said.setdefault(event["call_id"], []).append(str(event["data"]["verdict"]))
    return said


def _undo_failures(events: list[Row]) -> dict[UUID, Row]:
    return {
        ids.decode("call", str(event["data"]["effect"])): {"reason": event["data"]["reason"], "at": event["at"]}
        for event in events
        if event["type"] == "compensation.failed"
    }


def _trace(store: Store, workflow_id: UUID, now: datetime) -> Iterator[str]:
    calls = sorted(store.calls[workflow_id].values(), key=lambda call: (call.step, call.n))
    steps = sorted(store.steps[workflow_id].values(), key=lambda s: (s.position, s.item_index or -1, s.path))
    dues = {ref: due.due_at for (_, ref), (_, due) in store.dues.items()}
    trace = build_trace(
        row_of(store.workflows[workflow_id]),
        [row_of(step) for step in steps],
        [row_of(call, due_at=dues.get(call.id)) for call in calls],
        [row_of(attempt) for call in calls for attempt in call.history],
        approvals=[row_of(each) for each in store.approvals[workflow_id].values()],
        findings=[row_of(event) for event in store.events[workflow_id] if event.type in FINDINGS],
        now=now,
    )
    text = render_text(trace, width=100)
    doubts = sum(call.state == CallState.IN_DOUBT for call in calls)
    shown = text.count("?")
    if doubts and not shown:
        yield f"the trace shows none of {doubts} doubts:\n{text}"
