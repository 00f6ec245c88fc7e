"""`/v1/effects`: what workflows changed in the world. Settling a doubt or an undo is in `app/api/resolving.py`."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from app.api import answering, cursors
from app.api.authentication import Caller, needs
from app.api.context import services_of
from app.api.documents import problems_of
from app.api.query import EffectsQuery, NoQuery, TenantEffectsQuery
from app.api.shapes.effect import Effect, WorkflowEffects, effect_shape, totals_shape
from app.api.shapes.listing import Page
from app.api.shapes.values import JSON
from app.api.workflow_reading import row_of, workflow_id_of
from app.domain import ids
from app.errors import NotFound
from app.store import effect_ledger
from app.store.effect_ledger import EffectFilters

router = APIRouter(tags=["effects"])


@router.get(
    "/v1/effects",
    operation_id="list_effects",
    summary="List effects of all workflows, newest first",
    response_model=Page[Effect],
    responses=problems_of(401, 403, 404, 422, 503),
)
async def list_effects(
    request: Request, caller: Annotated[Caller, Depends(needs("read"))], query: Annotated[TenantEffectsQuery, Query()]
) -> Response:
    """`?state=in_doubt` is the list of what needs a verdict, `?undo=failed` of what could not be undone."""
    filters = _filters(query)
    workflow_id = None if query.workflow is None else workflow_id_of(query.workflow)
    of = ["effects", _named(query), query.workflow]
    before = cursors.decode_id(query.cursor, of=of)
    async with services_of(request).database.reading() as connection:
        rows = await effect_ledger.tenant_page(
            connection,
            tenant_id=caller.tenant_id,
            filters=filters,
            workflow_id=workflow_id,
            before=before,
            limit=query.limit + 1,
        )
    has_more = len(rows) > query.limit
    rows = rows[: query.limit]
    next_cursor = cursors.encode(rows[-1]["id"].hex, of=of) if has_more else None
    page = Page[Effect](data=[effect_shape(row) for row in rows], next_cursor=next_cursor, has_more=has_more)
    links = answering.next_link(request, cursor=next_cursor) if next_cursor else {}
    return answering.answer(request, page, headers=links)


@router.get(
    "/v1/workflows/{workflow}/effects",
    operation_id="list_workflow_effects",
    summary="List what a workflow changed, in the order it asked",
    response_model=WorkflowEffects,
    responses=problems_of(401, 403, 404, 422, 503),
)
async def list_workflow_effects(
    workflow: str,
    request: Request,
    caller: Annotated[Caller, Depends(needs("read"))],
    query: Annotated[EffectsQuery, Query()],
) -> Response:
    """The compensations are in it, too, as effects of their own. `totals` are the whole workflow's."""
    workflow_id = workflow_id_of(workflow)
    of = ["effects", workflow_id.hex, _named(query)]
    after = cursors.decode_id(query.cursor, of=of)
    async with services_of(request).database.reading() as connection:
        owner = await row_of(connection, tenant_id=caller.tenant_id, workflow_id=workflow_id)
        rows = await effect_ledger.of_workflow(
            connection, workflow_id=workflow_id, filters=_filters(query), after=after, limit=query.limit + 1
        )
    has_more = len(rows) > query.limit
    rows = rows[: query.limit]
    next_cursor = cursors.encode(rows[-1]["id"].hex, of=of) if has_more else None
    page = WorkflowEffects(
        data=[effect_shape(row) for row in rows],
        next_cursor=next_cursor,
        has_more=has_more,
        totals=totals_shape(owner),
    )
    links = answering.next_link(request, cursor=next_cursor) if next_cursor else {}
    return answering.answer(request, page, headers=links)


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
    return answering.answer(request, await read(request, caller, effect_id_of(effect)))


async def read(request: Request, caller: Caller, call_id: UUID) -> Effect:
    """The effect as it is now. Raises NotFound."""
    async with services_of(request).database.reading() as connection:
        row = await effect_ledger.one(connection, tenant_id=caller.tenant_id, call_id=call_id)
    if row is None:
        raise NotFound(f"There is no effect {ids.encode('call', call_id)}.")
    return effect_shape(row)


def effect_id_of(text: str) -> UUID:
    """The id in a path. What is no id is not found, like an id of somebody else."""
    try:
        return ids.decode("call", text)
    except ids.MalformedId as malformed:
        raise NotFound(f"There is no effect {text[:64]}.") from malformed


def _filters(query: EffectsQuery) -> EffectFilters:
    return EffectFilters(
        states=[state.value for state in query.state], undos=[undo.value for undo in query.undo], tool=query.tool
    )


def _named(query: EffectsQuery) -> JSON:
    """What a cursor is bound to."""
    return query.model_dump(mode="json", exclude={"cursor", "limit", "workflow"})
