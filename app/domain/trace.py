"""The trace: every attempt of a workflow as a tree of spans, workflow → step (→ item) → call → attempt. A probe and a
compensation are calls under the call that they are about.

`build_trace` reads rows (mappings with the column names of `app/store/tables.py`) and decides nothing: what was
retried is there with its time, tokens and money, the recovery records stand on the call that they caused, and costs are
sums over attempts. The shape is `Trace` (`spans.py`), the picture `trace_text.py`. Pure: `as_of` is the latest instant
the rows know, or the caller's clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from app.domain import decided, headlines, ids, ledger_records, stories, trace_totals, uninstalled
from app.domain.amounts import usd
from app.domain.outcomes import JSON
from app.domain.partials import Partial
from app.domain.spans import Span, Trace, instant_text, microusd
from app.domain.states import (
    ApprovalStatus,
    CallKind,
    CallState,
    EffectClass,
    HeldReason,
    StepKind,
    StepState,
    Undo,
)

Row = Mapping[str, Any]

EFFECT_KINDS = frozenset({CallKind.TOOL, CallKind.COMPENSATION})
"""Kinds of calls that may change something; a probe or a model call has an effect class but is no effect."""
ASIDES = frozenset({CallKind.PROBE, CallKind.COMPENSATION})
"""Kinds of calls that stand under the call they are about."""


def build_trace(
    workflow: Row,
    steps: Sequence[Row],
    calls: Sequence[Row],
    attempts: Sequence[Row],
    *,
    approvals: Sequence[Row] = (),
    findings: Sequence[Row] = (),
    source_name: str | None = None,
    now: datetime | None = None,
    partials: Mapping[UUID, Partial] | None = None,
) -> Trace:
    """The tree of one workflow. `source_name` is the file the definition came from, for the lines of its rules;
    `findings` are the events that no row repeats (`trace_views.FINDINGS`); `partials` is what is being written, by
    attempt."""
    rows = _Rows(
        workflow=workflow, steps=steps, calls=calls, attempts=attempts, approvals=approvals, findings=findings, now=now
    )
    rows.partials = partials or {}
    root = rows.workflow_span()
    as_of = max(instant for instant in (now, workflow["updated_at"], workflow["ended_at"]) if instant is not None)
    return Trace(
        workflow={
            "id": root.id,
            "status": root.status,
            "headline": root.headline,
            "definition": {
                "name": workflow["name"],
                "version": workflow["version"],
                "digest": workflow["definition_digest"],
            },
            "failure": workflow["failure"],
            "source": source_name,
            "reopened": [
                {"by": event["data"].get("by"), "note": event["data"].get("note"), "at": instant_text(event["at"])}
                for event in decided.reopenings(findings)
            ],
        },
        totals=trace_totals.totals(
            workflow, root, as_of, probing=sum(call["state"] == CallState.PROBING for call in calls)
        ),
        as_of=as_of,
        root=root,
    )


class _Rows:
    """The rows of one workflow, indexed by what they belong to."""

    def __init__(
        self,
        *,
        workflow: Row,
        steps: Sequence[Row],
        calls: Sequence[Row],
        attempts: Sequence[Row],
        approvals: Sequence[Row],
        findings: Sequence[Row],
        now: datetime | None,
    ) -> None:
        self.workflow = workflow
        self.now = now
        self.partials: Mapping[UUID, Partial] = {}
        self.steps = sorted(steps, key=lambda step: (step["position"], step["item_index"] or 0, step["path"]))
        self.all_calls = sorted(calls, key=lambda call: (call["step"], call["n"]))
        self.items: dict[str, list[Row]] = {}
        for step in self.steps:
            if step["parent"] is not None:
                self.items.setdefault(step["parent"], []).append(step)
        known = {call["id"] for call in self.all_calls}
        self.about: dict[Any, list[Row]] = {}
        self.calls: dict[str, list[Row]] = {}
        for call in self.all_calls:
            if call["kind"] in ASIDES and call["target"] in known:
                self.about.setdefault(call["target"], []).append(call)
            else:
                self.calls.setdefault(call["step"], []).append(call)
        self.events = findings
        self.findings: dict[Any, list[Row]] = {}
        self.operated: dict[str, list[Row]] = {}
        for event in findings:
            if event["call_id"] is not None:
                self.findings.setdefault(event["call_id"], []).append(event)
            elif event["type"] == "agent.step.operated":
                self.operated.setdefault(event["step"], []).append(event)
        self.reopenings = decided.reopenings(findings)
        self.undo_failed = {
            event["data"]["effect"]: event["at"] for event in findings if event["type"] == "compensation.failed"
        }
        self.attempts: dict[Any, list[Row]] = {}
        for attempt in sorted(attempts, key=lambda attempt: attempt["n"]):
            self.attempts.setdefault(attempt["call_id"], []).append(attempt)
        self.decided = [approval for approval in approvals if approval["status"] == ApprovalStatus.DECIDED]
        self.approvals = [approval for approval in approvals if approval["status"] == ApprovalStatus.OPEN]

    def workflow_span(self) -> Span:
        row = self.workflow
        name = row["name"] if row["version"] is None else f"{row['name']}@{row['version']}"
        return Span(
            id=ids.encode("wf", row["id"]),
            kind="workflow",
            name=name,
            headline=self.headline(),
            status=row["status"],
            started_at=row["started_at"] or row["created_at"],
            ended_at=row["ended_at"],
            cost_usd=usd(row["spent_microusd"]),
            usage={"input_tokens": row["input_tokens"], "output_tokens": row["output_tokens"]},
            failure=row["failure"],
            children=tuple(self.step_span(step) for step in self.steps if step["parent"] is None),
        )

    def headline(self) -> str:
        said = {call_id: self.said(call_id) for call_id in self.findings}
        pending = stories.probed(self.all_calls, said=said)
        return headlines.workflow_headline(
            self.workflow,
            steps=self.steps,
            calls=self.all_calls,
            pending=pending,
            pause=decided.pause_of(self.events),
            missing=uninstalled.among(self.all_calls, self.attempts),
            now=self.now,
        )

    def said(self, call_id: UUID) -> list[str]:
        """What the probes of a call said, in order."""
        events = self.findings.get(call_id, [])
        return [str(event["data"].get("verdict")) for event in events if event["type"] == "effect.probed"]

    def step_span(self, step: Row) -> Span:
        path = step["path"]
        calls = self.calls.get(path, [])
        operations = self.operated.get(path, ())
        children = tuple(self.step_span(item) for item in self.items.get(path, []))
        children += tuple(
            self.call_span(call, before=self.replaced(call, calls[:index], step=step))
            for index, call in enumerate(calls)
        )
        effects = sorted({child.effect for child in children if child.effect is not None})
        keys = [child.key for child in children if child.kind == "call" and child.key is not None]
        results = [child.result for child in children if child.kind == "call" and child.result is not None]
        if step["kind"] == StepKind.TOOL and effects and not results:
            results = [found for found in (_result(step["output"]),) if found is not None]
        return Span(
            id=path,
            kind="step",
            name=path,
            headline=headlines.step_headline(
                step,
                calls=self.with_asides(calls),
                operated=decided.by_hand(step, operations),
                missing=uninstalled.among(calls, self.attempts),
                now=self.now,
            ),
            status=step["state"],
            started_at=step["started_at"],
            ended_at=step["ended_at"],
            cost_usd=_sum(children),
            usage=_usage(children),
            effect=effects[0] if len(effects) == 1 else None,
            key=keys[-1] if keys else None,
            children=children,
            title=step["title"],
            failure=step["failure"],
            result=results[-1] if results else None,
            waiting=self.step_wait(step),
            decided=decided.of_step(step, approvals=self.decided, operations=operations),
            items=trace_totals.items(step, children),
            undo=step["undo"],
        )

    def replaced(self, call: Row, earlier: Sequence[Row], *, step: Row) -> Row | None:
        """The call that this one replaces. A tool step wants one thing: whatever it called before is the same wish,
        also where the key of a reopened call was asked for anew and names no call before it."""
        if call["retry_of"] is not None:
            return next((one for one in earlier if one["id"] == call["retry_of"]), None)
        return earlier[-1] if earlier and step["kind"] == StepKind.TOOL else None

    def step_wait(self, step: Row) -> JSON:
        if step["state"] != StepState.WAITING:
            return None
        asked = next((row for row in self.approvals if row["step"] == step["path"] and row["call_id"] is None), None)
        if asked is None and step["kind"] != "approval":
            return None
        return _waiting(
            kind="approval",
            reason=step["title"] if asked is None else asked["title"],
            since=step["started_at"] if asked is None else asked["created_at"],
            approval=None if asked is None else ids.encode("apr", asked["id"]),
        )

    def with_asides(self, calls: Sequence[Row]) -> list[Row]:
        return [each for call in calls for each in (call, *self.about.get(call["id"], ()))]

    def call_span(self, call: Row, *, before: Row | None = None) -> Span:
        attempts = tuple(self.attempt_span(attempt, call=call) for attempt in self.attempts.get(call["id"], []))
        children = attempts + tuple(self.call_span(aside) for aside in self.about.get(call["id"], ()))
        may_change = call["kind"] in EFFECT_KINDS and call["effect"] != EffectClass.READ_ONLY
        key = call["key"]
        replaces = call["retry_of"] or (None if before is None else before["id"])
        if key is not None and call["generation"] > 1:
            key = f"{key}#{call['generation']}"
        return Span(
            id=ids.encode("call", call["id"]),
            kind="call",
            name=_name(call),
            headline=attempts[-1].headline if attempts else "Not tried yet.",
            status=call["state"],
            started_at=attempts[0].started_at if attempts else call["created_at"],
            ended_at=call["ended_at"],
            cost_usd=_sum(children),
            usage=_usage(children),
            effect=call["effect"] if may_change else None,
            key=key if may_change and (call["business_key"] or call["effect"] == EffectClass.KEYED) else None,
            recovery=(
                *ledger_records.reopened(call, before=before, reopenings=self.reopenings),
                *call["recovery"],
                *self.records(call),
            ),
            children=children,
            n=call["n"],
            via=_via(call),
            turn=call["turn"],
            retry_of=None if replaces is None else ids.encode("call", replaces),
            failure=call["failure"],
            result=_result(call["result"]) if may_change else None,
            waiting=self.call_wait(call),
            decided=decided.of_call(call, approvals=self.decided),
            undo=call["undo"],
            role=call["kind"] if call["kind"] in ASIDES else None,
        )

    def records(self, call: Row) -> list[JSON]:
        """What was found out about it besides what was recovered."""
        asker = next(
            (str(row["tool"]) for row in self.about.get(call["id"], ()) if row["kind"] == CallKind.PROBE), None
        )
        return ledger_records.records_of(
            call, findings=self.findings.get(call["id"], ()), attempts=self.attempts.get(call["id"], ()), asker=asker
        )

    def call_wait(self, call: Row) -> JSON:
        if call["state"] in (CallState.IN_DOUBT, CallState.PROBING):
            kind = "doubt" if call["state"] == CallState.IN_DOUBT else "probe"
            accepted = "accepted (202)" if kind == "probe" and self.accepted(call) else None
            not_before = self.ahead(call["not_before"])
            return _waiting(kind=kind, reason=accepted, since=call["doubt_since"], not_before=not_before)
        if call["undo"] == Undo.FAILED:
            return _waiting(kind="undo", since=self.undo_failed.get(ids.encode("call", call["id"])))
        if call["state"] == CallState.INTENDED and self.accepted(call):
            return _waiting(kind="result", reason="accepted (202)")
        if call["state"] == CallState.HELD:
            asked = next((row for row in self.approvals if row["call_id"] == call["id"]), None)
            return _waiting(
                kind="held" if asked is None else "approval",
                reason=_held_for(call) if asked is None else asked["title"],
                since=None if asked is None else asked["created_at"],
                approval=None if asked is None else ids.encode("apr", asked["id"]),
            )
        due_at = self.ahead(call.get("due_at"))
        if call["state"] == CallState.DUE and due_at is not None and call["recovery"]:
            return _waiting(kind="timer", reason="backing off", not_before=due_at)
        return None

    def ahead(self, instant: datetime | None) -> datetime | None:
        """None once it is over."""
        return None if instant is not None and self.now is not None and instant <= self.now else instant

    def accepted(self, call: Row) -> bool:
        """Whether the tool said 202: it will be done, and its result comes later."""
        last = next((row for row in reversed(self.attempts.get(call["id"], ()))), None)
        return last is not None and last["status_code"] == headlines.ACCEPTED and last["outcome"] is None

    def attempt_span(self, attempt: Row, *, call: Row) -> Span:
        lost = attempt["lost_at"] is not None
        partial = self.partials.get(attempt["id"])
        return Span(
            id=ids.encode("att", attempt["id"]),
            kind="attempt",
            name=_name(call),
            headline=headlines.attempt_headline(attempt, call=call),
            status=attempt["outcome"] or ("lost" if lost else "open"),
            started_at=attempt["sent_at"] or attempt["intended_at"],
            ended_at=attempt["received_at"] or attempt["lost_at"] or attempt["settled_at"],
            cost_usd=usd(attempt["cost_microusd"]),
            usage=attempt["usage"],
            n=attempt["n"],
            via=_answered_by(call, attempt),
            failure=attempt["failure"],
            partial=None if partial is None else partial.to_json(),
        )


def _held_for(call: Row) -> JSON:
    """The reason's word; of a call that only a top-up frees, the sentence about what is used up."""
    parked = call["held_reason"] == HeldReason.BUDGET and call["failure"]
    return call["failure"]["message"] if parked else call["held_reason"]


