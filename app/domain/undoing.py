"""What an effect leaves behind so that it can be undone: its compensation, with arguments evaluated when it succeeded.

`record` is called for each effect that is known done and owned. Nothing is called here; the saga does that
(`app/domain/saga.py`), after the drain.
"""

from __future__ import annotations

from typing import Final

from app.domain import expressions
from app.domain.aggregate import Call, StepRow
from app.domain.outcomes import JSON
from app.domain.plan import Compensation
from app.domain.states import CallKind, EffectClass, StepKind, Undo
from app.domain.transition import Draft

UNDO: Final = "undo"
"""Counter on a step's own row: effects of it and its items that are not undone yet."""
UNDOING: Final = "undoing"
"""Counter beside it: compensations under way."""


def record(draft: Draft, call: Call, result: JSON) -> None:
    """The effect happened and is ours: note how it would be undone."""
    if call.kind != CallKind.TOOL or call.effect == EffectClass.READ_ONLY or call.undo != Undo.NONE:
        return
    row = draft.step(call.step)
    declared = declared_for(draft, row, call)
    if declared is None:
        return
    seen = {"arguments": call.request["arguments"], "input": draft.workflow.input, "output": result}
    try:
        call.compensation = {"tool": declared.tool, "arguments": declared.arguments.render(seen), "error": None}
    except expressions.ExpressionError as error:
        # Told when it is to be undone: the effect itself is fine.
        call.compensation = {"tool": declared.tool, "arguments": None, "error": error.message}
    count(draft, row, UNDO, 1)
    draft.workflow.undos += 1
    mark(draft, call, Undo.RECORDED)


def declared_for(draft: Draft, row: StepRow, call: Call) -> Compensation | None:
    step = draft.plan.steps[row.name]
    if row.kind == StepKind.TOOL and step.compensate is not None:
        return step.compensate
    tool = None if call.tool is None else draft.plan.tools.get(call.tool)
    return None if tool is None else tool.compensate


def mark(draft: Draft, call: Call, undo: Undo) -> None:
    """On the effect and on its step, whose latest word it is."""
    call.undo = undo
    draft.touch_call(call)
    row = draft.step(call.step)
    row.undo = undo
    draft.touch(row)


def count(draft: Draft, row: StepRow, counter: str, by: int) -> None:
    """On the row of the step itself, for items on their parent's."""
    owner = row if row.parent is None else draft.step(row.parent)
    owner.counters = {**owner.counters, counter: owner.counters.get(counter, 0) + by}
    draft.touch(owner)
