"""Rows as the store reads them, made by hand for tests of what people see: the sample story of the trace.

`sample()` is the meeting scheduler of the README: 5.75 s, $0.042, one malformed answer. Times are seconds after `T0`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

T0 = datetime(2026, 11, 24, 14, 2, 11, tzinfo=UTC)
WORKFLOW = UUID("0193491d-23c1-7000-8000-00000000c0de")
WORKER = UUID("0193491d-0000-7000-8000-0000000000aa")

Row = dict[str, Any]


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def number_id(number: int) -> UUID:
    return UUID(int=WORKFLOW.int + number)


def workflow(**columns: Any) -> Row:
    return {
        "id": WORKFLOW,
        "name": "meeting-scheduler",
        "version": 3,
        "definition_digest": "sha256:d1",
        "status": "succeeded",
        "idempotency_key": "booking-7731",
        "input": {},
        "output": None,
        "failure": None,
        "compensation": None,
        "labels": {},
        "attention": [],
        "cancel": None,
        "steps_total": 5,
        "steps_done": 5,
        "steps_open": 0,
        "open_calls": 0,
        "waits": 0,
        "timers": 0,
        "doubts": 0,
        "held": 0,
        "retries": 0,
        "effects_done": 0,
        "effects_undone": 0,
        "effects_abandoned": 0,
        "undos": 0,
        "undos_failed": 0,
        "pivot_passed": False,
        "saga": None,
        "duplicates_prevented": 0,
        "spent_microusd": 0,
        "recovery_microusd": 0,
        "input_tokens": 0,
        "output_tokens": 0,
        "created_at": at(0),
        "started_at": at(0),
        "updated_at": at(5.75),
        "ended_at": at(5.75),
    } | columns


def step(path: str, position: int, *, began: float | None, ended: float | None, **columns: Any) -> Row:
    parent, _, index = path.rpartition(".")
    return {
        "workflow_id": WORKFLOW,
        "path": path,
        "name": parent or path,
        "position": position,
        "parent": parent or None,
        "item_index": int(index) if parent else None,
        "kind": "tool",
        "state": "succeeded" if ended is not None else "running",
        "title": None,
        "unmet_needs": 0,
        "failure": None,
        "output": None,
        "undo": "none",
        "items_total": None,
        "items_open": None,
        "items_failed": None,
        "started_at": None if began is None else at(began),
        "ended_at": None if ended is None else at(ended),
    } | columns


def call(number: int, step_path: str, **columns: Any) -> Row:
    return {
        "workflow_id": WORKFLOW,
        "id": number_id(1000 + number),
        "step": step_path,
        "n": 1,
        "kind": "tool",
        "tool": "calendar.free_busy",
        "turn": 0,
        "ordinal": 0,
        "effect": "read_only",
        "state": "succeeded",
        "held_reason": None,
        "attempts": 1,
        "request": {},
        "key": None,
        "business_key": False,
        "generation": 1,
        "retry_of": None,
        "change": None,
        "recovery": [],
        "result": None,
        "failure": None,
        "not_before": None,
        "doubt_since": None,
        "resolved": None,
        "undo": "none",
        "tries": {},
        "target": None,
        "probe_id": None,
        "compensation": None,
        "attempt_id": None,
        "engine_version": 1,
        "created_at": at(0),
        "ended_at": None,
    } | columns


def attempt(number: int, of: Row, *, began: float, ended: float | None, **columns: Any) -> Row:
    return {
        "workflow_id": WORKFLOW,
        "call_id": of["id"],
        "id": number_id(2000 + number),
        "n": 1,
        "worker": WORKER,
        "intended_at": at(began),
        "sent_at": at(began),
        "received_at": None if ended is None else at(ended),
        "send_deadline": at(began + 30),
        "outcome": "succeeded" if ended is not None else None,
        "lost_at": None,
        "failure": None,
        "status_code": None,
        "usage": None,
        "cost_microusd": None,
        "settled_at": None,
    } | columns


MALFORMED = {
    "kind": "malformed_output",
    "message": "Expecting ',' delimiter, line 4 col 37",
    "fix": None,
    "detail": {},
}
REMINDED = {
    "kind": "malformed_output",
    "rule": "malformed_output",
    "source": "definition",
    "line": 26,
    "used": 1,
    "allowed": 2,
    "message": "Expecting ',' delimiter, line 4 col 37",
    "change": "format_reminder",
    "diff": None,
    "waited_ms": 260,
    "result": "succeeded",
}


def model_call(number: int, path: str, **columns: Any) -> Row:
    return call(number, path, kind="model", tool=None, turn=1, request={"alias": "fast"}, **columns)


def sample() -> tuple[Row, list[Row], list[Row], list[Row]]:
    """Workflow, steps, calls, attempts of the sample in the README."""
    first = model_call(1, "understand", state="failed", failure=MALFORMED)
    second = model_call(2, "understand", n=2, retry_of=first["id"], change={"kind": "format_reminder"})
    second["recovery"] = [REMINDED]
    free = [call(3 + index, f"availability.{index}") for index in range(2)]
    choose = model_call(5, "choose")
    create = call(
        6, "create_event", tool="calendar.create_event", effect="keyed", key="meeting:7731", business_key=True,
    )  # fmt: skip
    invites = [
        call(7 + index, f"invite.{index}", tool="email.send", effect="at_most_once", result={"message_id": f"m{index}"})
        for index in range(2)
    ]
    steps = [
        step("understand", 0, began=0.03, ended=3.31, kind="agent"),
        step("availability", 1, began=3.33, ended=3.80, items_total=2, items_open=0, items_failed=0),
        step("availability.0", 1, began=3.33, ended=3.75),
        step("availability.1", 1, began=3.33, ended=3.80),
        step("choose", 2, began=3.82, ended=4.70, kind="agent"),
        step("create_event", 3, began=4.97, ended=5.46, output={"event_id": "evt_8841"}),
        step("invite", 4, began=5.48, ended=5.74, items_total=2, items_open=0, items_failed=0),
        step("invite.0", 4, began=5.48, ended=5.70),
        step("invite.1", 4, began=5.48, ended=5.74),
    ]
    attempts = [
        attempt(1, first, began=0.03, ended=1.52, cost_microusd=12_100),
        attempt(2, second, began=1.78, ended=3.31, cost_microusd=14_300),
        attempt(3, free[0], began=3.33, ended=3.75),
        attempt(4, free[1], began=3.33, ended=3.80),
        attempt(5, choose, began=3.82, ended=4.70, cost_microusd=15_600),
        attempt(6, create, began=4.97, ended=5.46),
        attempt(7, invites[0], began=5.48, ended=5.70),
        attempt(8, invites[1], began=5.48, ended=5.74),
    ]
    row = workflow(spent_microusd=42_000, recovery_microusd=12_100, retries=1, effects_done=3)
    return row, steps, [first, second, *free, choose, create, *invites], attempts