def _waiting(
    *,
    kind: str,
    reason: str | None = None,
    since: datetime | None = None,
    not_before: datetime | None = None,
    approval: str | None = None,
) -> dict[str, JSON]:
    return {
        "kind": kind,
        "reason": reason,
        "since": instant_text(since),
        "not_before": instant_text(not_before),
        "approval": approval,
    }


def _name(call: Row) -> str:
    """What it asks: a tool, the model, or an MCP server for what it has."""
    name = str(call["tool"] or call["kind"])
    return f"tools of {name}" if call["kind"] == CallKind.DISCOVER else name


def _via(call: Row) -> str | None:
    if call["kind"] != CallKind.MODEL:
        return None if call["tool"] is None else str(call["tool"])
    request = call["request"] if isinstance(call["request"], Mapping) else {}
    name = request.get("alias") or request.get("model")
    return None if name is None else str(name)


def _answered_by(call: Row, attempt: Row) -> str | None:
    """What was asked for; the model itself if another one answered than was named."""
    answered = (attempt["usage"] or {}).get("model")
    request = call["request"] if isinstance(call["request"], Mapping) else {}
    return str(answered) if answered and answered != request.get("model") else _via(call)


def _result(result: JSON) -> str | None:
    """The first id in an effect's result, in a word or two: `evt_8841`, or `event 8841` if it is a bare number."""
    if not isinstance(result, Mapping):
        return None
    for name, value in result.items():
        if (name == "id" or name.endswith("_id")) and isinstance(value, (str, int)) and not isinstance(value, bool):
            text = str(value)
            return f"{name.removesuffix('_id')} {text}" if text.isdecimal() else text
    return None


def _sum(spans: Sequence[Span]) -> str | None:
    """The sum of the costs that are known; None if none is."""
    known = [span.cost_usd for span in spans if span.cost_usd is not None]
    return usd(sum(microusd(text) for text in known)) if known else None


def _usage(spans: Sequence[Span]) -> JSON:
    counted = [span.usage for span in spans if isinstance(span.usage, Mapping)]
    if not counted:
        return None
    return {name: sum(int(usage.get(name) or 0) for usage in counted) for name in ("input_tokens", "output_tokens")}
