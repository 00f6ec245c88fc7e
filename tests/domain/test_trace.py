"""The span tree: nothing that was tried is missing, and it survives the way over the wire."""

from __future__ import annotations

import json
from typing import Any

from app.domain import ids
from app.domain.spans import Span, Trace, chains
from app.domain.trace import build_trace
from tests.domain.fabricated_rows import WORKFLOW, at, attempt, call, sample, step, workflow


def _named(trace: Trace, name: str) -> Span:
    return next(span for span in trace.root.walk() if span.kind == "step" and span.name == name)


def test_build_trace_nests_every_attempt_under_its_call_step_and_workflow() -> None:
    row, steps, calls, attempts = sample()

    trace = build_trace(row, steps, calls, attempts)

    spans = list(trace.root.walk())
    assert trace.root.id == ids.encode("wf", WORKFLOW)
    assert [child.name for child in trace.root.children] == [
        "understand", "availability", "choose", "create_event", "invite",
    ]  # fmt: skip
    assert [child.name for child in _named(trace, "invite").children] == ["invite.0", "invite.1"]
    assert sum(span.kind == "attempt" for span in spans) == len(attempts)
    assert sum(span.kind == "call" for span in spans) == len(calls)


def test_build_trace_sums_costs_over_all_attempts_when_one_failed() -> None:
    trace = build_trace(*sample())

    assert _named(trace, "understand").cost_usd == "0.0264"
    assert trace.totals["recovery_usd"] == "0.0121"
    assert trace.totals["recovery_ms"] == 1750


def test_build_trace_keeps_a_cost_unknown_when_no_attempt_has_a_price() -> None:
    assert _named(build_trace(*sample()), "create_event").cost_usd is None


def test_a_call_that_replaced_another_is_one_chain_with_it() -> None:
    calls = [child for child in _named(build_trace(*sample()), "understand").children if child.kind == "call"]

    assert [[one.n for one in chain] for chain in chains(calls)] == [[1, 2]]
    assert calls[1].recovery[0]["change"] == "format_reminder"


def test_a_trace_is_the_same_when_it_has_been_json() -> None:
    trace = build_trace(*sample(), source_name="meeting-scheduler.yaml")

    assert Trace.from_json(json.loads(json.dumps(trace.to_json()))) == trace


def test_a_span_has_every_key_when_it_becomes_json() -> None:
    spans = build_trace(*sample()).to_json()["spans"]

    promised = {
        "id", "kind", "name", "headline", "status", "started_at", "ended_at", "duration_ms", "cost_usd", "usage",
        "effect", "key", "recovery", "children",
    }  # fmt: skip
    assert promised <= set(spans[0])
    assert spans[0]["duration_ms"] == 5750


def test_an_attempt_is_lost_when_its_worker_was_and_no_outcome_came() -> None:
    asked = call(1, "a", state="due", attempts=2)
    tries = [
        attempt(1, asked, began=0, ended=None, lost_at=at(2)),
        attempt(2, asked, n=2, began=3, ended=None),
    ]
    steps = [step("a", 0, began=0, ended=None)]

    trace = build_trace(workflow(status="running", ended_at=None), steps, [asked], tries)

    assert [span.status for span in trace.root.walk() if span.kind == "attempt"] == ["lost", "open"]


def test_a_key_is_shown_with_its_generation_when_it_is_not_the_first() -> None:
    asked = call(1, "a", effect="keyed", key="order:9", generation=2)

    trace = build_trace(workflow(), [step("a", 0, began=0, ended=1)], [asked], [attempt(1, asked, began=0, ended=1)])

    assert _named(trace, "a").key == "order:9#2"


def test_a_trace_can_be_built_when_nothing_has_begun() -> None:
    row = workflow(status="queued", started_at=None, ended_at=None, updated_at=at(0))

    trace = build_trace(row, [], [], [])

    assert trace.root.children == ()
    assert trace.totals["duration_ms"] == 0


def _found(seconds: float, of: dict[str, Any], kind: str, **data: Any) -> dict[str, Any]:
    return {"type": kind, "call_id": of["id"], "attempt_id": None, "at": at(seconds), "data": data}


def _records(trace: Trace) -> list[tuple[str, str, str]]:
    told = [record for span in trace.root.walk() for record in span.recovery if record["source"] == "ledger"]
    return [(record["kind"], record["result"], record["message"]) for record in told]


