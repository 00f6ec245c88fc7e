"""A workflow as it is now: rows read, headline told, entity tag made. Who waits for another one: `holding.py`.

The entity tag is the row's revision, with what depends on time beside it (`"12"`, `"12-no_worker"`), so that it
changes exactly when the object does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from fastapi import Request
from sqlalchemy.ext.asyncio import AsyncConnection

from app.api.context import services_of
from app.api.shapes.workflow import Workflow, workflow_shape
from app.domain import headlines, ids
from app.domain.states import StepState, WorkflowStatus, settled
from app.engine.submission import Seen
from app.errors import NotFound
from app.store import accounts, why_views, workflow_glance, workflow_views
from app.store.workflow_views import Row, Waits

POLLS: Final = "poll"
POLLING: Final = 4
"""Connections for polls: each answers thousands a second, far more than one process asks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    id: UUID
    shape: Workflow
    revision: int
    etag: str
    settled: bool
    """It ended, or goes on only after a person did something."""


def workflow_id_of(text: str) -> UUID:
    """The id in a path. What is no id is not found, like an id of somebody else."""
    try:
        return ids.decode("wf", text)
    except ids.MalformedId as malformed:
        raise NotFound(f"There is no workflow {text[:64]}.") from malformed


async def row_of(connection: AsyncConnection, *, tenant_id: UUID, workflow_id: UUID) -> Row:
    row = await workflow_views.one(connection, tenant_id=tenant_id, workflow_id=workflow_id)
    if row is None:
        raise NotFound(f"There is no workflow {ids.encode('wf', workflow_id)}.")
    return row


async def read(request: Request, *, tenant_id: UUID, workflow_id: UUID) -> Reading:
    """Raises NotFound, also for another tenant's workflow."""
    async with services_of(request).database.hot(POLLS, size=POLLING) as polling:
        seen = await workflow_glance.glance(polling, tenant_id=tenant_id, workflow_id=workflow_id)
    if seen is not None and workflow_views.RETRYING not in seen.symptoms:  # why it is tried again is worth a look
        headline = headlines.workflow_headline(seen.row, steps=seen.busy, calls=[])
        return _reading(seen.row, headline=headline, waits=Waits(), symptoms=seen.symptoms)
    async with services_of(request).database.reading() as connection:
        row = await row_of(connection, tenant_id=tenant_id, workflow_id=workflow_id)
        waits = (await workflow_views.waits(connection, [row]))[workflow_id]
        symptoms = (await workflow_views.symptoms(connection, [row])).get(workflow_id, [])
        headline = await headline_of(connection, row, waits=waits)
        budgets = await accounts.of(connection, [workflow_id]) if row["budgeted"] else {}
    return _reading(row, headline=headline, waits=waits, symptoms=symptoms, budgets=budgets.get(workflow_id, ()))


def of_acceptance(seen: Seen) -> Reading:
    """What `read` would have said at the commit that accepted it, without reading."""
    row = workflow_views.row_of_aggregate(seen.workflow)
    busy = [{"path": path, "parent": None, "state": StepState.RUNNING} for path in seen.busy]
    headline = headlines.workflow_headline(row, steps=busy, calls=[])
    symptoms = workflow_views.words(due=seen.due, late=False, again=False, worker=seen.worker)
    return _reading(row, headline=headline, waits=Waits(), symptoms=symptoms)


def _reading(row: Row, *, headline: str, waits: Waits, symptoms: Sequence[str], budgets: Sequence[Row] = ()) -> Reading:
    shape = workflow_shape(row, headline=headline, waits=waits, symptoms=symptoms, budgets=budgets)
    asked_now = ["asking"] if any(call["asking"] and call["next_at"] is None for call in waits.pending) else []
    etag = "-".join([str(row["revision"]), *symptoms, *asked_now])
    ended = settled(**{name: row[name] for name in ("status", "saga", "undos_failed", "open_calls")})
    return Reading(id=row["id"], shape=shape, revision=row["revision"], etag=f'"{etag}"', settled=ended)


async def headline_of(connection: AsyncConnection, row: Row, *, waits: Waits | None = None) -> str:
    """The sentences about a workflow that everybody shows. `waits` if they were read already."""
    if waits is None:
        waits = (await workflow_views.waits(connection, [row]))[row["id"]]
    steps, calls = await workflow_views.story(connection, row)
    pause = None
    if row["status"] == WorkflowStatus.PAUSED:
        pause = await why_views.pause_of(connection, workflow_id=row["id"])
    probed = [call["id"] for call in waits.pending if call["asking"] is not None]
    said = await why_views.verdicts_of(connection, workflow_id=row["id"], call_ids=probed) if probed else {}
    pending = [{**call, "said": said.get(call["id"])} for call in waits.pending]
    missing = (await workflow_views.missing(connection, [row])).get(row["id"])
    return headlines.workflow_headline(row, steps=steps, calls=calls, pending=pending, pause=pause, missing=missing)
