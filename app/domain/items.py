"""The items of a for_each: inserted in windows, started while there is room, at most `max_parallel` at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from app.domain import bindings, expressions, gating, kinds
from app.domain.aggregate import StepRow
from app.domain.facts import ItemEnded, ItemsEnded, ItemsWanted
from app.domain.outcomes import JSON
from app.domain.plan import Step
from app.domain.states import StepState, WorkflowStatus
from app.domain.transition import Draft

ITEM_WINDOW: Final = 500
"""Items inserted in one transaction: a for_each of 100,000 must not hold the workflow's lock for seconds."""


def begin_items(draft: Draft, row: StepRow, step: Step, seen: Mapping[str, JSON]) -> None:
    items = step.for_each.render(seen) if step.for_each is not None else None
    if not isinstance(items, list):
        raise expressions.ExpressionError(
            f"for_each of {step.id} is not a list but {type(items).__name__}",
            fix="Give for_each an expression that yields a list.",
        )
    if len(items) > draft.rules.items_limit:
        raise expressions.ExpressionError(
            f"for_each of {step.id} has {len(items)} items; {draft.rules.items_limit} are allowed",
            fix="Split the list over several workflows.",
        )
    row.input = {"items": items}
    row.items_total, row.items_inserted, row.items_started, row.items_open, row.items_failed = len(items), 0, 0, 0, 0
    draft.event(
        "agent.step.started",
        step=row.path,
        moved=(StepState.PENDING, StepState.RUNNING),
        data={"context_size": bindings.size(items), "items": len(items)},
    )
    if not items:
        draft.snapshot.children.add(row.path)
        draft.then(ItemsEnded(step=row.path))
        return
    _insert_window(draft, row, step, items)
    fill_items(draft, row)


def next_item(draft: Draft, fact: ItemEnded) -> None:
    row = draft.step(fact.step)
    if _goes_on(draft, row):
        fill_items(draft, row)


def _goes_on(draft: Draft, row: StepRow) -> bool:
    """Whether items of it may still begin. Its time may have run out between an item's end and this look."""
    ending = WorkflowStatus(draft.workflow.status).ending
    return row.state == StepState.RUNNING and not ending and not row.counters.get("timed_out")


def want_items(draft: Draft, fact: ItemsWanted) -> None:
    row = draft.step(fact.step)
    if not _goes_on(draft, row):
        return
    if fact.window and isinstance(row.input, dict):
        _insert_window(draft, row, draft.plan.steps[fact.step], row.input["items"])
    fill_items(draft, row)


def _insert_window(draft: Draft, row: StepRow, step: Step, items: list[JSON]) -> None:
    first = row.items_inserted or 0
    window = items[first : first + ITEM_WINDOW]
    for index, item in enumerate(window, start=first):
        child = StepRow(
            workflow_id=row.workflow_id,
            path=f"{row.path}.{index}",
            tenant_id=row.tenant_id,
            name=row.name,
            position=row.position,
            parent=row.path,
            item_index=index,
            item=item,
            kind=row.kind,
            state=StepState.PENDING,
            unmet_needs=0,
        )
        draft.snapshot.steps[child.path] = child
        draft.transition.new_steps.append(child)
    row.items_inserted = first + len(window)
    draft.touch(row)


def fill_items(draft: Draft, row: StepRow) -> None:
    """Start items while there is room. Called when the step begins and whenever an item ends."""
    step = draft.plan.steps[row.name]
    total, started = row.items_total or 0, row.items_started or 0
    while (row.items_open or 0) < step.max_parallel and started < total and not row.items_failed:
        child = draft.snapshot.steps.get(f"{row.path}.{started}")
        if child is None:
            window = started >= (row.items_inserted or 0)
            draft.then(ItemsWanted(step=row.path, window=window, started=started))
            break
        if child.state == StepState.CANCELLED and row.path in draft.transition.reopen_items:
            child.state, child.ended_at = StepState.PENDING, None  # as the store is about to do with all of them
        started += 1
        row.items_started, row.items_open = started, (row.items_open or 0) + 1
        draft.touch(row)
        begin_item(draft, child, step)
    if not row.items_open and (started >= total or row.items_failed):
        draft.then(ItemsEnded(step=row.path))


def begin_item(draft: Draft, child: StepRow, step: Step) -> None:
    draft.move_step(child, StepState.RUNNING)
    gating.inherit(draft, child, step)
    try:
        seen = bindings.seen_by(draft, step.needs, child)
        if step.title is not None:
            child.title = str(step.title.render(seen))
        kinds.begin_kind(draft, child, step, seen)
    except expressions.ExpressionError as error:
        kinds.expression_failed(draft, child, error)
