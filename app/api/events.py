"""`/v1/workflows/{id}/events`: the numbered facts out of a workflow, as JSON pages."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from app.api import answering
from app.api.authentication import Caller, needs
from app.api.context import services_of
from app.api.documents import problems_of
from app.api.query import EventsQuery
from app.api.shapes.event import EventPage, event_shape
from app.api.workflow_reading import row_of, workflow_id_of
from app.domain import traceparent
from app.store import event_views

router = APIRouter(tags=["events"])


@router.get(
    "/v1/workflows/{workflow}/events",
    operation_id="list_events",
    summary="Read a workflow's events",
    response_model=EventPage,
    responses=problems_of(401, 403, 404, 422, 503),
)
async def list_events(
    workflow: str,
    request: Request,
    caller: Annotated[Caller, Depends(needs("read"))],
    query: Annotated[EventsQuery, Query()],
) -> Response:
    """Numbered without gaps from 1: ask with `after` = the last `seq` you have, as often as you like."""
    workflow_id = workflow_id_of(workflow)
    async with services_of(request).database.reading() as connection:
        owner = await row_of(connection, tenant_id=caller.tenant_id, workflow_id=workflow_id)
        rows = await event_views.page(connection, workflow_id=workflow_id, after=query.after, limit=query.limit + 1)
    has_more = len(rows) > query.limit
    rows = rows[: query.limit]
    trace = None if owner["traceparent"] is None else traceparent.parse(owner["traceparent"])
    last = rows[-1]["seq"] if rows else query.after
    page = EventPage(
        data=[event_shape(row, trace_id=None if trace is None else trace.trace_id) for row in rows],
        next_cursor=str(last) if has_more else None,
        has_more=has_more,
    )
    links = answering.next_link(request, after=str(last)) if has_more else {}
    return answering.answer(request, page, headers=links)
