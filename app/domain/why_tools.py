"""Why agents go on without a tool: what was taken away from whom, after what, and what would give it back.

Nothing waits for it, so it is no `Reason`: it is told beside them, also of a workflow that has ended. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from app.domain import ids, why_commands
from app.domain.amounts import counted
from app.domain.headlines import MESSAGE_LIMIT
from app.domain.plain import clipped
from app.domain.situation import TITLE_LIMIT, Situation
from app.domain.states import WorkflowStatus
from app.domain.taken_tools import Taken
from app.domain.why_commands import Command


@dataclass(frozen=True, kw_only=True, slots=True)
class Missed:
    """A tool that somebody has to do without."""

    taken: Taken
    headline: str
    commands: tuple[Command, ...]


def explain(situation: Situation) -> list[Missed]:
    """Those that were not given back."""
    return [_missed(situation, taken) for taken in situation.taken if not taken.given_back]


def reopenable(situation: Situation) -> bool:
    """Whether a retry would give it back now: a workflow that goes on has to end first."""
    row, status = situation.workflow, WorkflowStatus(situation.workflow["status"])
    ended = status in (WorkflowStatus.FAILED, WorkflowStatus.CANCELLED) or row["saga"] == "held"
    return ended and not row["effects_undone"] and not row["effects_abandoned"]


def _missed(situation: Situation, taken: Taken) -> Missed:
    name = ids.encode("wf", situation.workflow["id"])
    retry = why_commands.retry(name)
    commands: tuple[Command, ...]
    if reopenable(situation):
        back, commands = f"; to give it back: {retry.cli}", (retry,)
    elif WorkflowStatus(situation.workflow["status"]).final:
        back, commands = "", ()
    else:
        back, commands = f"; to give it back if the workflow fails without it: {retry.cli}", ()
    return Missed(
        taken=taken,
        headline=f"{_story(taken)}{back}.",
        commands=(*commands, why_commands.show_step(name, taken.step)),
    )


def _story(taken: Taken) -> str:
    tool, times = clipped(taken.tool, TITLE_LIMIT), counted(taken.failures, "failure")
    reason = clipped(taken.reason, MESSAGE_LIMIT).rstrip(".")
    whom = f"every agent after {times} in a row, the last in {taken.step}"
    if taken.scope == "step":
        whom = f"{taken.step} after {times} in a row"
    return f"The tool {tool} was taken away from {whom}: {reason}"
