"""The states, told by the events alone: rebuilt from a workflow's numbered events and compared with its rows.

    replay(events) -> Told           the states that somebody who only reads events would believe in
    differences(events, …rows) -> [sentence, …]     where the rows say otherwise, or an event does not follow from the
                                                    one before it
    of_database(rows) -> {workflow: [sentence, …]}  the same of whole tables, read with `QUERIES`; only what differs

Rows and events are mappings with the column names of `app/store/tables.py`, as a `dict_row` cursor gives them; ids are
`uuid.UUID`. Pure. What events do not say one by one, because it follows from the workflow's own, is inferred here:

- a drain cancels what had not begun, its end whatever is open; a reopening may set back whatever had not succeeded;
- a call is made and claimed silently: `due` may be `intended`, and what no event spoke of is new;
- a person is asked no longer once the call or the step that asked goes on, or the workflow drains.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from app.domain import ids
from app.domain.legal import TABLE

Row = Mapping[str, Any]
States = frozenset[str]

_FINAL_STEP: Final = frozenset({"succeeded", "failed", "skipped", "cancelled"})
_DRAINS: Final = ("workflow.failing", "workflow.cancelling")
_SETTLED: Final = ("workflow.held", "workflow.compensating", "workflow.failed", "workflow.cancelled")
_SET_BACK: Final = frozenset({"pending", "running"})
"""Where a reopened step may be: one that had begun goes on without a word."""
_CREATED: Final = frozenset({"due", "held", "intended"})
"""Where a call may be of which no event has said where it is."""


def _edges() -> dict[str, set[tuple[str, str]]]:
    found: dict[str, set[tuple[str, str]]] = {
        machine: {(state, to) for state, facts in states.items() for leads_to in facts.values() for to in leads_to}
        for machine, states in TABLE.items()
    }
    found["step"].add(("pending", "waiting"))  # a step that asks a person begins and waits in one decision
    return found


EDGES: Final = _edges()


@dataclass(kw_only=True)
class Told:
    """What the events say. A set holds more than one state where they leave it open."""

    workflow: str | None = None
    steps: dict[str, States] = field(default_factory=dict)
    calls: dict[Any, str] = field(default_factory=dict)
    approvals: dict[str, str] = field(default_factory=dict)
    breaches: list[str] = field(default_factory=list)


def replay(events: Sequence[Row]) -> Told:
    told = Told()
    for n, event in enumerate(events, start=1):
        if event["seq"] != n:
            told.breaches.append(f"S7: event {n} has the number {event['seq']}")
        if event["to_state"] is not None:
            _move(told, event)
        _infer(told, event)
        _approval(told, event)
    return told


def _move(told: Told, event: Row) -> None:
    before, after = event["from_state"], event["to_state"]
    if event["call_id"] is not None:
        machine, name = "call", event["call_id"]
        known = told.calls.get(name)
        believed = (
            frozenset({before}) if known is None else frozenset({known, "intended"} if known == "due" else {known})
        )
        told.calls[name] = after
    elif event["step"] is not None:
        machine, name = "step", event["step"]
        believed = told.steps.get(name, frozenset({"pending"}))
        told.steps[name] = frozenset({after})
    else:
        machine, name = "workflow", ""
        believed = frozenset({told.workflow})
        told.workflow = after
    where = f"event {event['seq']} {event['type']} {_shown(event)}: {before} → {after}"
    if before not in believed:
        told.breaches.append(f"S7: {where}, but it was {' or '.join(map(str, sorted(believed, key=str)))}")
    legal = (before, after) in EDGES[machine] or (machine == "workflow" and before is None and after == "queued")
    if not legal:
        told.breaches.append(f"S7: {where} is no legal move")


def _shown(event: Row) -> str:
    call = "" if event["call_id"] is None else f" {ids.encode('call', event['call_id'])}"
    return f"{event['step'] or 'of the workflow'}{call}"


def _infer(told: Told, event: Row) -> None:
    if event["type"] in _DRAINS:
        told.approvals = {name: "cancelled" if said == "open" else said for name, said in told.approvals.items()}
    for path, states in told.steps.items():
        match event["type"]:
            case "workflow.failing" | "workflow.cancelling":
                told.steps[path] = frozenset("cancelled" if state == "pending" else state for state in states)
            case "workflow.reopened":
                told.steps[path] = states | _SET_BACK if states & {"failed", "cancelled"} else states
            case kind if kind in _SETTLED:
                told.steps[path] = frozenset(state if state in _FINAL_STEP else "cancelled" for state in states)


def _approval(told: Told, event: Row) -> None:
    words = {"approval.requested": "open", "approval.decided": "decided", "approval.expired": "expired"}
    if event["type"] in words:
        told.approvals[event["data"]["approval"]] = words[event["type"]]


# --- against the rows ----------------------------------------------------------------------------------------------


def differences(
    events: Sequence[Row],
    *,
    workflow: Row,
    steps: Iterable[Row],
    calls: Iterable[Row],
    approvals: Iterable[Row],
) -> list[str]:
    told, made = replay(events), list(calls)
    found = list(told.breaches)
    if workflow["last_seq"] != len(events):
        found.append(f"S7: the workflow counts {workflow['last_seq']} events, and there are {len(events)}")
    if told.workflow != workflow["status"]:
        found.append(f"the workflow is {workflow['status']}, and its events say {told.workflow}")
    found += _of_steps(told, steps)
    found += _of_calls(told, made)
    found += _of_approvals(told, approvals, {call["id"]: call["state"] for call in made})
    return found


_OURS: Final = "WHERE %(workflows)s::uuid[] IS NULL OR {} = ANY(%(workflows)s)"
QUERIES: Final[Mapping[str, str]] = {
    "workflows": f"SELECT id, status, last_seq FROM workflows {_OURS.format('id')} ORDER BY id",
    "steps": f"SELECT workflow_id, path, state FROM steps {_OURS.format('workflow_id')}",
    "calls": "SELECT workflow_id, id, step, n, kind, state, attempts, created_at, ended_at "
    f"FROM calls {_OURS.format('workflow_id')}",
    "approvals": f"SELECT workflow_id, id, step, call_id, status FROM approvals {_OURS.format('workflow_id')}",
    "events": "SELECT workflow_id, seq, type, step, call_id, from_state, to_state, data "
    f"FROM events {_OURS.format('workflow_id')} ORDER BY workflow_id, seq",
}
"""What of each table is compared, in psycopg's form: of these `workflows`, or of all (None). Read in one snapshot
(REPEATABLE READ) if anybody still writes; a large database in pieces."""


def of_database(rows: Mapping[str, Iterable[Row]]) -> dict[Any, list[str]]:
    """`rows`: name of a query in `QUERIES` → what it found."""
    grouped: dict[str, dict[Any, list[Row]]] = {name: {} for name in QUERIES}
    for name in ("steps", "calls", "approvals", "events"):
        for row in rows[name]:
            grouped[name].setdefault(row["workflow_id"], []).append(row)
    found = {
        workflow["id"]: differences(
            grouped["events"].get(workflow["id"], []),
            workflow=workflow,
            steps=grouped["steps"].get(workflow["id"], []),
            calls=grouped["calls"].get(workflow["id"], []),
            approvals=grouped["approvals"].get(workflow["id"], []),
        )
        for workflow in rows["workflows"]
    }
    return {workflow: sentences for workflow, sentences in found.items() if sentences}


def _of_steps(told: Told, steps: Iterable[Row]) -> Iterator[str]:
    for row in steps:
        possible = told.steps.get(row["path"], frozenset({"pending", "cancelled"}))
        if row["state"] not in possible:
            yield f"step {row['path']} is {row['state']}, and the events say {' or '.join(sorted(possible))}"


def _of_calls(told: Told, calls: Iterable[Row]) -> Iterator[str]:
    for row in calls:
        known = told.calls.get(row["id"])
        if known is None:
            # Made in its last state: answered from the record, or refused before it was sent.
            silent = row["state"] in _CREATED or (row["attempts"] == 0 and row["ended_at"] == row["created_at"])
        else:
            silent = row["state"] == known or (known == "due" and row["state"] == "intended")
        if not silent:
            name = f"{row['kind']} {row['step']}#{row['n']}"
            yield f"{name} is {row['state']}, and the events say {known or 'nothing about it'}"


def _of_approvals(told: Told, approvals: Iterable[Row], calls: Mapping[Any, str]) -> Iterator[str]:
    for row in approvals:
        name = ids.encode("apr", row["id"])
        known = told.approvals.get(name)
        if row["status"] == known:
            continue
        goes_on = calls.get(row["call_id"]) != "held" if row["call_id"] is not None else _over(told, row["step"])
        if not (row["status"] == "cancelled" and known == "open" and goes_on):
            yield f"the approval {name} of {row['step']} is {row['status']}, and the events say {known}"


def _over(told: Told, step: str) -> bool:
    """Nobody needs the answer of a step that asked: it has ended."""
    return "waiting" not in told.steps.get(step, frozenset({"pending"}))