def test_build_trace_hangs_probes_and_undos_under_the_call_they_are_about() -> None:
    create = call(1, "create", effect="checkable", tool="calendar.create", undo="done")
    probe = call(2, "create", n=2, kind="probe", tool="calendar.find", target=create["id"])
    undo = call(3, "create", n=3, kind="compensation", tool="calendar.delete", effect="idempotent", target=create["id"])
    asks_whether_undone = call(4, "create", n=4, kind="probe", tool="calendar.find", target=undo["id"])
    calls = [create, probe, undo, asks_whether_undone]
    attempts = [attempt(number, each, began=number, ended=number + 1) for number, each in enumerate(calls)]

    trace = build_trace(workflow(), [step("create", 0, began=0, ended=9)], calls, attempts)

    [made] = _named(trace, "create").calls
    assert [(aside.name, aside.role) for aside in made.calls] == [
        ("calendar.find", "probe"), ("calendar.delete", "compensation"),
    ]  # fmt: skip
    assert [aside.name for aside in made.calls[1].calls] == ["calendar.find"]
    assert len(made.attempts) == 1
    assert Trace.from_json(json.loads(json.dumps(trace.to_json()))) == trace


def test_build_trace_keeps_an_attached_call_in_its_step_when_its_target_is_elsewhere() -> None:
    attached = call(1, "send", effect="keyed", target=WORKFLOW, attempts=0, business_key=True, key="order:7")
    attached["resolved"] = {"outcome": "attached", "owner": "call_9", "by": "effect_keys", "at": "2026-11-24T14:02:11Z"}
    events = [_found(1, attached, "effect.attached", owner="call_9", key="order:7")]

    trace = build_trace(workflow(), [step("send", 0, began=0, ended=1)], [attached], [], findings=events)

    [span] = _named(trace, "send").calls
    assert (span.decided, span.children) == (None, ())
    assert _records(trace) == [
        ("attached", "attached", "The key belongs to call_9: its result is taken, nothing is sent"),
        ("duplicate_prevented", "prevented", "Done once, by the call that owns the key"),
    ]


def test_build_trace_tells_verdicts_in_order_when_a_call_was_probed_and_contradicted() -> None:
    send = call(1, "send", effect="checkable", tool="email.send")
    probe = call(2, "send", n=2, kind="probe", tool="email.search", target=send["id"])
    events = [
        _found(1, send, "effect.probed", verdict="absent"),
        _found(2, send, "effect.resolved", outcome="did_not_happen", by="kim", note="I looked."),
        _found(3, send, "effect.contradicted", settled="did_not_happen", evidence="succeeded"),
    ]

    trace = build_trace(workflow(), [step("send", 0, began=0, ended=1)], [send, probe], [], findings=events)

    assert _records(trace) == [
        ("probe", "absent", "email.search was asked: not there"),
        ("verdict", "did_not_happen", "settled as did not happen by kim: I looked."),
        ("contradiction", "succeeded", "Settled as did_not_happen, but then came: succeeded"),
    ]


def test_build_trace_tells_a_prevented_duplicate_only_when_a_keyed_call_was_sent_again() -> None:
    keyed = call(1, "pay", effect="keyed", key="pay:1", attempts=2)
    first = attempt(1, keyed, began=0, ended=None, outcome="unknown")
    second = attempt(2, keyed, n=2, began=1, ended=2)
    steps = [step("pay", 0, began=0, ended=2)]

    twice = build_trace(workflow(), steps, [keyed], [first, second])
    once = build_trace(workflow(), steps, [keyed], [second])
    put = build_trace(workflow(), steps, [keyed | {"effect": "idempotent"}], [first, second])

    assert [kind for kind, *_ in _records(twice)] == ["duplicate_prevented"]
    assert _records(once) == _records(put) == []


def test_build_trace_says_that_a_result_is_waited_for_when_the_tool_accepted_the_call() -> None:
    render = call(1, "render", tool="reports.render", state="intended")
    accepted = attempt(1, render, began=0, ended=0.5, outcome=None, status_code=202)
    row = workflow(status="running", ended_at=None)

    trace = build_trace(row, [step("render", 0, began=0, ended=None)], [render], [accepted])

    [span] = _named(trace, "render").calls
    assert span.waiting["kind"] == "result"
    assert span.headline == "reports.render accepted it (202) in 0.50 s; its result is waited for."
