"""An effect: a call whose tool changes something, and what became of undoing it. Its id is the call's."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from app.api.shapes.listing import Page
from app.api.shapes.values import JSON, Shape, id_or_none
from app.api.shapes.workflow import FailureShape, failure_shape
from app.domain import ids
from app.domain.states import CallKind, CallState, EffectClass, FailureKind, Undo

Row = Mapping[str, Any]


class Resolved(Shape):
    """A person's verdict on a doubt."""

    outcome: str
    note: str | None
    by: str | None
    at: datetime | None


class Compensation(Shape):
    """The call that undoes the effect; recorded when the effect succeeded, with its arguments as they were then."""

    tool: str | None
    arguments: JSON
    call: str | None
    """Its newest call, an effect of its own; null until it is made."""
    state: CallState | None
    failure: FailureShape | None


class Effect(Shape):
    id: str
    workflow_id: str
    step: str
    kind: Literal["tool", "compensation"]
    tool: str | None
    effect: EffectClass
    state: CallState
    key: str | None
    """The key as the tool saw it."""
    arguments: JSON
    result: JSON
    attempts: int
    not_before: datetime | None
    """While in doubt: until then a request that left may still take effect."""
    attached_to: str | None
    """The effect, perhaps of another workflow, that owns this one's business key: its result is this one's, too."""
    undoes: str | None
    """Of a compensation: the effect it undoes."""
    undo: Undo
    compensation: Compensation | None
    resolved: Resolved | None


class EffectTotals(Shape):
    """Over the whole workflow, whatever the filters and the page."""

    done: int
    duplicates_prevented: int
    unknown: int
    undone: int
    abandoned: int


class WorkflowEffects(Page[Effect]):
    totals: EffectTotals


class Refusal(Shape):
    """One effect that kept its doubt, and why."""

    effect: str
    code: str
    detail: str


class BulkResolution(Shape):
    matched: int
    """Effects in doubt that fit the filter, the oldest first, at most `limit`."""
    resolved: int
    """Of these: settled by this request (with `dry_run`: that would be)."""
    refused: list[Refusal]
    remaining: int
    """Beyond `limit`: send the request again."""


def effect_shape(row: Row) -> Effect:
    is_compensation = row["kind"] == CallKind.COMPENSATION
    target = id_or_none("call", row["target"])
    return Effect(
        id=ids.encode("call", row["id"]),
        workflow_id=ids.encode("wf", row["workflow_id"]),
        step=row["step"],
        kind=row["kind"],
        tool=row["tool"],
        effect=row["effect"],
        state=row["state"],
        key=row["key"],
        arguments=row["request"].get("arguments"),
        result=row["result"],
        attempts=row["attempts"],
        not_before=row["not_before"],
        attached_to=None if is_compensation else target,
        undoes=target if is_compensation else None,
        undo=row["undo"],
        compensation=_compensation(row["compensation"], row["undoing"]),
        resolved=_resolved(row["resolved"]),
    )


def totals_shape(workflow: Row) -> EffectTotals:
    return EffectTotals(
        done=workflow["effects_done"],
        duplicates_prevented=workflow["duplicates_prevented"],
        unknown=workflow["doubts"],
        undone=workflow["effects_undone"],
        abandoned=workflow["effects_abandoned"],
    )


def _compensation(recorded: JSON, undoing: Row | None) -> Compensation | None:
    if recorded is None and undoing is None:
        return None
    recorded = recorded or {}
    failure = failure_shape(None if undoing is None else undoing["failure"])
    if recorded.get("error") is not None and failure is None:
        failure = FailureShape(
            kind=FailureKind.EXPRESSION_ERROR, message=str(recorded["error"]), step=None, call=None, fix=None
        )
    return Compensation(
        tool=recorded.get("tool"),
        arguments=recorded.get("arguments"),
        call=None if undoing is None else ids.encode("call", undoing["id"]),
        state=None if undoing is None else undoing["state"],
        failure=failure,
    )


def _resolved(verdict: JSON) -> Resolved | None:
    if verdict is None:
        return None
    return Resolved(outcome=verdict["outcome"], note=verdict.get("note"), by=verdict.get("by"), at=verdict.get("at"))
