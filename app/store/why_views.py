"""Everything that says why one workflow does not move: the rows of a `Situation`.

Read on `snapshots.one_instant`, so that no call is missing because it moved while others were read. Cost depends on
what is open in this workflow, not on its history or on others; only the place in the queue looks at what is due now.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Select, Text, and_, case, cast, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain import taken_tools
from app.domain.dependencies import SHARED
from app.domain.disabling import DISABLED
from app.domain.plan import Probe
from app.domain.recovery_table import CHANGES, Action
from app.domain.situation import ENDING_DUES, Situation
from app.domain.states import (
    FINAL_CALL_STATES,
    ApprovalStatus,
    CallState,
    DueKind,
    HeldReason,
    StepKind,
    Undo,
    WorkflowStatus,
)
from app.store import accounts
from app.store.tables import (
    approvals,
    attempts,
    breakers,
    calls,
    dues,
    events,
    limits,
    steps,
    switches,
    workers,
    workflows,
)
from app.store.workflow_views import undo_failures

Row = dict[str, Any]

LARGEST: Final = 200
"""Calls and approvals of one answer; nobody reads more, and the answer says how many there are."""

_BIG: Final = frozenset({"request", "result", "compensation", "tool_use_id"})
_FIRST_FOR_PEOPLE: Final = case(
    {
        CallState.IN_DOUBT.value: 0,
        CallState.HELD.value: 1,
        CallState.PROBING.value: 2,
        CallState.INTENDED.value: 3,
        CallState.DUE.value: 4,
    },
    value=calls.c.state,
    else_=0,  # settled, and its undo failed
)


async def owner(connection: AsyncConnection, *, tenant_id: UUID, workflow_id: UUID) -> Row | None:
    columns = [column for column in workflows.c if column.name not in ("input", "output")]
    found = await _rows(
        connection, select(*columns).where(workflows.c.id == workflow_id, workflows.c.tenant_id == tenant_id)
    )
    return found[0] if found else None


async def situation(
    connection: AsyncConnection, workflow: Row, *, probes: Mapping[str, Probe], restored: bool = False
) -> Situation:
    """`probes` as the workflow's plan says; of a workflow that has ended only what its agents had to do without, and
    with which models."""
    now: datetime = (await connection.execute(select(func.clock_timestamp()))).scalar_one()
    agents = await _changed_agents(connection, workflow)
    taken, switched = _taken(workflow, agents), await _switched(connection, workflow, agents)
    if WorkflowStatus(workflow["status"]).final:
        return Situation(workflow=workflow, now=now, taken=taken, switched=switched)
    open_calls = await _open_calls(connection, workflow)
    asked = await _approvals(connection, workflow)
    marked = await _dues(connection, workflow, [call["id"] for call in open_calls])
    return Situation(
        workflow=workflow,
        now=now,
        calls=open_calls,
        attempts=await _attempts(connection, workflow, open_calls),
        dues=marked,
        approvals=asked,
        switches=await _switches(connection, workflow, marked),
        dependencies=await _dependencies(connection, workflow, marked),
        pause=await _pause(connection, workflow, open_calls),
        verdicts=await _verdicts(connection, workflow, open_calls),
        undo_failures=await _undo_failures(connection, workflow),
        owners=await _owners(connection, open_calls),
        probes=probes,
        ahead=await _ahead(connection, marked),
        workers=await _workers(connection),
        restored=restored,
        budgets=await _budgets(connection, workflow),
        taken=taken,
        switched=switched,
        more=max(workflow["open_calls"] + workflow["held"] + workflow["doubts"] - len(open_calls), 0),
    )


async def _open_calls(connection: AsyncConnection, workflow: Row) -> list[Row]:
    """Not settled, or an effect whose undo failed."""
    columns = [column for column in calls.c if column.name not in _BIG]
    is_open = calls.c.state.not_in([state.value for state in FINAL_CALL_STATES])
    wanted = or_(is_open, calls.c.undo == Undo.FAILED.value) if workflow["undos_failed"] else is_open
    return await _rows(
        connection,
        select(*columns)
        .where(calls.c.workflow_id == workflow["id"], wanted)
        .order_by(_FIRST_FOR_PEOPLE, calls.c.id)
        .limit(LARGEST),
    )


async def _approvals(connection: AsyncConnection, workflow: Row) -> list[Row]:
    return await _rows(
        connection,
        select(approvals)
        .where(approvals.c.workflow_id == workflow["id"], approvals.c.status == ApprovalStatus.OPEN.value)
        .order_by(approvals.c.id)
        .limit(LARGEST),
    )


async def _dues(connection: AsyncConnection, workflow: Row, refs: Sequence[UUID]) -> list[Row]:
    ending = [kind.value for kind in ENDING_DUES]
    return await _rows(
        connection,
        select(dues).where(dues.c.workflow_id == workflow["id"], or_(dues.c.ref.in_(refs), dues.c.kind.in_(ending))),
    )


async def _attempts(connection: AsyncConnection, workflow: Row, open_calls: Sequence[Row]) -> list[Row]:
    """At the fence of each call that is in flight, or whose result is awaited, with its worker."""
    fences = [call["attempt_id"] for call in open_calls if call["attempt_id"] is not None]
    if not fences:
        return []
    return await _rows(
        connection,
        select(
            attempts,
            workers.c.name.label("worker_name"),
            workers.c.lost_at.label("worker_lost_at"),
            workers.c.lease_until.label("worker_lease_until"),
        )
        .outerjoin(workers, workers.c.id == attempts.c.worker)
        .where(attempts.c.workflow_id == workflow["id"], attempts.c.id.in_(fences)),
    )


async def _changed_agents(connection: AsyncConnection, workflow: Row) -> list[Row]:
    """Agent steps that have lost a tool for themselves alone, or go on with another model."""
    lost = cast(steps.c.counters, Text).contains(f'"{DISABLED}', autoescape=True)
    return await _rows(
        connection,
        select(steps.c.path, steps.c.name, steps.c.model, steps.c.counters)
        .where(
            steps.c.workflow_id == workflow["id"],
            steps.c.kind == StepKind.AGENT.value,
            or_(lost, steps.c.model.is_not(None)),
        )
        .order_by(steps.c.position, steps.c.path)
        .limit(LARGEST),
    )


def _taken(workflow: Row, agents: Sequence[Row]) -> list[taken_tools.Taken]:
    alone = [taken for row in agents for taken in taken_tools.of_step(row["path"], row["counters"])]
    return [*taken_tools.of_workflow(workflow["tools_disabled"]), *alone]


async def _switched(connection: AsyncConnection, workflow: Row, agents: Sequence[Row]) -> list[Row]:
    """With what the latest switch of each was for: its recovery record is on the call that the other model answers."""
    paths = [row["path"] for row in agents if row["model"] is not None]
    if not paths:
        return []
    switches_made = (
        select(calls.c.step, calls.c.recovery, calls.c.created_at)
        .where(
            calls.c.workflow_id == workflow["id"],
            calls.c.step.in_(paths),
            calls.c.change["change"].astext == CHANGES[Action.SWITCH_MODEL],
        )
        .order_by(calls.c.n)
    )
    found = {row["step"]: row for row in await _rows(connection, switches_made)}  # a few of each; the last one stays
    return [
        {**row, "kind": found[row["path"]]["recovery"][0]["kind"], "since": found[row["path"]]["created_at"]}
        for row in agents
        if row["path"] in found
    ]


async def _budgets(connection: AsyncConnection, workflow: Row) -> Sequence[Row]:
    return (await accounts.of(connection, [workflow["id"]]))[workflow["id"]] if workflow["budgeted"] else ()


async def _switches(connection: AsyncConnection, workflow: Row, marked: Sequence[Row]) -> list[Row]:
    scopes = {due["note"] for due in marked if due["kind"] == DueKind.SWITCH and due["note"]}
    if not scopes:
        return []
    return await _rows(
        connection,
        select(switches).where(switches.c.tenant_id == workflow["tenant_id"], switches.c.scope.in_(scopes)),
    )


async def _dependencies(connection: AsyncConnection, workflow: Row, marked: Sequence[Row]) -> list[Row]:
    scopes = {due["note"] for due in marked if due["kind"] == DueKind.DEPENDENCY and due["note"]}
    if not scopes:
        return []
    mine = breakers.c.tenant_id.in_([workflow["tenant_id"], SHARED])
    found = await _rows(connection, select(breakers).where(mine, breakers.c.scope.in_(scopes)))
    known = {row["scope"] for row in found}
    return [*found, *await _rows(connection, select(limits).where(limits.c.scope.in_(scopes - known)))]


async def _pause(connection: AsyncConnection, workflow: Row, open_calls: Sequence[Row]) -> Row | None:
    if workflow["status"] != WorkflowStatus.PAUSED and not _held_for(open_calls, HeldReason.PAUSE):
        return None
    return await pause_of(connection, workflow_id=workflow["id"])


async def pause_of(connection: AsyncConnection, *, workflow_id: UUID) -> Row | None:
    """`by`, `reason`, `at` of the last pause."""
    found = await connection.execute(
        select(events.c.data, events.c.at)
        .where(events.c.workflow_id == workflow_id, events.c.type == "workflow.paused")
        .order_by(events.c.seq.desc())
        .limit(1)
    )
    row = found.one_or_none()
    return None if row is None else {"by": row.data.get("by"), "reason": row.data.get("reason"), "at": row.at}


async def _verdicts(connection: AsyncConnection, workflow: Row, open_calls: Sequence[Row]) -> dict[UUID, list[str]]:
    probing = [call["id"] for call in open_calls if call["state"] == CallState.PROBING]
    return {} if not probing else await verdicts_of(connection, workflow_id=workflow["id"], call_ids=probing)


async def verdicts_of(
    connection: AsyncConnection, *, workflow_id: UUID, call_ids: Collection[UUID]
) -> dict[UUID, list[str]]:
    """Call → what its probes said, in order."""
    found = await connection.execute(
        select(events.c.call_id, events.c.data)
        .where(events.c.workflow_id == workflow_id, events.c.type == "effect.probed", events.c.call_id.in_(call_ids))
        .order_by(events.c.seq)
    )
    said: dict[UUID, list[str]] = {}
    for row in found:
        said.setdefault(row.call_id, []).append(str(row.data.get("verdict")))
    return said


async def _undo_failures(connection: AsyncConnection, workflow: Row) -> dict[UUID, Row]:
    return await undo_failures(connection, workflow_ids=[workflow["id"]]) if workflow["undos_failed"] else {}


async def _owners(connection: AsyncConnection, open_calls: Sequence[Row]) -> dict[UUID, Row]:
    attached = _held_for(open_calls, HeldReason.ATTACHED)
    targets = [call["target"] for call in attached if call["target"] is not None]
    if not targets:
        return {}
    found = await _rows(
        connection,
        select(calls.c.id, calls.c.workflow_id, calls.c.step, calls.c.state).where(calls.c.id.in_(targets)),
    )
    return {row["id"]: row for row in found}


async def _ahead(connection: AsyncConnection, marked: Sequence[Row]) -> dict[UUID, int]:
    """How many calls that are due come first, in the order the sweep rings them."""
    due = [row["ref"] for row in marked if row["kind"] == DueKind.CALL]
    if not due:
        return {}
    place = func.row_number().over(order_by=(dues.c.priority, dues.c.due_at, dues.c.ref))
    queue = (
        select(dues.c.ref, place.label("place"))
        .join(calls, and_(calls.c.workflow_id == dues.c.workflow_id, calls.c.id == dues.c.ref))
        .where(
            dues.c.kind == DueKind.CALL.value,
            dues.c.due_at <= func.clock_timestamp(),
            calls.c.state == CallState.DUE.value,
        )
        .subquery()
    )
    found = await connection.execute(select(queue.c.ref, queue.c.place).where(queue.c.ref.in_(due)))
    return {row.ref: int(row.place) - 1 for row in found}


async def _workers(connection: AsyncConnection) -> list[int]:
    """The engine version of every worker that is alive."""
    found = await connection.execute(
        select(workers.c.engine_version).where(
            workers.c.lost_at.is_(None), workers.c.stopped_at.is_(None), workers.c.lease_until > func.clock_timestamp()
        )
    )
    return [int(row.engine_version) for row in found]


def _held_for(open_calls: Sequence[Row], reason: HeldReason) -> list[Row]:
    return [call for call in open_calls if call["state"] == CallState.HELD and call["held_reason"] == reason]


async def _rows(connection: AsyncConnection, query: Select[Any]) -> list[Row]:
    found = await connection.execute(query)
    return [dict(row) for row in found.mappings()]
