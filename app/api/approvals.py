"""`/v1/approvals`: questions to people, and their answers."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field, StringConstraints
from starlette.responses import Response

from app.api import answering, body, cursors, idempotency
from app.api.authentication import Caller, needs
from app.api.context import services_of
from app.api.documents import accepts, problems_of
from app.api.query import ApprovalsQuery, NoQuery
from app.api.shapes.approval import Approval, approval_shape
from app.api.shapes.listing import Page
from app.api.shapes.values import JSON
from app.api.workflow_reading import workflow_id_of
from app.domain import headlines, ids
from app.domain.faults import Fault
from app.engine import decide_approval as deciding
from app.errors import InvalidValue, NotFound
from app.store import approval_views
from app.store.approval_views import Row

router = APIRouter(tags=["approvals"])


class DecisionBody(body.Body):
    decision: Literal["approve", "edit", "reject", "respond"]
    """One of the approval's `allow`."""
    values: JSON = None
    """With `edit`: what takes the place of what was shown; of a held call, its whole new arguments."""
    comment: Annotated[str, StringConstraints(max_length=4000)] | None = None
    revision: int = Field(ge=1, le=2**31 - 1)
    """The approval's `revision` as you saw it."""


@router.get(
    "/v1/approvals",
    operation_id="list_approvals",
    summary="List approvals, newest first",
    response_model=Page[Approval],
    responses=problems_of(401, 403, 404, 422, 503),
)
async def list_approvals(
    request: Request, caller: Annotated[Caller, Depends(needs("read"))], query: Annotated[ApprovalsQuery, Query()]
) -> Response:
    """`?status=open` is what waits for people."""
    statuses = [status.value for status in query.status]
    of = ["approvals", statuses, query.workflow]
    before = cursors.decode_id(query.cursor, of=of)
    workflow_id = None if query.workflow is None else workflow_id_of(query.workflow)
    async with services_of(request).database.reading() as connection:
        rows = await approval_views.page(
            connection,
            tenant_id=caller.tenant_id,
            statuses=statuses,
            workflow_id=workflow_id,
            before=before,
            limit=query.limit + 1,
        )
    has_more = len(rows) > query.limit
    rows = rows[: query.limit]
    next_cursor = cursors.encode(rows[-1]["id"].hex, of=of) if has_more else None
    page = Page[Approval](data=[_shape(row) for row in rows], next_cursor=next_cursor, has_more=has_more)
    links = answering.next_link(request, cursor=next_cursor) if next_cursor else {}
    return answering.answer(request, page, headers=links)


@router.get(
    "/v1/approvals/{approval}",
    operation_id="get_approval",
    summary="Read an approval",
    response_model=Approval,
    responses=problems_of(401, 403, 404, 422, 503),
)
async def get_approval(
    approval: str,
    request: Request,
    caller: Annotated[Caller, Depends(needs("read"))],
    query: Annotated[NoQuery, Query()],
) -> Response:
    return answering.answer(request, await _read(request, caller, _approval_id(approval)))


@router.post(
    "/v1/approvals/{approval}/decision",
    operation_id="decide_approval",
    summary="Decide",
    response_model=Approval,
    responses=problems_of(400, 401, 403, 404, 409, 410, 413, 415, 422, 503),
    openapi_extra=accepts(DecisionBody, key="accepted"),
)
async def decide_approval(
    approval: str,
    request: Request,
    caller: Annotated[Caller, Depends(needs("approve"))],
    query: Annotated[NoQuery, Query()],
) -> Response:
    """Bound to what was shown: another `revision` is 409. The same decision again is the same answer, another one is
    409, and a decision after the end is 410. `edit` approves other arguments; they are kept beside the original ones.
    With `approver: other_than_submitter` the key that submitted the workflow is refused (403)."""
    idempotency.read_key(request.headers)
    approval_id = _approval_id(approval)
    decided = body.check(DecisionBody, await body.read_object(request))
    if decided.decision == "edit" and "values" not in decided.model_fields_set:
        detail = "An edit needs the values that are approved instead."
        fault = Fault(code="missing_field", pointer="/values", detail=detail, fix="Send them as `values`.")
        raise InvalidValue(detail, faults=[fault])
    await deciding.decide(
        services_of(request),
        caller.tenant_id,
        approval_id,
        decision=decided.decision,
        values=decided.values,
        comment=decided.comment,
        revision=decided.revision,
        by=caller.name,
    )
    return answering.answer(request, await _read(request, caller, approval_id))


async def _read(request: Request, caller: Caller, approval_id: UUID) -> Approval:
    async with services_of(request).database.reading() as connection:
        row = await approval_views.one(connection, tenant_id=caller.tenant_id, approval_id=approval_id)
    if row is None:
        raise NotFound(f"There is no approval {ids.encode('apr', approval_id)}.")
    return _shape(row)


def _shape(row: Row) -> Approval:
    return approval_shape(row, headline=headlines.approval_headline(row))


def _approval_id(text: str) -> UUID:
    try:
        return ids.decode("apr", text)
    except ids.MalformedId as malformed:
        raise NotFound(f"There is no approval {text[:64]}.") from malformed
