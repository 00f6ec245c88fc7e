"""The trace: every attempt of a workflow as a tree of spans, workflow → step (→ item) → call → attempt.

`build_trace` reads rows (mappings with the column names of `app/store/tables.py`) and decides nothing: what was
retried is there with its time, tokens and money, the recovery records stand on the call that they caused, and costs are
sums over attempts. The shape is `Trace` (`spans.py`), the picture `trace_text.py`. Pure: `as_of` is the latest instant
the rows know, or the caller's clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from app.domain import headlines, ids
from app.domain.amounts import usd
from app.domain.outcomes import JSON
from app.domain.spans import Span, Trace, chains, instant_text, microusd, milliseconds
from app.domain.states import ApprovalStatus, CallKind, CallState, EffectClass, StepKind, StepState

Row = Mapping[str, Any]

EFFECT_KINDS = frozenset({CallKind.TOOL, CallKind.COMPENSATION})
"""Kinds of calls that may change something; a probe or a model call has an effect class but is no effect."""


def build_trace(
    workflow: Row,
    steps: Sequence[Row],
    calls: Sequence[Row],
    attempts: Sequence[Row],
    *,
    approvals: Sequence[Row] = (),
    source_name: str | None = None,
    now: datetime | None = None,
) -> Trace:
    """The tree of one workflow. `source_name` is the file the definition came from, for the lines of its rules."""
    rows = _Rows(workflow=workflow, steps=steps, calls=calls, attempts=attempts, approvals=approvals, now=now)
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
        },
        totals=_totals(workflow, root, as_of),
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
        now: datetime | None,
    ) -> None:
        self.workflow = workflow
        self.now = now
        self.steps = sorted(steps, key=lambda step: (step["position"], step["item_index"] or 0, step["path"]))
        self.all_calls = sorted(calls, key=lambda call: (call["step"], call["n"]))
        self.items: dict[str, list[Row]] = {}
        for step in self.steps:
            if step["parent"] is not None:
                self.items.setdefault(step["parent"], []).append(step)
        self.calls: dict[str, list[Row]] = {}
        for call in self.all_calls:
            self.calls.setdefault(call["step"], []).append(call)
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
            headline=headlines.workflow_headline(row, steps=self.steps, calls=self.all_calls, now=self.now),
            status=row["status"],
            started_at=row["started_at"] or row["created_at"],
            ended_at=row["ended_at"],
            cost_usd=usd(row["spent_microusd"]),
            usage={"input_tokens": row["input_tokens"], "output_tokens": row["output_tokens"]},
            failure=row["failure"],
            children=tuple(self.step_span(step) for step in self.steps if step["parent"] is None),
        )

    def step_span(self, step: Row) -> Span:
        path = step["path"]
        calls = self.calls.get(path, [])
        children = tuple(self.step_span(item) for item in self.items.get(path, []))
        children += tuple(self.call_span(call) for call in calls)
        effects = sorted({child.effect for child in children if child.effect is not None})
        keys = [child.key for child in children if child.kind == "call" and child.key is not None]
        results = [child.result for child in children if child.kind == "call" and child.result is not None]
        if step["kind"] == StepKind.TOOL and effects and not results:
            results = [found for found in (_result(step["output"]),) if found is not None]
        return Span(
            id=path,
            kind="step",
            name=path,
            headline=headlines.step_headline(step, calls=calls, now=self.now),
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
            decided=self.decision(step=step["path"], call_id=None),
            items=_items(step, children),
            undo=step["undo"],
        )

    def decision(self, *, step: str, call_id: UUID | None) -> JSON:
        """What a person decided about the step, or about a call that asked first."""
        found = [row for row in self.decided if row["step"] == step and row["call_id"] == call_id]
        if not found:
            return None
        last = found[-1]
        said = "approved" if last["decision"] == "approve" else "rejected"
        at = instant_text(last["decided_at"])
        return {"what": "approval", "said": said, "by": last["by"], "note": last["comment"], "at": at}

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

    def call_span(self, call: Row) -> Span:
        attempts = tuple(self.attempt_span(attempt, call=call) for attempt in self.attempts.get(call["id"], []))
        may_change = call["kind"] in EFFECT_KINDS and call["effect"] != EffectClass.READ_ONLY
        key = call["key"]
        if key is not None and call["generation"] > 1:
            key = f"{key}#{call['generation']}"
        return Span(
            id=ids.encode("call", call["id"]),
            kind="call",
            name=call["tool"] or call["kind"],
            headline=attempts[-1].headline if attempts else "Not tried yet.",
            status=call["state"],
            started_at=attempts[0].started_at if attempts else call["created_at"],
            ended_at=call["ended_at"],
            cost_usd=_sum(attempts),
            usage=_usage(attempts),
            effect=call["effect"] if may_change else None,
            key=key if may_change and (call["business_key"] or call["effect"] == EffectClass.KEYED) else None,
            recovery=tuple(call["recovery"]),
            children=attempts,
            n=call["n"],
            via=_via(call),
            turn=call["turn"],
            retry_of=None if call["retry_of"] is None else ids.encode("call", call["retry_of"]),
            failure=call["failure"],
            result=_result(call["result"]) if may_change else None,
            waiting=self.call_wait(call),
            decided=_verdict(call) or self.decision(step=call["step"], call_id=call["id"]),
            undo=call["undo"],
        )

    def call_wait(self, call: Row) -> JSON:
        if call["state"] in (CallState.IN_DOUBT, CallState.PROBING):
            return _waiting(kind="doubt", since=call["doubt_since"], not_before=call["not_before"])
        if call["state"] == CallState.HELD:
            asked = next((row for row in self.approvals if row["call_id"] == call["id"]), None)
            return _waiting(
                kind="held" if asked is None else "approval",
                reason=call["held_reason"] if asked is None else asked["title"],
                since=None if asked is None else asked["created_at"],
                approval=None if asked is None else ids.encode("apr", asked["id"]),
            )
        if call["state"] == CallState.DUE and call["not_before"] is not None:
            return _waiting(kind="timer", reason="backing off", not_before=call["not_before"])
        return None

    def attempt_span(self, attempt: Row, *, call: Row) -> Span:
        lost = attempt["lost_at"] is not None
        return Span(
            id=ids.encode("att", attempt["id"]),
            kind="attempt",
            name=call["tool"] or call["kind"],
            headline=headlines.attempt_headline(attempt, call=call),
            status=attempt["outcome"] or ("lost" if lost else "open"),
            started_at=attempt["sent_at"] or attempt["intended_at"],
            ended_at=attempt["received_at"] or attempt["lost_at"] or attempt["settled_at"],
            cost_usd=usd(attempt["cost_microusd"]),
            usage=attempt["usage"],
            n=attempt["n"],
            via=_via(call),
            failure=attempt["failure"],
        )


def _verdict(call: Row) -> JSON:
    """A person's word on a doubt: who, what, why."""
    resolved = call["resolved"]
    if resolved is None:
        return None
    said = str(resolved["outcome"]).replace("_", " ")
    return {"what": "doubt", "said": said, "by": resolved["by"], "note": resolved["note"], "at": resolved["at"]}


