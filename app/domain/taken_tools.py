"""Tools that were taken away from agents (`app/domain/disabling.py`), as their rows say it.

    of_workflow    from every agent of a workflow, also those that a reopening has given back since
    of_step        from one step alone, because its arguments never fitted
    out_of_reach   what a step may not use now: both

Pure: `workflows.tools_disabled` and `steps.counters` in, values out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from app.domain.disabling import DISABLED, UNFIT
from app.domain.outcomes import JSON


@dataclass(frozen=True, kw_only=True, slots=True)
class Taken:
    tool: str
    scope: Literal["workflow", "step"]
    """Taken from every agent of the workflow, or from that step alone."""
    step: str
    """Where it failed."""
    failures: int
    """In a row."""
    reason: str
    """How it failed the last time."""
    since: datetime | None = None
    """None where the rows do not say it: of a step alone. The event `agent.tool.disabled` does."""
    given_back: bool = False
    """The workflow was reopened since, and the tool may be used again."""


def of_workflow(entries: JSON) -> list[Taken]:
    """In the order of their names; `entries` is None where nothing was ever taken."""
    return [
        Taken(
            tool=tool,
            scope="workflow",
            step=str(entry["step"]),
            failures=int(entry["failures"]),
            reason=str(entry["message"]),
            since=datetime.fromisoformat(entry["at"]),
            given_back=bool(entry.get("lifted")),
        )
        for tool, entry in sorted((entries or {}).items())
    ]


def of_step(path: str, counters: Mapping[str, int]) -> list[Taken]:
    return [
        Taken(tool=name.removeprefix(DISABLED), scope="step", step=path, failures=times, reason=UNFIT)
        for name, times in sorted(counters.items())
        if name.startswith(DISABLED) and times
    ]


def out_of_reach(path: str, counters: Mapping[str, int], *, entries: JSON, offered: tuple[str, ...]) -> list[Taken]:
    """What the agent of a step was offered and may not use now."""
    whole = [taken for taken in of_workflow(entries) if taken.tool in offered and not taken.given_back]
    return [*whole, *of_step(path, counters)]
