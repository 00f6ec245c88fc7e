"""A tool that keeps failing an agent is taken away, and the model asked for an alternative.

    refusal     the answer to a use of a tool that was taken away; None if it may be used
    told        the record of a failure that the model gets as the tool's result
    misuse      that of a use that is answered without being sent (unknown tool, arguments that do not fit)
    at_end      what the ends of a turn's calls say about their tools: counted in a row, a success begins anew

Failures of execution take it from every agent of the workflow (`Workflow.tools_disabled`): the tool is broken.
Arguments that never fit take it from this step alone: it is this conversation that cannot use it. `tools` of the
request stay what they were, because a model's thinking is signed over them: the executor refuses. A reopening gives
all back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from app.domain import changing, recovery
from app.domain.aggregate import Call, StepRow
from app.domain.bindings import instant
from app.domain.conversation import wire_name
from app.domain.notes import Verdict
from app.domain.outcomes import JSON, Failure
from app.domain.plain import clipped
from app.domain.plan import Step
from app.domain.recovery_table import CHANGES, Action
from app.domain.states import CallState, FailureKind
from app.domain.transition import Draft

FAILING: Final = "failing:"
INVALID: Final = "invalid:"
DISABLED: Final = "disabled:"
"""Counters on an agent step, each followed by a tool's name."""
UNKNOWN: Final = "unknown_tools"
"""Counter on an agent step: uses of tools that there are not, in a row."""

UNFIT: Final = "its arguments did not fit its schema"
"""Why a tool was taken from one step alone."""

_REASON_SHOWN: Final = 200
"""Characters of the last failure's words in a note."""
_NOT_ITS_FAULT: Final = frozenset(
    {
        FailureKind.TOOL_BROKEN,
        FailureKind.APPROVAL_REJECTED,
        FailureKind.APPROVAL_EXPIRED,
        FailureKind.CANCELLED,
        FailureKind.BUDGET_EXCEEDED,
        FailureKind.KEY_CONFLICT,
        FailureKind.WORKER_LOST,
        FailureKind.INTERNAL,
    }
)
"""Ends of a tool call that say nothing about the tool."""


def refusal(draft: Draft, row: StepRow, offered: Iterable[str], tool: str) -> Failure | None:
    """Of a use of `tool`, if it was taken away: always in the same words."""
    taken = entries(draft).get(tool)
    if taken is not None and not taken.get("lifted"):
        where, times, last = "workflow", taken["failures"], str(taken["message"])
    elif row.counters.get(DISABLED + tool):
        where, times, last = "step", row.counters[DISABLED + tool], UNFIT
    else:
        return None
    return Failure(
        kind=FailureKind.TOOL_BROKEN,
        message=f"{wire_name(tool)} is disabled for this {where} after {times} failures in a row: {last.rstrip('.')}. "
        f"Do not call it again; {_instead(draft, row, offered)}.",
        fix="Look at the tool; POST …/retry gives it back if the workflow fails without it.",
    )


def entries(draft: Draft) -> Mapping[str, JSON]:
    """What was taken away from every agent of the workflow, also what was given back since (`lifted`)."""
    found = draft.workflow.tools_disabled
    return found if isinstance(found, dict) else {}


def give_back(draft: Draft) -> None:
    """The workflow is reopened: whoever did that has looked at its tools. What was taken away stays on record."""
    if entries(draft):
        draft.workflow.tools_disabled = {tool: {**entry, "lifted": True} for tool, entry in entries(draft).items()}


def _instead(draft: Draft, row: StepRow, offered: Iterable[str]) -> str:
    gone = {tool for tool, entry in entries(draft).items() if not entry.get("lifted")}
    left = [wire_name(tool) for tool in offered if tool not in gone and not row.counters.get(DISABLED + tool)]
    return f"use {', '.join(left)}, or do without" if left else "do without it"


def told(step: Step, failure: Failure, *, used: int) -> list[JSON]:
    """The record of a failure that is the model's to answer: it gets it as the tool's result."""
    policy = step.retry.get(failure.kind)
    if policy is None:
        return []
    record = recovery.record(
        failure.kind,
        policy,
        change=CHANGES[Action.REFUSE_AND_TELL],
        diff=[f"+ result: {clipped(failure.message, _REASON_SHOWN)}"],
        message=failure.message,
        used=min(used, policy.max_retries),
    )
    return [{**record, "result": "told"}]


def misuse(row: StepRow, step: Step, tool: str, failure: Failure) -> list[JSON]:
    """The record of what was not executed. A tool that is gone has one already: on the call that told it."""
    if failure.kind is FailureKind.TOOL_BROKEN:
        return []
    counter = UNKNOWN if failure.kind is FailureKind.TOOL_UNKNOWN else INVALID + tool
    return told(step, failure, used=row.counters.get(counter, 0) + 1)


# --- the end of a turn ---------------------------------------------------------------------------------------------


