"""Rows of workflows that wait, as the engine leaves them: each a workflow whose rows agree with its counters."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text
from uuid_utils.compat import uuid7

from app.domain import ids
from app.domain.ids import DEFAULT_TENANT
from app.store import tables
from app.store.database import Database
from tests.api import rows

LEASE = timedelta(minutes=5)
UNDO_FAILED_AT = rows.BEGAN + timedelta(seconds=3)
"""The effect itself was done when its workflow began."""


async def clock(database: Database) -> datetime:
    async with database.reading() as connection:
        now: datetime = (await connection.execute(text("SELECT clock_timestamp()"))).scalar_one()
    return now


async def due(
    database: Database, workflow_id: UUID, kind: str, ref: UUID, *, seconds: float = -1.0, **changed: Any
) -> None:
    """A due, so many seconds from now."""
    at = await clock(database) + timedelta(seconds=seconds)
    values: dict[str, Any] = {"tenant_id": DEFAULT_TENANT, "lane": "calls", "due_at": at, "ring_at": at}
    await rows.write(database, tables.dues, kind=kind, ref=ref, workflow_id=workflow_id, **values | changed)


async def worker(database: Database, *, version: int = 1, lease: timedelta = LEASE) -> UUID:
    worker_id: UUID = uuid7()
    now = await clock(database)
    await rows.write(
        database, tables.workers, id=worker_id, name="worker.2", host="h", boot_id="b", pid=4711, slots=8,
        engine_version=version, started_at=now, beat_at=now, lease_until=now + lease,
    )  # fmt: skip
    return worker_id


async def due_call(database: Database) -> UUID:
    """One call that is due now."""
    workflow_id = await rows.workflow(database)
    await rows.step(database, workflow_id, "create")
    await due(database, workflow_id, "call", await rows.call(database, workflow_id, "create"))
    return workflow_id


async def flying(database: Database) -> UUID:
    """One call in flight in a living worker."""
    workflow_id = await rows.workflow(database)
    await rows.step(database, workflow_id, "create")
    call_id = await rows.call(database, workflow_id, "create", state="due")
    worker_id = await worker(database)
    deadline = await clock(database) + timedelta(seconds=30)
    attempt_id = await rows.attempt(
        database, workflow_id, call_id, worker=worker_id, outcome=None, received_at=None, send_deadline=deadline
    )
    await rows.change(
        database, "UPDATE calls SET state = 'intended', attempt_id = :attempt WHERE id = :call",
        attempt=attempt_id, call=call_id,
    )  # fmt: skip
    await due(database, workflow_id, "attempt", call_id, seconds=45, worker=worker_id)
    return workflow_id


async def probing(database: Database) -> UUID:
    """A call that is being probed; the next probe is due in a minute, the last one said: absent."""
    workflow_id = await rows.workflow(database, open_calls=2)
    await rows.step(database, workflow_id, "create", calls=2)
    probe_id: UUID = uuid7()
    now = await clock(database)
    call_id = await rows.call(
        database, workflow_id, "create", state="probing", effect="checkable", probe_id=probe_id, attempts=1,
        doubt_since=now, not_before=now, tries={"probe": 1},
    )  # fmt: skip
    await rows.call(
        database, workflow_id, "create", id=probe_id, n=2, kind="probe", tool="calendar.find_event",
        effect="read_only", target=call_id, key=None,
    )  # fmt: skip
    await due(database, workflow_id, "call", probe_id, seconds=60)
    await rows.event(database, workflow_id, 1, "effect.probed", call_id=call_id, data={"verdict": "absent"})
    return workflow_id


async def awaited(database: Database) -> UUID:
    """A call that its tool accepted (202); the result is waited for."""
    workflow_id = await rows.workflow(database)
    await rows.step(database, workflow_id, "create", calls=1)
    call_id = await rows.call(database, workflow_id, "create")
    attempt_id = await rows.attempt(database, workflow_id, call_id, outcome=None, status_code=202)
    await rows.change(
        database, "UPDATE calls SET state = 'intended', attempt_id = :attempt WHERE id = :call",
        attempt=attempt_id, call=call_id,
    )  # fmt: skip
    await due(database, workflow_id, "result", call_id, seconds=600)
    return workflow_id


async def held(database: Database, reason: str, *, status: str = "waiting", **changed: Any) -> tuple[UUID, UUID]:
    """A workflow with one held call, and the call. Nothing beside it: the caller adds what wakes it."""
    workflow_id = await rows.workflow(database, status=status, open_calls=0, held=1)
    await rows.step(database, workflow_id, "create", calls=1)
    call_id = await rows.call(database, workflow_id, "create", state="held", held_reason=reason, **changed)
    return workflow_id, call_id


async def paused(database: Database) -> UUID:
    workflow_id, _ = await held(database, "pause", status="paused")
    said = {"by": "key:kim", "reason": "the bank is closed"}
    await rows.event(database, workflow_id, 1, "workflow.paused", data=said)
    return workflow_id


async def switched_off(database: Database) -> UUID:
    workflow_id, call_id = await held(database, "operator")
    scope = "tool:calendar.create_event"
    await rows.write(
        database, tables.switches, tenant_id=DEFAULT_TENANT, scope=scope, reason="it sends twice", by="key:kim"
    )
    await due(database, workflow_id, "switch", call_id, seconds=10, note=scope)
    return workflow_id


async def attached(database: Database) -> UUID:
    owner = await flying(database)
    async with database.reading() as connection:
        owning = (
            await connection.execute(text("SELECT id FROM calls WHERE workflow_id = :w"), {"w": owner})
        ).scalar_one()
    workflow_id, call_id = await held(database, "attached", target=owning, business_key=True)
    await due(database, workflow_id, "attached", call_id, seconds=10)
    return workflow_id


async def saga_held(database: Database) -> UUID:
    failure = {"kind": "tool_error", "message": "no", "step": "ask", "call": None, "fix": None}
    workflow_id = await rows.workflow(
        database, status="failing", open_calls=0, undos=1, effects_done=1, saga="held", failure=failure,
        attention=["failure_held"], waits=1,
    )  # fmt: skip
    await rows.step(database, workflow_id, "create", state="succeeded", ended_at=rows.BEGAN)
    await rows.call(database, workflow_id, "create", state="succeeded", ended_at=rows.BEGAN, undo="recorded")
    return workflow_id


async def undo_failed(database: Database) -> UUID:
    workflow_id = await rows.workflow(
        database, status="compensating", open_calls=0, undos=1, undos_failed=1, effects_done=1,
        attention=["compensation_failed"],
    )  # fmt: skip
    await rows.step(database, workflow_id, "create", state="succeeded", ended_at=rows.BEGAN)
    call_id = await rows.call(database, workflow_id, "create", state="succeeded", ended_at=rows.BEGAN, undo="failed")
    reason = "calendar.delete_event answered 409."
    await rows.event(database, workflow_id, 1, "compensation.failed", call_id=call_id, at=UNDO_FAILED_AT,
                     data={"effect": ids.encode("call", call_id), "reason": reason})  # fmt: skip
    return workflow_id


async def asking(database: Database) -> UUID:
    workflow_id = await rows.workflow(database, status="waiting", open_calls=0, waits=1)
    await rows.step(database, workflow_id, "ask", kind="approval", state="waiting")
    await rows.approval(database, workflow_id, "ask")
    return workflow_id


async def doubtful(database: Database) -> UUID:
    workflow_id = await rows.workflow(database, status="waiting", open_calls=0, doubts=1, attention=["outcome_unknown"])
    await rows.step(database, workflow_id, "create", calls=1)
    now = await clock(database)
    await rows.call(database, workflow_id, "create", state="in_doubt", attempts=1, doubt_since=now, not_before=now)
    return workflow_id


STORIES = {
    "queued": due_call,
    "in_flight": flying,
    "probing": probing,
    "result": awaited,
    "paused": paused,
    "held": switched_off,
    "attached": attached,
    "saga_held": saga_held,
    "compensation_failed": undo_failed,
    "approval": asking,
    "doubt": doubtful,
}
"""The kind of the first reason → the workflow."""
