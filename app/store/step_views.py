"""What a GET says about steps, their calls and attempts. Rows as dicts, reads only.

Steps are listed in document order, items after their parent by index. The big columns of a call (`request`,
`result`) are read for one call only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import and_, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.states import CallState, DueKind
from app.domain.stories import BY_HAND
from app.store.tables import attempts, calls, dues, events, messages, payloads, steps

Row = dict[str, Any]

_ITEM = func.coalesce(steps.c.item_index, -1)
"""The parent comes before its items."""

DUE_AT: Final = (
    select(dues.c.due_at)
    .where(and_(calls.c.state == CallState.DUE.value, dues.c.kind == DueKind.CALL.value, dues.c.ref == calls.c.id))
    .correlate(calls)
    .scalar_subquery()
    .label("due_at")
)
"""Of a call that is due: when it is tried."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepPlace:
    """Where a page ended."""

    position: int
    item: int
    path: str


def place(row: Row) -> StepPlace:
    item = -1 if row["item_index"] is None else row["item_index"]
    return StepPlace(position=row["position"], item=item, path=row["path"])


async def page(
    connection: AsyncConnection, *, workflow_id: UUID, states: Sequence[str], after: StepPlace | None, limit: int
) -> list[Row]:
    order = (steps.c.position, _ITEM, steps.c.path)
    query = select(steps).where(steps.c.workflow_id == workflow_id)
    if states:
        query = query.where(steps.c.state.in_(states))
    if after is not None:
        query = query.where(tuple_(*order) > tuple_(after.position, after.item, after.path))
    found = await connection.execute(query.order_by(*order).limit(limit))
    return [dict(row) for row in found.mappings()]


async def one(connection: AsyncConnection, *, workflow_id: UUID, path: str) -> Row | None:
    found = await connection.execute(select(steps).where(steps.c.workflow_id == workflow_id, steps.c.path == path))
    row = found.mappings().one_or_none()
    return None if row is None else dict(row)


async def operated(connection: AsyncConnection, *, workflow_id: UUID, rows: Sequence[Row]) -> dict[str, Row]:
    """Of these steps those that an operator ended by hand: `action`, `by`, `note`, `at`."""
    ended = {row["path"]: row["state"] for row in rows if row["state"] in BY_HAND.values()}
    if not ended:
        return {}
    found = await connection.execute(
        select(events.c.step, events.c.data, events.c.at)
        .where(
            events.c.workflow_id == workflow_id, events.c.type == "agent.step.operated", events.c.step.in_(ended.keys())
        )
        .order_by(events.c.seq)
    )
    return {row.step: {**row.data, "at": row.at} for row in found if BY_HAND.get(row.data["action"]) == ended[row.step]}


async def attempt_counts(connection: AsyncConnection, *, workflow_id: UUID, paths: Sequence[str]) -> dict[str, int]:
    """Attempts per step path, over all its calls."""
    found = await connection.execute(
        select(calls.c.step, func.sum(calls.c.attempts).label("attempts"))
        .where(calls.c.workflow_id == workflow_id, calls.c.step.in_(paths))
        .group_by(calls.c.step)
    )
    return {row.step: int(row.attempts) for row in found}


async def calls_of(connection: AsyncConnection, *, workflow_id: UUID, path: str) -> list[Row]:
    """The calls of one step in order, with `due_at`, without `request` and `result`."""
    columns = [column for column in calls.c if column.name not in ("request", "result")]
    found = await connection.execute(
        select(*columns, DUE_AT).where(calls.c.workflow_id == workflow_id, calls.c.step == path).order_by(calls.c.n)
    )
    return [dict(row) for row in found.mappings()]


async def call(connection: AsyncConnection, *, workflow_id: UUID, path: str, n: int) -> Row | None:
    """One call whole, with what went out and what was made of the answer."""
    found = await connection.execute(
        select(calls).where(calls.c.workflow_id == workflow_id, calls.c.step == path, calls.c.n == n)
    )
    row = found.mappings().one_or_none()
    return None if row is None else dict(row)


async def attempts_of(
    connection: AsyncConnection, *, workflow_id: UUID, call_ids: Sequence[UUID]
) -> dict[UUID, list[Row]]:
    """The attempts of these calls, in order."""
    grouped: dict[UUID, list[Row]] = {call_id: [] for call_id in call_ids}
    if call_ids:
        found = await connection.execute(
            select(attempts)
            .where(attempts.c.workflow_id == workflow_id, attempts.c.call_id.in_(call_ids))
            .order_by(attempts.c.n)
        )
        for row in found.mappings():
            grouped[row["call_id"]].append(dict(row))
    return grouped


async def conversation(
    connection: AsyncConnection, *, workflow_id: UUID, path: str, conversation: int, below: int
) -> list[bytes]:
    """The messages of one conversation up to (not including) an ordinal, as the bytes that were sent."""
    found = await connection.execute(
        select(messages.c.body)
        .where(
            messages.c.workflow_id == workflow_id,
            messages.c.step == path,
            messages.c.conversation == conversation,
            messages.c.ordinal < below,
        )
        .order_by(messages.c.ordinal)
    )
    return [bytes(row.body) for row in found]


async def payload_bodies(connection: AsyncConnection, *, workflow_id: UUID, hashes: Sequence[str]) -> dict[str, bytes]:
    """The bytes the world sent, by SHA-256; what was erased is absent."""
    if not hashes:
        return {}
    found = await connection.execute(
        select(payloads.c.sha256, payloads.c.body).where(
            payloads.c.workflow_id == workflow_id, payloads.c.sha256.in_(hashes)
        )
    )
    return {row.sha256: bytes(row.body) for row in found}
