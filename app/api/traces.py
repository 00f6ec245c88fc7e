"""`/v1/workflows/{id}/trace`: spans of every attempt, as a tree or as text."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from app.api import written
from app.api.authentication import Caller, needs
from app.api.context import services_of
from app.api.documents import problems_of
from app.api.query import TraceQuery
from app.api.shapes.trace import Trace
from app.api.workflow_reading import row_of, workflow_id_of
from app.domain.faults import Fault
from app.domain.partials import Partial
from app.domain.trace import build_trace
from app.domain.trace_text import render_text
from app.errors import InvalidValue, Unsupported
from app.store import trace_views
from app.store.trace_views import TraceRows

router = APIRouter(tags=["traces"])

_UNBUILT = ("flat", "otlp")


@router.get(
    "/v1/workflows/{workflow}/trace",
    operation_id="get_trace",
    summary="Read a workflow's trace",
    response_model=Trace,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "A tree of spans, or text."},
        **problems_of(401, 403, 404, 422, 503),
    },
)
async def get_trace(
    workflow: str,
    request: Request,
    caller: Annotated[Caller, Depends(needs("read"))],
    query: Annotated[TraceQuery, Query()],
) -> Response:
    """Nothing that was retried is hidden: costs are sums over attempts, recovery records stand on the call they
    caused. `format=text` is the picture the CLI draws, `width` columns wide."""
    _check_format(query.format)
    workflow_id = workflow_id_of(workflow)
    async with services_of(request).database.reading() as connection:
        rows = await trace_views.rows(connection, workflow_id=workflow_id)
        owner = await row_of(connection, tenant_id=caller.tenant_id, workflow_id=workflow_id)
        now = await trace_views.clock(connection)
    partials = await written.of_calls(services_of(request), rows.calls, rows.attempts)
    plan = await services_of(request).plans.get(caller.tenant_id, owner["plan_digest"])
    # Off the loop: a workflow of ten thousand items has tens of thousands of spans.
    body = await asyncio.to_thread(
        _render,
        owner,
        rows,
        form=query.format,
        width=query.width,
        source_name=plan.source_name,
        now=now,
        partials=partials,
    )
    media_type = "text/plain; charset=utf-8" if query.format == "text" else "application/json"
    return Response(body, media_type=media_type, headers={"Cache-Control": "private, no-cache"})


def _render(
    owner: dict[str, Any],
    rows: TraceRows,
    *,
    form: str,
    width: int,
    source_name: str | None,
    now: datetime,
    partials: Mapping[UUID, Partial],
) -> bytes:
    trace = build_trace(
        owner,
        rows.steps,
        rows.calls,
        rows.attempts,
        approvals=rows.approvals,
        findings=rows.findings,
        source_name=source_name,
        now=now,
        partials=partials,
    )
    if form == "text":
        return render_text(trace, width=width).encode("utf-8", "replace")
    return json.dumps(trace.to_json(), separators=(",", ":")).encode("ascii")


def _check_format(form: str) -> None:
    if form in ("tree", "text"):
        return
    if form in _UNBUILT:
        detail = f"The trace format {form} is not built yet."
        fault = Fault(code="unsupported", pointer="?format", detail=detail, fix="Use tree or text.")
        raise Unsupported(detail, faults=[fault])
    fault = Fault(
        code="invalid_value", pointer="?format", detail="format is tree or text.", fix="Use format=tree or format=text."
    )
    raise InvalidValue(fault.detail, faults=[fault])