def _totals(workflow: Row, root: Span, as_of: datetime) -> dict[str, JSON]:
    ended = root.ended_at or as_of
    duration = timedelta() if root.started_at is None else max(ended - root.started_at, timedelta())
    lost = timedelta()
    for step in (span for span in root.walk() if span.kind == "step"):
        for chain in chains([child for child in step.children if child.kind == "call"]):
            tries = [attempt for call in chain for attempt in call.children]
            if len(tries) > 1 and tries[0].started_at is not None and tries[-1].started_at is not None:
                lost += max(tries[-1].started_at - tries[0].started_at, timedelta())
    return {
        "duration_ms": milliseconds(duration),
        "cost_usd": usd(workflow["spent_microusd"]),
        "retries": workflow["retries"],
        "recovery_usd": usd(workflow["recovery_microusd"]),
        "recovery_ms": milliseconds(lost),
        "effects": {
            "done": workflow["effects_done"],
            "unknown": workflow["doubts"],
            "undone": workflow["effects_undone"],
            "duplicates_prevented": workflow["duplicates_prevented"],
        },
    }


def _items(step: Row, children: Sequence[Span]) -> JSON:
    if step["items_total"] is None:
        return None
    items = [child for child in children if child.kind == "step"]
    ok = sum(child.status == StepState.SUCCEEDED for child in items)
    failed = sum(child.status == StepState.FAILED for child in items)
    return {"total": step["items_total"], "ok": ok, "failed": failed, "open": step["items_total"] - ok - failed}


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


def _via(call: Row) -> str | None:
    if call["kind"] != CallKind.MODEL:
        return None if call["tool"] is None else str(call["tool"])
    request = call["request"] if isinstance(call["request"], Mapping) else {}
    name = request.get("alias") or request.get("model")
    return None if name is None else str(name)


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
