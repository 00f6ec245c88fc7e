"""The end of an agent's turn, and how the next one begins.

    end                  the results are in the conversation: what they say, whether a limit is reached, what follows
    ask                  the next model call, behind what the model has to be told; or a summary first
    over_budget          whether a tool call was refused by a budget
    kept_when_reopened   what a reopening must still know of a conversation

Whatever a step ends with here, its results are appended already: that is noted, so that a reopening goes on behind
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from app.domain import (
    budgets,
    calling,
    changing,
    compacting,
    disabling,
    ending,
    finishing,
    notes,
    progressing,
    switching,
)
from app.domain.aggregate import Call, StepRow
from app.domain.finishing import Limit
from app.domain.notes import Verdict
from app.domain.outcomes import JSON
from app.domain.plan import Step
from app.domain.recovery_table import CHANGES, Action
from app.domain.states import CallState, FailureKind
from app.domain.transition import Draft

TURNS_USED: Final = "turns_used"
"""Counter on an agent step that used all its turns: at which turn, its results appended already."""
TURNS_BEFORE: Final = "turns_before"
"""The same after a reopening, which gives as many turns again."""
RESULTS_AT: Final = "results_at"
"""Counter on an agent step that ended behind the results of a turn: which; they are in the conversation already."""
TOLD: Final = "told_to_stop"
"""Counter on a reopened agent step whose model was told that it may not use a tool, or none: it is told otherwise."""

_KEPT: Final = frozenset(
    {TURNS_BEFORE, RESULTS_AT, TOLD, calling.MAX_TOKENS, switching.THINKING, switching.SWITCHES, notes.NOTED}
)


def over_budget(call: Call) -> bool:
    return call.state == CallState.FAILED and (call.failure or {}).get("kind") == FailureKind.BUDGET_EXCEEDED


def end(draft: Draft, row: StepRow, step: Step, calls: Sequence[Call], seen: Sequence[bytes]) -> None:
    """The results are in the conversation. What they say about the tools and the agent's progress, and whether a limit
    is reached; then the next model call, the last one, or the end."""
    verdict = disabling.at_end(draft, row, step, calls)
    if verdict.failure is None:
        verdict = verdict.and_also(progressing.at_end(draft, row, step, calls, seen))
    limit = _limit(draft, row, step, calls, verdict)
    if limit is Limit.TURNS:
        row.counters = {**row.counters, TURNS_USED: row.turn}
    if limit is not None and finishing.wished(row, step) and changing.affordable(draft):
        verdict = replace(verdict, failure=None).and_also(finishing.begin(draft, row, step, calls[-1], limit))
    elif limit is Limit.TURNS:
        verdict = verdict.and_also(Verdict(failure=finishing.turns_used(step)))
    if verdict.failure is not None:
        row.counters = {**row.counters, RESULTS_AT: row.turn}
        ending.fail_step(draft, row, verdict.failure)
        return
    row.turn += 1
    ask(draft, row, step, verdict=verdict)


def _limit(draft: Draft, row: StepRow, step: Step, calls: Sequence[Call], verdict: Verdict) -> Limit | None:
    """Those at which an agent may be let end gracefully. Time only counts for one that does, else it has all of it; and
    so do budgets, which else refuse the next call."""
    if verdict.failure is not None:
        return Limit.NO_PROGRESS if verdict.failure.kind is FailureKind.NO_PROGRESS else None
    if step.agent is not None and row.turn >= step.agent.max_turns + row.counters.get(TURNS_BEFORE, 0):
        return Limit.TURNS
    if not finishing.wished(row, step):
        return None
    if finishing.soon(draft, row, step):
        return Limit.TIME
    left = [budgets.left(draft, row, what=what) for what in ("turns", "tool_calls")]
    return Limit.BUDGET if 0 in left or any(over_budget(call) for call in calls) else None


def ask(
    draft: Draft,
    row: StepRow,
    step: Step,
    *,
    verdict: Verdict | None = None,
    retry_of: Call | None = None,
    change: JSON = None,
) -> None:
    """The next model call of the conversation, after what the model has to be told; or a summary first."""
    told = verdict or Verdict()
    notes.append(draft, row, step, [*_given_back(row, retry_of), *told.notes])
    if compacting.due(draft, row, step) and compacting.begin(draft, row, step, call=None, failure=None):
        summary = draft.transition.new_calls[-1]
        summary.recovery = [*told.records, *summary.recovery]
        return
    calling.model_call(
        draft,
        row,
        step,
        retry_of=retry_of,
        change=change or notes.change_of(told.records),
        recovery=list(told.records) or None,
    )


def _given_back(row: StepRow, before: Call | None) -> list[str]:
    """After a reopening: what the model was told it may not do, it may do again. A turn that was paused is not
    interrupted: its end comes right behind it."""
    paused = before is not None and (before.change or {}).get("change") == CHANGES[Action.APPEND]
    if paused or not row.counters.get(TOLD):
        return []
    row.counters = {name: n for name, n in row.counters.items() if name != TOLD}
    return ["The task goes on: every tool that you were offered may be used again."]


def kept_when_reopened(draft: Draft, row: StepRow) -> dict[str, int]:
    """Of an agent step's counters those that outlive its failure, because they speak of what is in the conversation."""
    kept = {name: n for name, n in row.counters.items() if name in _KEPT}
    used = row.counters.get(TURNS_USED)
    stopped = bool(row.counters.get(calling.FINISHING)) or any(n.startswith(disabling.DISABLED) for n in row.counters)
    if used is not None:
        kept[TURNS_BEFORE] = used
    if row.messages and (stopped or disabling.entries(draft)):
        kept[TOLD] = 1
    return kept
