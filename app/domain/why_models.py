"""Why a step goes on with another model than its agent's own: which, in whose place, since when, after what.

Nothing waits for it and nothing takes it back before the step ends, so it is no `Reason`: it is told beside them. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from app.domain import failure_words, ids, switching, why_commands
from app.domain.plain import clipped
from app.domain.plan import Plan
from app.domain.situation import TITLE_LIMIT, Row, Situation
from app.domain.why_commands import Command


@dataclass(frozen=True, kw_only=True, slots=True)
class Switched:
    step: str
    model: str
    alias: str
    switched_from: str
    """The agent's own."""
    kind: str
    """Of the failure that it was switched for."""
    since: datetime
    headline: str
    commands: tuple[Command, ...]


def explain(situation: Situation, plan: Plan) -> list[Switched]:
    """Those that were not switched back to the agent's own meanwhile."""
    return [switched for row in situation.switched for switched in _switched(situation, row, plan)]


def _switched(situation: Situation, row: Row, plan: Plan) -> Iterator[Switched]:
    used = switching.in_use(plan.steps[row["name"]], switched_to=row["model"])
    if used is None or used.switched_from is None:
        return
    path, now = clipped(row["path"], TITLE_LIMIT), clipped(_named(used), TITLE_LIMIT)
    was, why = clipped(used.switched_from, TITLE_LIMIT), failure_words.happened(row["kind"], who="the model")
    yield Switched(
        step=row["path"],
        model=used.model,
        alias=used.alias,
        switched_from=used.switched_from,
        kind=row["kind"],
        since=row["since"],
        headline=f"The model of {path} was switched from {was} to {now} for the rest of the step: {why}.",
        commands=(why_commands.show_step(ids.encode("wf", situation.workflow["id"]), row["path"]),),
    )


def _named(used: switching.Used) -> str:
    return used.model if used.alias == used.model else f"{used.alias} ({used.model})"
