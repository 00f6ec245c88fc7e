"""`/v1/effects`: what workflows changed in the world, and the settling of doubts."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from pydantic import StringConstraints
from starlette.responses import Response

from app.api import answering, body, cursors, idempotency
from app.api.authentication import Caller, needs
from app.api.context import services_of
from app.api.documents import accepts, problems_of
from app.api.query import EffectsQuery, NoQuery
from app.api.shapes.effect import Effect, effect_shape
from app.api.shapes.listing import Page
from app.api.shapes.values import JSON
from app.api.workflow_reading import row_of, workflow_id_of
from app.domain import ids
from app.engine import resolve
from app.errors import NotFound
from app.store import effect_views
from app.store.effect_views import Row

router = APIRouter(tags=["effects"])


class ResolveBody(body.Body):
    outcome: Literal["happened", "did_not_happen", "abandon"]
    result: JSON = None
    """With `happened`: what the tool answered, if known; it becomes the call's result."""
    note: Annotated[str, StringConstraints(min_length=1, max_length=2000, strip_whitespace=True)]
    """How you know."""


@router.get(
    "/v1/effects",
    operation_id="list_effects",
    summary="List effects of all workflows, newest first",
    response_model=Page[Effect],
    responses=problems_of(401, 403, 422, 503),
)
async def list_effects(
    request: Request, caller: Annotated[Caller, Depends(needs("read"))], query: Annotated[EffectsQuery, Query()]
) -> Response:
    """`?state=in_doubt` is the list of what needs a verdict."""
    states = [state.value for state in query.state]
    of = ["effects", states]
    before = cursors.decode_id(query.cursor, of=of)
    async with services_of(request).database.reading() as connection:
        rows = await effect_views.tenant_page(
            connection, tenant_id=caller.tenant_id, states=states, before=before, limit=query.limit + 1
        )
    return _page(request, rows, limit=query.limit, of=of)


@router.get(
    "/v1/workflows/{workflow}/effects",
    operation_id="list_workflow_effects",
    summary="List what a workflow changed, in the order it asked",
    response_model=Page[Effect],
    responses=problems_of(401, 403, 404, 422, 503),
)
async def list_workflow_effects(
    workflow: str,
    request: Request,
    caller: Annotated[Caller, Depends(needs("read"))],
    query: Annotated[EffectsQuery, Query()],
) -> Response:
    workflow_id = workflow_id_of(workflow)
    states = [state.value for state in query.state]
    of = ["effects", workflow_id.hex, states]
    after = cursors.decode_id(query.cursor, of=of)
    async with services_of(request).database.reading() as connection:
        await row_of(connection, tenant_id=caller.tenant_id, workflow_id=workflow_id)
        rows = await effect_views.of_workflow(
            connection, workflow_id=workflow_id, states=states, after=after, limit=query.limit + 1
        )
    return _page(request, rows, limit=query.limit, of=of)


@router.get(
    "/v1/effects/{effect}",
    operation_id="get_effect",
    summary="Read an effect",
    response_model=Effect,
    responses=problems_of(401, 403, 404, 422, 503),
)
async def get_effect(
    effect: str,
    request: Request,
    caller: Annotated[Caller, Depends(needs("read"))],
    query: Annotated[NoQuery, Query()],
) -> Response:
    return answering.answer(request, await _read(request, caller, _call_id(effect)))


@router.post(
    "/v1/effects/{effect}/resolve",
    operation_id="resolve_effect",
    summary="Settle a doubt",
    response_model=Effect,
    responses=problems_of(400, 401, 403, 404, 409, 413, 415, 422, 503),
    openapi_extra=accepts(ResolveBody, key="accepted"),
)
async def resolve_effect(
    effect: str,
    request: Request,
    caller: Annotated[Caller, Depends(needs("operate"))],
    query: Annotated[NoQuery, Query()],
) -> Response:
    """Say what you found out at the tool. The same verdict again is the same answer; another one is 409, and
    `did_not_happen` before `not_before` is 409 `quarantine_active`."""
    idempotency.read_key(request.headers)
    call_id = _call_id(effect)
    verdict = body.check(ResolveBody, await body.read_object(request))
    await resolve.resolve(
        services_of(request),
        caller.tenant_id,
        call_id,
        outcome=verdict.outcome,
        result=verdict.result,
        note=verdict.note,
        by=caller.name,
    )
    return answering.answer(request, await _read(request, caller, call_id))


async def _read(request: Request, caller: Caller, call_id: UUID) -> Effect:
    async with services_of(request).database.reading() as connection:
        row = await effect_views.one(connection, tenant_id=caller.tenant_id, call_id=call_id)
    if row is None:
        raise NotFound(f"There is no effect {ids.encode('call', call_id)}.")
    return effect_shape(row)


def _call_id(text: str) -> UUID:
    try:
        return ids.decode("call", text)
    except ids.MalformedId as malformed:
        raise NotFound(f"There is no effect {text[:64]}.") from malformed


def _page(request: Request, rows: list[Row], *, limit: int, of: JSON) -> Response:
    has_more = len(rows) > limit
    rows = rows[:limit]
    next_cursor = cursors.encode(rows[-1]["id"].hex, of=of) if has_more else None
    page = Page[Effect](data=[effect_shape(row) for row in rows], next_cursor=next_cursor, has_more=has_more)
    links = answering.next_link(request, cursor=next_cursor) if next_cursor else {}
    return answering.answer(request, page, headers=links)
