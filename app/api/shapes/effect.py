"""An effect: a call whose tool changes something. Its id is the call's."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from app.api.shapes.values import JSON, Shape
from app.domain import ids
from app.domain.states import CallState, EffectClass, Undo

Row = Mapping[str, Any]


class Resolved(Shape):
    """A person's verdict on a doubt."""

    outcome: str
    note: str | None
    by: str | None
    at: datetime | None


class Effect(Shape):
    id: str
    workflow_id: str
    step: str
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
    undo: Undo
    resolved: Resolved | None


def effect_shape(row: Row) -> Effect:
    return Effect(
        id=ids.encode("call", row["id"]),
        workflow_id=ids.encode("wf", row["workflow_id"]),
        step=row["step"],
        tool=row["tool"],
        effect=row["effect"],
        state=row["state"],
        key=row["key"],
        arguments=row["request"].get("arguments"),
        result=row["result"],
        attempts=row["attempts"],
        not_before=row["not_before"],
        undo=row["undo"],
        resolved=_resolved(row["resolved"]),
    )


def _resolved(verdict: JSON) -> Resolved | None:
    if verdict is None:
        return None
    return Resolved(outcome=verdict["outcome"], note=verdict.get("note"), by=verdict.get("by"), at=verdict.get("at"))
