"""Everything a trace is built from besides the workflow itself: its steps, calls, attempts and approvals as dicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.tables import approvals, attempts, calls, steps

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class TraceRows:
    steps: Sequence[Row]
    calls: Sequence[Row]
    attempts: Sequence[Row]
    approvals: Sequence[Row]


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
    found_calls = await _dicts(
        connection, select(calls).where(calls.c.workflow_id == workflow_id).order_by(calls.c.step, calls.c.n)
    )
    found_steps = await _dicts(
        connection,
        select(steps)
        .where(steps.c.workflow_id == workflow_id)
        .order_by(steps.c.position, func.coalesce(steps.c.item_index, -1), steps.c.path),
    )
    return TraceRows(steps=found_steps, calls=found_calls, attempts=found_attempts, approvals=found_approvals)


async def clock(connection: AsyncConnection) -> datetime:
    """The database's clock: how long something has been open is judged by it."""
    now: datetime = (await connection.execute(select(func.clock_timestamp()))).scalar_one()
    return now


async def _dicts(connection: AsyncConnection, query: Select[Any]) -> list[Row]:
    found = await connection.execute(query)
    return [dict(row) for row in found.mappings()]
