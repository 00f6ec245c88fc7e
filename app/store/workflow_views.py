"""What a GET says about workflows: rows as dicts with the column names of `app/store/tables.py`.

Reads only, READ COMMITTED, no locks; always by tenant.
Cost does not depend on how many workflows are finished: lists walk (tenant, id) backwards, a key is found by its own
primary key. A poll of one is `app/store/workflow_glance.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, and_, any_, case, func, literal, literal_column, or_, select
from sqlalchemy.dialects.postgresql import array, distinct_on
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain import ids, uninstalled
from app.domain.aggregate import Workflow
from app.domain.states import (
    FINAL_STATUSES,
    ApprovalStatus,
    AttemptOutcome,
    CallKind,
    CallState,
    DueKind,
    HeldReason,
    StepState,
    Undo,
    WorkflowStatus,
)
from app.store import columns
from app.store.step_views import DUE_AT
from app.store.submissions import ROUTE
from app.store.tables import approvals, attempts, calls, dues, events, idempotency_keys, steps, workers, workflows

Row = dict[str, Any]

STALLED_AFTER = timedelta(seconds=30)
"""A call that has been due this long while workers live is worth a word; a sweep rings again every second."""

RETRYING: Final = "retrying"
"""The symptom of a call that is due and not for the first time."""

_HAS_APPROVAL = (HeldReason.APPROVAL, HeldReason.REPEAT, HeldReason.DRIFT)
"""Reasons whose open approval is listed instead of the held call."""


CLOCKS_DIFFER: Final = timedelta(hours=1)
"""Far more than two machines of one installation; an hour's workflows more are soon read."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkflowFilters:
    statuses: Sequence[str] = ()
    definition: str | None = None
    """A definition's name, or `sha256:…`, its digest."""
    labels: Mapping[str, str] = field(default_factory=dict)
    since: datetime | None = None
    attention: str | None = None
    failure_kind: str | None = None
    key: str | None = None
    """An idempotency key."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Waits:
    """What one workflow waits for, as rows."""

    approvals: Sequence[Row] = ()
    calls: Sequence[Row] = ()
    """Held without an approval, or in doubt; effects whose undo failed, with `undo_failed_at`."""
    pending: Sequence[Row] = ()
    """Calls that are being probed or whose result is awaited (202), each with `asking`: the tool that is
    asked, None for a result; and `next_at`: when it is asked again (None: now), or how long the result is awaited."""


async def one(connection: AsyncConnection, *, tenant_id: UUID, workflow_id: UUID) -> Row | None:
    found = await connection.execute(
        select(workflows).where(workflows.c.id == workflow_id, workflows.c.tenant_id == tenant_id)
    )
    row = found.mappings().one_or_none()
    return None if row is None else dict(row)


def row_of_aggregate(workflow: Workflow) -> Row:
    """The row of a workflow that was just written, without reading it."""
    return {name: getattr(workflow, name) for name in columns.WORKFLOW}


async def page(
    connection: AsyncConnection, *, tenant_id: UUID, filters: WorkflowFilters, before: UUID | None, limit: int
) -> list[Row]:
    """Newest first, without the big columns input and output."""
    columns = [column for column in workflows.c if column.name not in ("input", "output")]
    query = select(*columns).where(workflows.c.tenant_id == tenant_id, *_conditions(filters, tenant_id=tenant_id))
    if before is not None:
        query = query.where(workflows.c.id < before)
    found = await connection.execute(query.order_by(workflows.c.id.desc()).limit(limit))
    return [dict(row) for row in found.mappings()]


def _clocks(since: datetime) -> datetime:
    """An id has its time from another clock than the row: bounded by it, less what two clocks may differ."""
    return max(since, _EPOCH + CLOCKS_DIFFER) - CLOCKS_DIFFER


def _conditions(filters: WorkflowFilters, *, tenant_id: UUID) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if filters.statuses:
        conditions.append(workflows.c.status.in_(filters.statuses))
        if not FINAL_STATUSES.intersection(filters.statuses):
            conditions.append(workflows.c.ended_at.is_(None))  # there is an index of those that have not ended
        elif set(filters.statuses) == {WorkflowStatus.FAILED}:
            conditions.append(workflows.c.failure.is_not(None))  # and one of those that say why they failed
    if filters.definition is not None:
        by_digest = filters.definition.startswith("sha256:")
        column = workflows.c.definition_digest if by_digest else workflows.c.name
        conditions.append(column == filters.definition)
    if filters.labels:
        conditions.append(workflows.c.labels.contains(dict(filters.labels)))
    if filters.since is not None:
        conditions += [workflows.c.created_at >= filters.since, workflows.c.id >= ids.floor(_clocks(filters.since))]
    if filters.attention is not None:
        conditions += [
            literal(filters.attention) == any_(workflows.c.attention),
            workflows.c.attention != literal_column("'{}'"),
        ]
    if filters.failure_kind is not None:
        conditions += [
            workflows.c.failure["kind"].astext == filters.failure_kind,
            workflows.c.failure.is_not(None),
        ]
    if filters.key is not None:
        owner = select(idempotency_keys.c.workflow_id).where(
            idempotency_keys.c.tenant_id == tenant_id,
            idempotency_keys.c.route == ROUTE,
            idempotency_keys.c.key == filters.key,
        )
        conditions.append(workflows.c.id.in_(owner))
    return conditions


async def waits(connection: AsyncConnection, rows: Sequence[Row]) -> dict[UUID, Waits]:
    """For each of these workflows what it waits for; the counters on the rows say which need a look at all."""
    asking = [row["id"] for row in rows if row["waits"] > 0 or row["held"] > 0]
    parked = [row["id"] for row in rows if row["held"] > 0 or row["doubts"] > 0]
    stuck = [row["id"] for row in rows if row["undos_failed"] > 0]
    # What was only accepted (every 202) cannot wait for a probe or a result yet.
    moving = [row["id"] for row in rows if row["open_calls"] > 0 and row["revision"] > 1]
    open_approvals = await _open_approvals(connection, asking) if asking else []
    parked_calls = await _parked_calls(connection, parked, _PARKED) if parked else []
    parked_calls += await _failed_undos(connection, stuck) if stuck else []
    pending = await _pending(connection, moving) if moving else []
    return {
        row["id"]: Waits(
            approvals=[wait for wait in open_approvals if wait["workflow_id"] == row["id"]],
            calls=[wait for wait in parked_calls if wait["workflow_id"] == row["id"]],
            pending=[wait for wait in pending if wait["workflow_id"] == row["id"]],
        )
        for row in rows
    }


_PARKED = or_(
    calls.c.state == CallState.IN_DOUBT.value,
    and_(
        calls.c.state == CallState.HELD.value,
        calls.c.held_reason.not_in([reason.value for reason in _HAS_APPROVAL]),
    ),
)
_NARROW = [column for column in calls.c if column.name not in ("request", "result", "compensation")]


async def _open_approvals(connection: AsyncConnection, workflow_ids: Sequence[UUID]) -> list[Row]:
    found = await connection.execute(
        select(approvals, calls.c.tool)
        .outerjoin(calls, and_(calls.c.workflow_id == approvals.c.workflow_id, calls.c.id == approvals.c.call_id))
        .where(approvals.c.workflow_id.in_(workflow_ids), approvals.c.status == ApprovalStatus.OPEN.value)
        .order_by(approvals.c.id)
    )
    return [dict(row) for row in found.mappings()]


async def _parked_calls(
    connection: AsyncConnection, workflow_ids: Sequence[UUID], which: ColumnElement[bool]
) -> list[Row]:
    found = await connection.execute(
        select(*_NARROW).where(calls.c.workflow_id.in_(workflow_ids), which).order_by(calls.c.id)
    )
    return [dict(row) for row in found.mappings()]


async def _failed_undos(connection: AsyncConnection, workflow_ids: Sequence[UUID]) -> list[Row]:
    found = await _parked_calls(connection, workflow_ids, calls.c.undo == Undo.FAILED.value)
    failures = await undo_failures(connection, workflow_ids=workflow_ids)
    return [{**call, "undo_failed_at": failures.get(call["id"], {}).get("at")} for call in found]


async def undo_failures(connection: AsyncConnection, *, workflow_ids: Sequence[UUID]) -> dict[UUID, Row]:
    """Effect → `reason` and `at` of the last failure of its undo."""
    found = await connection.execute(
        select(events.c.data, events.c.at)
        .where(events.c.workflow_id == any_(array(workflow_ids)), events.c.type == "compensation.failed")
        .order_by(events.c.workflow_id, events.c.seq)
    )
    return {ids.decode("call", row.data["effect"]): {"reason": str(row.data["reason"]), "at": row.at} for row in found}


async def _pending(connection: AsyncConnection, workflow_ids: Sequence[UUID]) -> list[Row]:
    """By way of the narrow `dues`: what a probe that is due or in flight asks about, and what a 202 promised."""
    marker = calls.alias("marker")
    about = case((dues.c.kind == DueKind.RESULT.value, dues.c.ref), else_=marker.c.target)
    found = await connection.execute(
        select(
            *_NARROW,
            case(
                (or_(dues.c.kind == DueKind.RESULT.value, marker.c.state == CallState.DUE.value), dues.c.due_at)
            ).label("next_at"),
            case((dues.c.kind == DueKind.RESULT.value, None), else_=marker.c.tool).label("asking"),
        )
        .select_from(dues)
        .join(marker, and_(marker.c.workflow_id == dues.c.workflow_id, marker.c.id == dues.c.ref))
        .join(calls, and_(calls.c.workflow_id == dues.c.workflow_id, calls.c.id == about))
        .where(
            dues.c.workflow_id == any_(array(workflow_ids)),
            or_(
                dues.c.kind == DueKind.RESULT.value,
                and_(
                    dues.c.kind.in_([DueKind.CALL.value, DueKind.ATTEMPT.value]),
                    marker.c.kind == CallKind.PROBE.value,
                ),
            ),
        )
        .order_by(calls.c.id)
    )
    return [dict(row) for row in found.mappings()]


async def story(connection: AsyncConnection, row: Row) -> tuple[list[Row], list[Row]]:
    """(steps, calls) that a headline of this workflow tells about: what is busy or asks, what was recovered."""
    busy: list[Row] = []
    recovered: list[Row] = []
    if row["status"] in (WorkflowStatus.RUNNING, WorkflowStatus.WAITING, WorkflowStatus.PAUSED):
        found = await connection.execute(
            select(*[column for column in steps.c if column.name not in ("input", "output", "item")])
            .where(
                steps.c.workflow_id == row["id"],
                steps.c.parent.is_(None),
                steps.c.state.in_([StepState.RUNNING.value, StepState.WAITING.value]),
            )
            .order_by(steps.c.position)
        )
        busy = [dict(step) for step in found.mappings()]
    if row["retries"] > 0 or row["held"] > 0 or row["doubts"] > 0:
        found = await connection.execute(
            select(*[column for column in calls.c if column.name not in ("request", "result")], DUE_AT)
            .where(
                calls.c.workflow_id == row["id"],
                or_(
                    calls.c.recovery != [],
                    calls.c.state.in_([CallState.HELD.value, CallState.IN_DOUBT.value]),
                ),
            )
            .order_by(calls.c.id)
        )
        recovered = [dict(call) for call in found.mappings()]
    return busy, recovered


async def symptoms(connection: AsyncConnection, rows: Sequence[Row]) -> dict[UUID, list[str]]:
    """Attention that depends on time, so that nobody wrote it: `no_worker`, `stalled`, `retrying`.

    Asked of the narrow `dues`, never of history.
    """
    asking = [row["id"] for row in rows if row["open_calls"] > 0]
    if not asking:
        return {}
    alive = select(workers.c.id).where(
        workers.c.lost_at.is_(None), workers.c.stopped_at.is_(None), workers.c.lease_until > func.clock_timestamp()
    )
    found = await connection.execute(
        select(
            dues.c.workflow_id,
            func.bool_or(dues.c.due_at < func.clock_timestamp()).label("due"),
            func.bool_or(dues.c.due_at < func.clock_timestamp() - STALLED_AFTER).label("late"),
            func.bool_or(or_(calls.c.attempts > 0, calls.c.retry_of.is_not(None))).label("again"),
            alive.exists().label("worker"),
        )
        .join(calls, and_(calls.c.workflow_id == dues.c.workflow_id, calls.c.id == dues.c.ref))
        .where(
            dues.c.workflow_id == any_(array(asking)),
            dues.c.kind == DueKind.CALL.value,
            calls.c.state == CallState.DUE.value,
        )
        .group_by(dues.c.workflow_id)
    )
    return {row.workflow_id: words(due=row.due, late=row.late, again=row.again, worker=row.worker) for row in found}


async def missing(connection: AsyncConnection, rows: Sequence[Row]) -> dict[UUID, Row]:
    """Of these workflows those with calls that no worker could make so far, because something is not installed: what
    `app/domain/uninstalled.py` tells of. Asked of the narrow `dues`, like the symptom `retrying` that it is one of."""
    asking = [row["id"] for row in rows if row["open_calls"] > 0 and row["revision"] > 1]
    if not asking:
        return {}
    found = await connection.execute(
        select(
            dues.c.workflow_id,
            dues.c.due_at,
            attempts.c.failure,
            func.count().over(partition_by=dues.c.workflow_id).label("calls"),
        )
        .join(calls, and_(calls.c.workflow_id == dues.c.workflow_id, calls.c.id == dues.c.ref))
        .join(
            attempts,
            and_(
                attempts.c.workflow_id == calls.c.workflow_id,
                attempts.c.call_id == calls.c.id,
                attempts.c.id == calls.c.attempt_id,
            ),
        )
        .where(
            dues.c.workflow_id == any_(array(asking)),
            dues.c.kind == DueKind.CALL.value,
            calls.c.state == CallState.DUE.value,
            attempts.c.outcome == AttemptOutcome.NOT_SENT.value,
            attempts.c.failure["detail"]["seen"].astext.in_(uninstalled.SEEN),
        )
        .ext(distinct_on(dues.c.workflow_id))
        .order_by(dues.c.workflow_id, dues.c.due_at)
    )
    return {row["workflow_id"]: dict(row) for row in found.mappings()}


def words(*, due: bool | None, late: bool | None, again: bool | None, worker: bool) -> list[str]:
    """What is told of calls that are due: since when, for how long, not for the first time, and nobody is there."""
    told = (("no_worker", due and not worker), ("stalled", late and worker), (RETRYING, again))
    return [word for word, applies in told if applies]
