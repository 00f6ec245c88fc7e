"""What a GET says about effects: calls whose tool changes something. An effect's id is its call's.

Rows as dicts, reads only. `tenant_page` of a state that is not final looks only at workflows that are not final.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, RowMapping, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.states import FINAL_CALL_STATES, CallKind, CallState, EffectClass, StepKind
from app.store.tables import calls, steps, workflows

Row = dict[str, Any]

_IS_EFFECT: tuple[ColumnElement[bool], ...] = (
    calls.c.effect != EffectClass.READ_ONLY.value,
    calls.c.kind.in_([CallKind.TOOL.value, CallKind.COMPENSATION.value]),
)


_EFFECTS = select(calls, steps.c.kind.label("step_kind"), steps.c.output.label("step_output")).join_from(
    calls, steps, (steps.c.workflow_id == calls.c.workflow_id) & (steps.c.path == calls.c.step)
)


def _row(found: RowMapping) -> Row:
    """A call's row with what it came to. A step that names a tool keeps its one call's result as its output, once."""
    row = dict(found)
    kind, output = row.pop("step_kind"), row.pop("step_output")
    if kind == StepKind.TOOL and row["state"] == CallState.SUCCEEDED:
        row["result"] = output
    return row


async def one(connection: AsyncConnection, *, tenant_id: UUID, call_id: UUID) -> Row | None:
    found = await connection.execute(_EFFECTS.where(calls.c.id == call_id, calls.c.tenant_id == tenant_id, *_IS_EFFECT))
    row = found.mappings().one_or_none()
    return None if row is None else _row(row)


async def of_workflow(
    connection: AsyncConnection, *, workflow_id: UUID, states: Sequence[str], after: UUID | None, limit: int
) -> list[Row]:
    """Oldest first: the order in which they were asked for."""
    query = _EFFECTS.where(calls.c.workflow_id == workflow_id, *_IS_EFFECT)
    if states:
        query = query.where(calls.c.state.in_(states))
    if after is not None:
        query = query.where(calls.c.id > after)
    found = await connection.execute(query.order_by(calls.c.id).limit(limit))
    return [_row(row) for row in found.mappings()]


async def tenant_page(
    connection: AsyncConnection, *, tenant_id: UUID, states: Sequence[str], before: UUID | None, limit: int
) -> list[Row]:
    """Newest first, over all workflows."""
    query = _EFFECTS.where(calls.c.tenant_id == tenant_id, *_IS_EFFECT)
    if states:
        query = query.where(calls.c.state.in_(states))
        if not any(CallState(state) in FINAL_CALL_STATES for state in states):
            unfinished = select(workflows.c.id).where(
                workflows.c.tenant_id == tenant_id, workflows.c.ended_at.is_(None)
            )
            query = query.where(calls.c.workflow_id.in_(unfinished))
    if before is not None:
        query = query.where(calls.c.id < before)
    found = await connection.execute(query.order_by(calls.c.id.desc()).limit(limit))
    return [_row(row) for row in found.mappings()]
