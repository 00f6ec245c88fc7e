"""Everything a trace is built from besides the workflow itself: its steps, calls, attempts, approvals as dicts, and
those events that say what no row does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.step_views import DUE_AT
from app.store.tables import approvals, attempts, calls, events, steps

Row = dict[str, Any]

FINDINGS: Final = (
    "effect.probed",
    "effect.attached",
    "effect.resolved",
    "effect.repeated",
    "effect.contradicted",
    "compensation.failed",
    "compensation.settled",
    "agent.step.operated",
    "workflow.paused",
    "workflow.reopened",
)
"""Events that no row repeats: what a probe said, whose result was taken, what evidence settled, what people did."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TraceRows:
    steps: Sequence[Row]
    calls: Sequence[Row]
    """With `due_at`."""
    attempts: Sequence[Row]
    approvals: Sequence[Row]
    findings: Sequence[Row]
    """Events of the types in `FINDINGS`, in order."""


async def rows(connection: AsyncConnection, *, workflow_id: UUID) -> TraceRows:
    """Steps in document order, calls by number, attempts by number.

    Read child first (attempts, calls, steps), without a common snapshot: a row is written in the same transaction as
    its parent or later, so whatever was found has its parent among what is read afterwards.
    """
    found_attempts = await _dicts(
        connection,
        select(attempts).where(attempts.c.workflow_id == workflow_id).order_by(attempts.c.call_id, attempts.c.n),
    )
    found_approvals = await _dicts(
        connection, select(approvals).where(approvals.c.workflow_id == workflow_id).order_by(approvals.c.id)
    )
    found_findings = await _dicts(
        connection,
        select(events).where(events.c.workflow_id == workflow_id, events.c.type.in_(FINDINGS)).order_by(events.c.seq),
    )
    found_calls = await _dicts(
        connection, select(calls, DUE_AT).where(calls.c.workflow_id == workflow_id).order_by(calls.c.step, calls.c.n)
    )
    found_steps = await _dicts(
        connection,
        select(steps)
        .where(steps.c.workflow_id == workflow_id)
        .order_by(steps.c.position, func.coalesce(steps.c.item_index, -1), steps.c.path),
    )
    return TraceRows(
        steps=found_steps,
        calls=found_calls,
        attempts=found_attempts,
        approvals=found_approvals,
        findings=found_findings,
    )


async def clock(connection: AsyncConnection) -> datetime:
    """The database's clock: how long something has been open is judged by it."""
    now: datetime = (await connection.execute(select(func.clock_timestamp()))).scalar_one()
    return now


async def _dicts(connection: AsyncConnection, query: Select[Any]) -> list[Row]:
    found = await connection.execute(query)
    return [dict(row) for row in found.mappings()]
