"""An agent at its limit that is to end gracefully (`finish: gracefully`): one last answer, without tools.

    begin       the limit is reached: what the model is told, if its agent wishes an end like that
    soon        whether the step or the workflow has so little time left that the next answer should be the last
    failure     what the step fails with if that last answer is none

The tools of the request stay as they were; the call's purpose is `final`, and a tool use in its answer is not executed.
It is asked once: what is wrong with that answer is mended as with any other (a reminder, a continuation), and then the
step ends. A reopening lifts it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Final

from app.domain import calling, changing, recovery
from app.domain.aggregate import Call, StepRow
from app.domain.notes import Verdict
from app.domain.outcomes import Failure
from app.domain.plan import Step
from app.domain.progressing import failed as no_progress
from app.domain.states import FailureKind
from app.domain.transition import Draft

GRACEFULLY: Final = "gracefully"
SHARE: Final = 0.2
"""Of the time that a step or workflow has: from then on the next answer is the last, unless one attempt may take
less. Most answers take a small part of what they may."""


class Limit(IntEnum):
    """Which limit an agent ends at, as its counter holds it."""

    TURNS = 1
    NO_PROGRESS = 2
    TIME = 3
    BUDGET = 4


_BECAUSE: Final = {
    Limit.TURNS: "All your turns are used",
    Limit.NO_PROGRESS: "You are going in circles",
    Limit.TIME: "The time for this task is nearly over",
    Limit.BUDGET: "The budget of this task is nearly used up",
}


def wished(row: StepRow, step: Step) -> bool:
    """Whether the agent ends gracefully, and is not ending already."""
    return step.agent is not None and step.agent.finish == GRACEFULLY and not row.counters.get(calling.FINISHING)


def begin(draft: Draft, row: StepRow, step: Step, call: Call, limit: Limit) -> Verdict:
    row.counters = {**row.counters, calling.FINISHING: int(limit)}
    draft.touch(row)
    note = (
        f"{_BECAUSE[limit]}: this is your last message. No tool may be used any more. Give your final answer now, in "
        "the form that was asked for, with what you have; say what is missing."
    )
    why = failure(row, step)
    # The definition wished it: so it is its rule, whatever the policy of that failure says.
    policy = replace(step.retry[why.kind], rule="finish", source="definition", line=step.line, max_retries=1)
    record = recovery.record(
        why.kind,
        policy,
        change=calling.FINAL,
        diff=["- tools", f"+ note: {note}"],
        message=why.message,
        used=1,
    )
    changing.told(draft, call, record)
    return Verdict(notes=(note,), records=(record,))


def failure(row: StepRow, step: Step) -> Failure:
    """What stopped it."""
    match Limit(row.counters[calling.FINISHING]):
        case Limit.TURNS:
            return turns_used(step)
        case Limit.NO_PROGRESS:
            return no_progress("The agent did the same again and again, with the same results")
        case Limit.TIME:
            return Failure(
                kind=FailureKind.DEADLINE_EXCEEDED if step.timeout is None else FailureKind.STEP_TIMEOUT,
                message="There was hardly any time left for the agent.",
                fix="Give the step a longer `timeout` or the workflow a longer `deadline`, or make the task smaller.",
            )
        case Limit.BUDGET:
            return Failure(
                kind=FailureKind.BUDGET_EXCEEDED,
                message="The budget of the agent was used up.",
                fix="Raise the budget's `turns` or `tool_calls`, or make the agent's task smaller.",
            )


def turns_used(step: Step) -> Failure:
    most = 0 if step.agent is None else step.agent.max_turns
    return Failure(
        kind=FailureKind.BUDGET_EXCEEDED,
        message=f"The agent used all its {most} turns without a final answer.",
        fix="Raise the agent's `max_turns`, or make its task smaller; POST …/retry gives it as many turns again.",
    )


def asked_for_tools(row: StepRow, step: Step) -> Failure:
    """Of a last answer that asks for tools all the same."""
    why = failure(row, step)
    return Failure(
        kind=why.kind,
        message=f"{why.message.rstrip('.')}; asked for its final answer, the model asked for a tool.",
        fix=why.fix,
    )


def soon(draft: Draft, row: StepRow, step: Step) -> bool:
    """Whether the next answer should be the last: the margin is the timeout of one call, or a fifth of all the time."""
    workflow = draft.workflow
    since = workflow.reopened_at or workflow.created_at
    if _near(draft, step, began=since, ends=workflow.deadline_at):
        return True
    owner = row if row.parent is None else draft.step(row.parent)  # items have their parent's time
    if step.timeout is None or owner.started_at is None:
        return False
    began = owner.started_at if workflow.reopened_at is None else max(owner.started_at, workflow.reopened_at)
    return _near(draft, step, began=began, ends=began + step.timeout)


def _near(draft: Draft, step: Step, *, began: datetime, ends: datetime) -> bool:
    margin = min(step.call_timeout, max(ends - began, timedelta(0)) * SHARE)
    return draft.now >= ends - margin
