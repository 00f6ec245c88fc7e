"""A tool that was taken away from agents, in a workflow, a step and in `why`."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from app.api.shapes.values import Shape
from app.domain.taken_tools import Taken


class DisabledTool(Shape):
    """Every further use of it is refused, and the model told so; a retry of the workflow gives it back."""

    tool: str
    scope: Literal["workflow", "step"]
    """Taken from every agent of the workflow, or from that step alone."""
    step: str
    """Where it failed."""
    failures: int
    """In a row."""
    reason: str
    since: datetime | None
    """Null for one of a step alone: the event `agent.tool.disabled` says it."""
    given_back: bool
    """The workflow was reopened since: it may be used again."""


def disabled_tools(taken: Iterable[Taken]) -> list[DisabledTool]:
    return [disabled_tool(one) for one in taken]


def disabled_tool(taken: Taken) -> DisabledTool:
    return DisabledTool(
        tool=taken.tool,
        scope=taken.scope,
        step=taken.step,
        failures=taken.failures,
        reason=taken.reason,
        since=taken.since,
        given_back=taken.given_back,
    )
