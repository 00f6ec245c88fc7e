"""The span tree: nothing that was tried is missing, and it survives the way over the wire."""

from __future__ import annotations

import json

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
