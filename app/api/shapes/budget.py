"""A budget as it stands: what is allowed, what was spent, what is set aside for calls under way."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Literal

from app.api.shapes.values import Shape
from app.domain import amounts
from app.domain.accounts import WHOLE
from app.domain.durations import format_duration
from app.store.workflow_views import Row


class Limited(Shape):
    """Null where there is no limit."""

    usd: str | None
    tokens: int | None
    turns: int | None
    tool_calls: int | None
    duration: str | None
    recovery_usd: str | None


class Spent(Shape):
    usd: str
    tokens: int
    turns: int
    tool_calls: int
    duration: str
    """Of the time in which a call was due or in flight, up to when the last one began to be."""
    recovery_usd: str | None
    """Null for a step's budget: it is counted for the whole workflow."""


class Reserved(Shape):
    """The worst case of every call that is due or in flight."""

    usd: str
    tokens: int
    turns: int
    tool_calls: int


class Budget(Shape):
    scope: str
    """`workflow`, or `step:` and its id: shared by the step's items."""
    on_exceeded: Literal["fail", "pause"]
    limits: Limited
    spent: Spent
    reserved: Reserved
    overrun_usd: str | None
    """How far the truth went beyond a worst case; null as long as it did not."""
    exceeded: bool
    """A call was not allowed, and nobody has topped up since."""


def budgets_of(workflow: Row, rows: Sequence[Row]) -> list[Budget] | None:
    """None if it has none."""
    return [_budget(workflow, row) for row in rows] or None


def _budget(workflow: Row, row: Row) -> Budget:
    whole = row["scope"] == WHOLE
    return Budget(
        scope="workflow" if whole else f"step:{row['scope']}",
        on_exceeded=row["on_exceeded"],
        limits=Limited(
            usd=amounts.usd(row["limit_microusd"]),
            tokens=row["limit_tokens"],
            turns=row["limit_turns"],
            tool_calls=row["limit_tool_calls"],
            duration=None if row["limit_ms"] is None else _duration(row["limit_ms"]),
            recovery_usd=amounts.usd(row["limit_recovery_microusd"]),
        ),
        spent=Spent(
            usd=amounts.usd(row["spent_microusd"]) or "",
            tokens=row["spent_tokens"],
            turns=row["spent_turns"],
            tool_calls=row["spent_tool_calls"],
            duration=_duration(row["spent_ms"]),
            recovery_usd=amounts.usd(workflow["recovery_microusd"]) if whole else None,
        ),
        reserved=Reserved(
            usd=amounts.usd(row["reserved_microusd"]) or "",
            tokens=row["reserved_tokens"],
            turns=row["reserved_turns"],
            tool_calls=row["reserved_tool_calls"],
        ),
        overrun_usd=amounts.usd(row["overrun_microusd"] or None),
        exceeded=row["exceeded"],
    )


def _duration(ms: int) -> str:
    return format_duration(timedelta(milliseconds=ms))
