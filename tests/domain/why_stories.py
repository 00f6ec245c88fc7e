"""Situations in which a workflow does not move, one function for each: the rows, explained."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from app.domain.definition.catalogue import Catalogue
from app.domain.definition.checking import check
from app.domain.definition.compiling import compile_plan
from app.domain.plan import Probe
from app.domain.why import Reason, Situation, explain
from tests.domain.fabricated_rows import WORKER, at, attempt, call, number_id, workflow

NOW = at(60)
CHECKABLE: dict[str, Any] = {
    "name": "mail",
    "tools": {
        "email.search": {"http": {"method": "GET", "url": "https://email.example.com/search"}},
        "email.send": {
            "http": {"method": "POST", "url": "https://email.example.com/send"},
            "effect": "checkable",
            "probe": {"tool": "email.search", "with": {"to": "${{ arguments.to }}"}, "found": "output.found"},
        },
    },
    "steps": {"send": {"tool": "email.send", "with": {"to": "ana@example.com"}}},
}

Row = dict[str, Any]


def running(**columns: Any) -> Row:
    return workflow(**{"status": "running", "ended_at": None, "open_calls": 1} | columns)


def sends(state: str, **columns: Any) -> Row:
    """The call that all these stories are about: a mail in the step `send`."""
    return call(1, "send", tool="email.send", effect="at_most_once", state=state, **columns)


def due(kind: str, ref: UUID, seconds: float, *, note: str | None = None) -> Row:
    return {"kind": kind, "ref": ref, "due_at": at(seconds), "note": note}


def tried(of: Row, **columns: Any) -> Row:
    lost = columns.pop("worker_lost_at", None)
    row = attempt(1, of, began=50, ended=None, send_deadline=at(80)) | columns
    return row | {"worker": WORKER, "worker_name": "worker.2", "worker_lost_at": lost, "worker_lease_until": at(70)}


def asks(**columns: Any) -> Row:
    return {
        "id": number_id(77), "step": "review", "call_id": None, "kind": "step", "title": "Send it?", "revision": 3,
        "allow": ["approve", "reject"], "approver": "anyone", "created_at": at(5), "expires_at": None,
    } | columns  # fmt: skip


def probes() -> dict[str, Probe]:
    body = check(CHECKABLE, lines={}, source_name=None, catalogue=Catalogue()).plan_body
    return {tool.name: tool.probe for tool in compile_plan(body).tools.values() if tool.probe is not None}


def reasons(row: Row, *calls: Row, dues: tuple[Row, ...] = (), **more: Any) -> list[Reason]:
    situation = Situation(workflow=row, now=NOW, calls=calls, dues=dues, workers=more.pop("workers", [1]), **more)
    return explain(situation)


def in_flight() -> list[Reason]:
    asked = sends("intended", attempt_id=number_id(2001))
    return reasons(running(), asked, dues=(due("attempt", asked["id"], 95),), attempts=[tried(asked)])


def model_in_flight() -> list[Reason]:
    asked = call(1, "plan", kind="model", tool=None, state="intended", attempt_id=number_id(2001))
    return reasons(running(), asked, dues=(due("attempt", asked["id"], 95),), attempts=[tried(asked)])


def worker_lost() -> list[Reason]:
    asked = sends("intended", attempt_id=number_id(2001))
    lost = tried(asked, worker_lost_at=at(55))
    return reasons(running(), asked, dues=(due("attempt", asked["id"], 80),), attempts=[lost])


def worker_silent() -> list[Reason]:
    asked = sends("intended", attempt_id=number_id(2001))
    late = tried(asked, send_deadline=at(58))
    return reasons(running(), asked, dues=(due("attempt", asked["id"], 73),), attempts=[late])


def recording() -> list[Reason]:
    asked = sends("intended", attempt_id=number_id(2001))
    return reasons(running(), asked, dues=(due("apply", asked["id"], 61),))


def result_awaited() -> list[Reason]:
    asked = sends("intended", attempt_id=number_id(2001))
    accepted = tried(asked, status_code=202, received_at=at(51))
    return reasons(running(), asked, dues=(due("result", asked["id"], 650),), attempts=[accepted])


def backing_off() -> list[Reason]:
    asked = sends("due", recovery=[{"kind": "rate_limited"}])
    return reasons(running(), asked, dues=(due("call", asked["id"], 90),))


def not_on_this_worker() -> list[Reason]:
    asked = sends("due", attempt_id=number_id(2001))
    said = "email.send was not called: worker.2 has no distribution `acme-tools`."
    last = tried(asked, outcome="not_sent", failure={"kind": "worker_lost", "message": said})
    return reasons(running(), asked, dues=(due("call", asked["id"], 90),), attempts=[last])


def queued() -> list[Reason]:
    asked = sends("due")
    return reasons(running(), asked, dues=(due("call", asked["id"], 59),), ahead={asked["id"]: 1930})


def next_in_line() -> list[Reason]:
    asked = sends("due")
    return reasons(running(), asked, dues=(due("call", asked["id"], 59),))


def no_worker() -> list[Reason]:
    asked = sends("due")
    return reasons(running(), asked, dues=(due("call", asked["id"], 30),), workers=[])


def old_workers() -> list[Reason]:
    asked = sends("due", engine_version=2)
    return reasons(running(), asked, dues=(due("call", asked["id"], 30),), workers=[1, 1])


def restored() -> list[Reason]:
    asked = sends("due")
    return reasons(running(), asked, dues=(due("call", asked["id"], 30),), restored=True)


def probing() -> list[Reason]:
    asks_for = call(2, "send", n=2, kind="probe", tool="email.search", state="due", target=number_id(1001))
    asked = sends("probing", probe_id=asks_for["id"], not_before=at(40), doubt_since=at(10))
    return reasons(
        running(open_calls=2), asked, asks_for, dues=(due("call", asks_for["id"], 70),), probes=probes(),
        verdicts={asked["id"]: ["unclear", "absent"]},
    )  # fmt: skip


def being_probed() -> list[Reason]:
    asks_for = call(2, "send", n=2, kind="probe", tool="email.search", state="intended", target=number_id(1001))
    asked = sends("probing", probe_id=asks_for["id"], not_before=at(40), doubt_since=at(10))
    return reasons(running(open_calls=2), asked, asks_for, dues=(due("attempt", asks_for["id"], 70),), probes=probes())


def accepted_and_probed() -> list[Reason]:
    asks_for = call(2, "send", n=2, kind="probe", tool="email.search", state="due", target=number_id(1001))
    asked = sends("probing", probe_id=asks_for["id"], not_before=at(700), attempt_id=number_id(2001))
    accepted = tried(asked, status_code=202, received_at=at(51))
    return reasons(running(open_calls=2), asked, asks_for, dues=(due("call", asks_for["id"], 70),), attempts=[accepted])


def doubt_in_quarantine() -> list[Reason]:
    asked = sends("in_doubt", doubt_since=at(10), not_before=at(70), attempts=2)
    return reasons(waiting(doubts=1), asked)


def doubt_with_probe() -> list[Reason]:
    asked = sends("in_doubt", doubt_since=at(10), not_before=at(20))
    return reasons(waiting(doubts=1), asked, probes=probes())


def approval() -> list[Reason]:
    return reasons(waiting(waits=1), approvals=[asks(expires_at=at(3600))])


def approval_of_a_call() -> list[Reason]:
    asked = sends("held", held_reason="repeat")
    person = asks(step="send", call_id=asked["id"], kind="repeat", allow=[], approver="other_than_submitter")
    return reasons(waiting(held=1), asked, approvals=[person])


def paused() -> list[Reason]:
    held = [sends("held", held_reason="pause"), call(2, "other", state="held", held_reason="pause")]
    pause = {"by": "kim", "reason": "the bank is closed", "at": at(20)}
    return reasons(workflow(status="paused", ended_at=None, held=2), *held, pause=pause)


def paused_with_many() -> list[Reason]:
    held = sends("held", held_reason="pause")
    return reasons(workflow(status="paused", ended_at=None, held=900), held, more=899)


def switched_off() -> list[Reason]:
    asked = sends("held", held_reason="operator")
    switch = {"scope": "tool:email.send", "by": "kim", "reason": "it sends twice", "created_at": at(15)}
    marker = due("switch", asked["id"], 75, note="tool:email.send")
    return reasons(waiting(held=1), asked, dues=(marker,), switches=[switch])


def attached() -> list[Reason]:
    asked = sends("held", held_reason="attached", target=number_id(9))
    owner = {"workflow_id": number_id(5), "step": "send", "state": "intended"}
    return reasons(waiting(held=1), asked, dues=(due("attached", asked["id"], 75),), owners={number_id(9): owner})


def poisoned() -> list[Reason]:
    return reasons(waiting(held=1), sends("held", held_reason="poisoned"))


def failing() -> list[Reason]:
    failure = {"kind": "tool_error", "message": "no", "step": "settle"}
    asked = sends("in_doubt", doubt_since=at(10), not_before=at(20))
    return reasons(workflow(status="failing", ended_at=None, doubts=1, failure=failure), asked)


def saga_held() -> list[Reason]:
    failure = {"kind": "tool_error", "message": "no", "step": "settle"}
    return reasons(workflow(status="failing", ended_at=None, saga="held", undos=2, failure=failure, updated_at=at(9)))


def undo_failed() -> list[Reason]:
    row = workflow(status="compensating", ended_at=None, effects_undone=1, undos=1, undos_failed=1)
    effect = sends("succeeded", undo="failed", ended_at=at(30))
    return reasons(row, effect, undo_failures={effect["id"]: {"reason": "payments.refund answered 409.", "at": at(33)}})


def undo_failed_without_a_word() -> list[Reason]:
    row = workflow(status="compensating", ended_at=None, effects_undone=1, undos=1, undos_failed=1)
    return reasons(row, sends("succeeded", undo="failed", ended_at=at(30)))


def nothing() -> list[Reason]:
    return reasons(running(open_calls=0, updated_at=at(3)), dues=(due("deadline", number_id(0), 604800),))


def due_without_a_due() -> list[Reason]:
    return reasons(running(), sends("due"))


def waiting(**columns: Any) -> Row:
    return workflow(status="waiting", ended_at=None, **columns)