def at_end(draft: Draft, row: StepRow, step: Step, calls: Sequence[Call]) -> Verdict:
    """`calls`: those of the turn, settled, in their order."""
    counters = dict(row.counters)
    failed: dict[str, Call] = {}
    for call in calls:
        _count(counters, failed, call)
    if counters != row.counters:
        row.counters = counters
        draft.touch(row)
    verdict = Verdict()
    for tool, call in failed.items():
        verdict = verdict.and_also(_judge(draft, row, step, tool, call))
    return verdict


def _count(counters: dict[str, int], failed: dict[str, Call], call: Call) -> None:
    tool = call.tool or ""
    if call.state == CallState.SUCCEEDED:
        for name in (FAILING + tool, INVALID + tool, UNKNOWN):
            counters.pop(name, None)
        failed.pop(tool, None)
        return
    kind = (call.failure or {}).get("kind")
    if call.state != CallState.FAILED or kind in _NOT_ITS_FAULT:
        return
    failed[tool] = call
    if kind == FailureKind.TOOL_UNKNOWN:
        name = UNKNOWN
    else:
        name = (INVALID if kind == FailureKind.TOOL_ARGUMENTS_INVALID else FAILING) + tool
    counters[name] = counters.get(name, 0) + 1


def _judge(draft: Draft, row: StepRow, step: Step, tool: str, call: Call) -> Verdict:
    kind = FailureKind((call.failure or {})["kind"])
    if kind is FailureKind.TOOL_UNKNOWN:
        over = _beyond(row, step, kind, UNKNOWN)
        return Verdict(failure=_unknown(step, row) if over else None)
    if kind is FailureKind.TOOL_ARGUMENTS_INVALID:
        return _take(draft, row, step, call, whole=False) if _beyond(row, step, kind, INVALID + tool) else Verdict()
    broken = row.counters.get(FAILING + tool, 0) >= recovery.in_a_row(step, FailureKind.TOOL_BROKEN)
    return _take(draft, row, step, call, whole=True) if broken else Verdict()


def _beyond(row: StepRow, step: Step, kind: FailureKind, counter: str) -> bool:
    policy = step.retry.get(kind)
    return policy is not None and row.counters.get(counter, 0) > policy.max_retries


def _take(draft: Draft, row: StepRow, step: Step, call: Call, *, whole: bool) -> Verdict:
    """The tool is taken away, from every agent (`whole`) or from this step; or the step fails, if that is declared."""
    tool, failure = call.tool or "", Failure.from_json(call.failure)
    offered = () if step.agent is None else step.agent.tools
    if refusal(draft, row, offered, tool) is not None:
        return Verdict()
    times = row.counters[(FAILING if whole else INVALID) + tool]
    policy = step.retry.get(FailureKind.TOOL_BROKEN)
    if policy is None or policy.max_retries == 0:
        return Verdict(failure=_broken(tool, times, failure))
    reason = clipped(failure.message, _REASON_SHOWN)
    if whole:
        entry = {"failures": times, "message": reason, "step": row.path, "at": instant(draft.now)}
        draft.workflow.tools_disabled = {**entries(draft), tool: entry}
    else:
        row.counters = {**row.counters, DISABLED + tool: times}
        draft.touch(row)
    told = refusal(draft, row, offered, tool)
    note = f"{wire_name(tool)} is disabled." if told is None else told.message
    record = recovery.record(
        FailureKind.TOOL_BROKEN,
        policy,
        change=CHANGES[Action.DISABLE],
        diff=[f"- {tool}: every further use is refused", f"+ note: {note}"],
        message=f"{tool} failed {times} times in a row: {reason}",
        used=1,
        tool=tool,
    )
    draft.event(
        "agent.tool.disabled",
        call=call,
        data={
            "tool": tool,
            "scope": "workflow" if whole else "step",
            "failures": times,
            "kind": failure.kind,
            "reason": reason,
        },
    )
    changing.told(draft, call, record)
    return Verdict(notes=(note,), records=(record,))


def _broken(tool: str, times: int, last: Failure) -> Failure:
    return Failure(
        kind=FailureKind.TOOL_BROKEN if last.kind is not FailureKind.TOOL_ARGUMENTS_INVALID else last.kind,
        message=f"{tool} failed {times} times in a row; the last time: {clipped(last.message, _REASON_SHOWN)}",
        fix=last.fix or "Look at the tool, then retry the workflow.",
    )


def _unknown(step: Step, row: StepRow) -> Failure:
    listed = ", ".join(wire_name(tool) for tool in (() if step.agent is None else step.agent.tools)) or "none"
    return Failure(
        kind=FailureKind.TOOL_UNKNOWN,
        message=f"The model asked {row.counters[UNKNOWN]} times in a row for tools that it was not offered. "
        f"Offered: {listed}.",
        fix="Name the right tools in the agent's instructions, or list what it needs under its `tools`.",
    )
