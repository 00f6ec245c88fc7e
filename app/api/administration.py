"""`/v1/signing-secret`, `/v1/workers`: what an operator or a webhook receiver asks for."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from app.api import answering, cursors
from app.api.authentication import Caller, needs
from app.api.context import services_of
from app.api.documents import problems_of
from app.api.query import NoQuery, PageQuery
from app.api.shapes.administration import SigningSecret, Worker, worker_shape
from app.api.shapes.listing import Page
from app.store import tenant_views

router = APIRouter(tags=["administration"])


@router.get(
    "/v1/signing-secret",
    operation_id="get_signing_secret",
    summary="Read the secret that signs the webhooks of workflows",
    response_model=SigningSecret,
    responses=problems_of(401, 403, 422, 503),
)
async def get_signing_secret(
    request: Request, caller: Annotated[Caller, Depends(needs("admin"))], query: Annotated[NoQuery, Query()]
) -> Response:
    """Standard Webhooks form. Verify a delivery with any of `secrets`: while rotating it carries a signature each."""
    async with services_of(request).database.reading() as connection:
        secrets = await tenant_views.signing_secrets(connection, tenant_id=caller.tenant_id)
    response = answering.answer(request, SigningSecret(secret=secrets[0], secrets=secrets))
    response.headers["Cache-Control"] = "no-store"
    return response


@router.get(
    "/v1/workers",
    operation_id="list_workers",
    summary="List worker processes, newest first",
    response_model=Page[Worker],
    responses=problems_of(401, 403, 422, 503),
)
async def list_workers(
    request: Request, caller: Annotated[Caller, Depends(needs("read"))], query: Annotated[PageQuery, Query()]
) -> Response:
    """Every incarnation is a worker of its own; lost and stopped ones stay listed."""
    of = ["workers"]
    before = cursors.decode_id(query.cursor, of=of)
    async with services_of(request).database.reading() as connection:
        rows = await tenant_views.worker_page(connection, before=before, limit=query.limit + 1)
    has_more = len(rows) > query.limit
    rows = rows[: query.limit]
    next_cursor = cursors.encode(rows[-1]["id"].hex, of=of) if has_more else None
    page = Page[Worker](data=[worker_shape(row) for row in rows], next_cursor=next_cursor, has_more=has_more)
    links = answering.next_link(request, cursor=next_cursor) if next_cursor else {}
    return answering.answer(request, page, headers=links)
