"""What a GET says about effects: calls whose tool changes something, and the calls that undo them.

Rows as dicts, reads only; an effect's id is its call's. A list over all workflows that asks for states or undos which
only open workflows can have looks at those workflows only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, RowMapping, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.states import FINAL_CALL_STATES, CallKind, CallState, EffectClass, StepKind, Undo
from app.store.doubts import Filter
from app.store.tables import calls, steps, workflows

Row = dict[str, Any]

_IS_EFFECT: Final[tuple[ColumnElement[bool], ...]] = (
    calls.c.effect != EffectClass.READ_ONLY.value,
    calls.c.kind.in_([CallKind.TOOL.value, CallKind.COMPENSATION.value]),
)
_EFFECTS: Final = select(calls, steps.c.kind.label("step_kind"), steps.c.output.label("step_output")).join_from(
    calls, steps, (steps.c.workflow_id == calls.c.workflow_id) & (steps.c.path == calls.c.step)
)
OPEN_UNDOS: Final = frozenset({Undo.RUNNING, Undo.FAILED})
"""Under way or waiting for an operator: no workflow ends with such an effect."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EffectFilters:
    states: Sequence[str] = ()
    undos: Sequence[str] = ()
    tool: str | None = None


async def one(connection: AsyncConnection, *, tenant_id: UUID, call_id: UUID) -> Row | None:
    found = await connection.execute(_EFFECTS.where(calls.c.id == call_id, calls.c.tenant_id == tenant_id, *_IS_EFFECT))
    row = found.mappings().one_or_none()
    return None if row is None else (await _with_undoing(connection, [_row(row)]))[0]


async def of_workflow(
    connection: AsyncConnection, *, workflow_id: UUID, filters: EffectFilters, after: UUID | None, limit: int
) -> list[Row]:
    """Oldest first: the order in which they were asked for."""
    query = _EFFECTS.where(calls.c.workflow_id == workflow_id, *_IS_EFFECT, *_conditions(filters))
    if after is not None:
        query = query.where(calls.c.id > after)
    found = await connection.execute(query.order_by(calls.c.id).limit(limit))
    return await _with_undoing(connection, [_row(row) for row in found.mappings()])


async def tenant_page(
    connection: AsyncConnection,
    *,
    tenant_id: UUID,
    filters: EffectFilters,
    workflow_id: UUID | None,
    before: UUID | None,
    limit: int,
) -> list[Row]:
    """Newest first, over all workflows or of one."""
    query = _EFFECTS.where(calls.c.tenant_id == tenant_id, *_IS_EFFECT, *_conditions(filters))
    if workflow_id is not None:
        query = query.where(calls.c.workflow_id == workflow_id)
    elif _only_open(filters):
        unfinished = select(workflows.c.id).where(workflows.c.tenant_id == tenant_id, workflows.c.ended_at.is_(None))
        query = query.where(calls.c.workflow_id.in_(unfinished))
    if before is not None:
        query = query.where(calls.c.id < before)
    found = await connection.execute(query.order_by(calls.c.id.desc()).limit(limit))
    return await _with_undoing(connection, [_row(row) for row in found.mappings()])


async def doubts(connection: AsyncConnection, *, tenant_id: UUID, filter: Filter) -> int:
    """How many effects in doubt a bulk verdict's filter means."""
    query = (
        select(func.count())
        .select_from(calls.join(workflows, workflows.c.id == calls.c.workflow_id))
        .where(
            workflows.c.tenant_id == tenant_id,
            workflows.c.doubts > 0,
            calls.c.ended_at.is_(None),
            calls.c.state == CallState.IN_DOUBT.value,
        )
    )
    if filter.workflow_id is not None:
        query = query.where(workflows.c.id == filter.workflow_id)
    if filter.tool is not None:
        query = query.where(calls.c.tool == filter.tool)
    if filter.step is not None:
        of_step = func.split_part(calls.c.step, ".", 1) == filter.step
        query = query.where((calls.c.step == filter.step) | of_step)
    if filter.since is not None:
        query = query.where(calls.c.doubt_since >= filter.since)
    if filter.until is not None:
        query = query.where(calls.c.doubt_since < filter.until)
    found: int = (await connection.execute(query)).scalar_one()
    return found


def _conditions(filters: EffectFilters) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if filters.states:
        conditions.append(calls.c.state.in_(filters.states))
    if filters.undos:
        conditions.append(calls.c.undo.in_(filters.undos))
    if filters.tool is not None:
        conditions.append(calls.c.tool == filters.tool)
    return conditions


def _only_open(filters: EffectFilters) -> bool:
    states = bool(filters.states) and all(CallState(state) not in FINAL_CALL_STATES for state in filters.states)
    undos = bool(filters.undos) and all(Undo(undo) in OPEN_UNDOS for undo in filters.undos)
    return states or undos


def _row(found: RowMapping) -> Row:
    """A call's row with what it came to. A step that names a tool keeps its one call's result as its output, once."""
    row = dict(found)
    kind, output = row.pop("step_kind"), row.pop("step_output")
    if kind == StepKind.TOOL and row["kind"] == CallKind.TOOL and row["state"] == CallState.SUCCEEDED:
        row["result"] = output
    return row


async def _with_undoing(connection: AsyncConnection, rows: list[Row]) -> list[Row]:
    """Each row with `undoing`: the newest call that undoes it (id, state, failure), or None."""
    undone = [row["id"] for row in rows if row["undo"] != Undo.NONE]
    undoing: dict[UUID, Row] = {}
    if undone:
        found = await connection.execute(
            select(calls.c.id, calls.c.target, calls.c.state, calls.c.failure)
            .where(
                calls.c.workflow_id.in_({row["workflow_id"] for row in rows}),
                calls.c.target.in_(undone),
                calls.c.kind == CallKind.COMPENSATION.value,
            )
            .order_by(calls.c.id)
        )
        undoing = {row["target"]: dict(row) for row in found.mappings()}  # the newest stands last, and stays
    return [{**row, "undoing": undoing.get(row["id"])} for row in rows]
