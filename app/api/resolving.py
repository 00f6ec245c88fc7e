"""What an operator says about effects: a verdict on a doubt, on many doubts at once, on an undo that failed.

A verdict is idempotent: the same again is the same answer, another one is 409. In bulk every effect is its own
transaction: some may be refused while others are settled, and the answer lists which.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator
from starlette.responses import Response

from app.api import answering, body, effects, idempotency
from app.api.authentication import Caller, needs
from app.api.context import services_of
from app.api.documents import accepts, problems_of
from app.api.operating import Note
from app.api.query import Instant, NoQuery, Text
from app.api.shapes.effect import BulkResolution, Effect, Refusal
from app.api.shapes.values import JSON
from app.domain import ids
from app.engine import compensate, resolve
from app.store import effect_ledger

router = APIRouter(tags=["effects"])

Operator = Annotated[Caller, Depends(needs("operate"))]
Verdict = Literal["happened", "did_not_happen", "abandon", "probe"]

MOST_AT_ONCE: Final = 5_000
"""Doubts of one request: a long outage's worth."""
USUAL_AT_ONCE: Final = 500
"""A few seconds' work, so that a client's timeout is not met in the middle."""

_REFUSALS: Final = problems_of(400, 401, 403, 404, 409, 413, 415, 422, 503)


def _text(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("an instant is text, RFC 3339")
    return value


def _workflow_id(text: str) -> str:
    try:
        ids.decode("wf", text)
    except ids.MalformedId as malformed:
        raise ValueError("an id as wf_…") from malformed
    return text


Moment = Annotated[Instant, BeforeValidator(_text), Field(strict=False)]


class ResolveBody(body.Body):
    outcome: Verdict
    """`probe`: ask the tool's probe again instead of deciding."""
    result: JSON = None
    """With `happened`: what the tool answered, if known; it becomes the call's result."""
    note: Note
    """How you know."""


class DoubtFilter(body.Body):
    tool: Text | None = None
    workflow: Annotated[str, AfterValidator(_workflow_id)] | None = None
    step: Annotated[str, StringConstraints(max_length=512)] | None = None
    since: Moment | None = None
    """In doubt since this instant or later."""
    until: Moment | None = None
    """In doubt since before this instant."""

    @model_validator(mode="after")
    def _says_something(self) -> DoubtFilter:
        if not self.model_fields_set:
            raise ValueError("a filter names at least one of tool, workflow, step, since, until")
        return self


class ResolveManyBody(body.Body):
    filter: DoubtFilter
    outcome: Verdict
    note: Note
    limit: int = Field(default=USUAL_AT_ONCE, ge=1, le=MOST_AT_ONCE)
    dry_run: bool = False
    """Only say what would be settled and what refused."""


class SettleUndoBody(body.Body):
    action: Literal["retry", "done", "skip"]
    """`retry`: try to undo it again; `done`: it was undone by hand; `skip`: it stays done."""
    note: Note


@router.post(
    "/v1/effects/{effect}/resolve",
    operation_id="resolve_effect",
    summary="Settle a doubt",
    response_model=Effect,
    responses=_REFUSALS,
    openapi_extra=accepts(ResolveBody, key="accepted"),
)
async def resolve_effect(
    effect: str, request: Request, caller: Operator, query: Annotated[NoQuery, Query()]
) -> Response:
    """Say what you found out at the tool. The same verdict again is the same answer; another one is 409, and
    `did_not_happen` before `not_before` is 409 `quarantine_active`."""
    idempotency.read_key(request.headers)
    call_id = effects.effect_id_of(effect)
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
    return answering.answer(request, await effects.read(request, caller, call_id))


@router.post(
    "/v1/effects/resolve",
    operation_id="resolve_effects",
    summary="Settle many doubts with one verdict",
    response_model=BulkResolution,
    responses=_REFUSALS,
    openapi_extra=accepts(ResolveManyBody, key="accepted"),
)
async def resolve_effects(request: Request, caller: Operator, query: Annotated[NoQuery, Query()]) -> Response:
    """After an outage: everything in doubt that fits the filter, at most `limit` of it. What cannot be settled (a
    quarantine that is not over) is listed and stays in doubt; sending the request again goes on."""
    idempotency.read_key(request.headers)
    wanted = body.check(ResolveManyBody, await body.read_object(request))
    bulk = await resolve.resolve_many(
        services_of(request),
        caller.tenant_id,
        filter=_filter(wanted.filter),
        outcome=wanted.outcome,
        note=wanted.note,
        by=caller.name,
        limit=wanted.limit,
        dry_run=wanted.dry_run,
    )
    refused = [
        Refusal(effect=ids.encode("call", one.call_id), code=one.code, detail=one.detail) for one in bulk.refused
    ]
    shape = BulkResolution(
        matched=bulk.matched,
        resolved=bulk.resolved,
        refused=refused,
        remaining=await _remaining(request, caller, wanted, looked_at=bulk.matched, refused=len(refused)),
    )
    return answering.answer(request, shape)


@router.post(
    "/v1/effects/{effect}/compensation",
    operation_id="settle_compensation",
    summary="Settle an undo that failed",
    response_model=Effect,
    responses=_REFUSALS,
    openapi_extra=accepts(SettleUndoBody, key="accepted"),
)
async def settle_compensation(
    effect: str, request: Request, caller: Operator, query: Annotated[NoQuery, Query()]
) -> Response:
    """`effect` is the effect that was to be undone; `GET /v1/effects?undo=failed` lists them."""
    idempotency.read_key(request.headers)
    call_id = effects.effect_id_of(effect)
    said = body.check(SettleUndoBody, await body.read_object(request))
    await compensate.settle_undo(
        services_of(request), caller.tenant_id, call_id, action=said.action, note=said.note, by=caller.name
    )
    return answering.answer(request, await effects.read(request, caller, call_id))


async def _remaining(request: Request, caller: Caller, wanted: ResolveManyBody, *, looked_at: int, refused: int) -> int:
    """What fits the filter and was beyond the limit: still in doubt, and neither refused nor only looked at."""
    if looked_at < wanted.limit:
        return 0
    async with services_of(request).database.reading() as connection:
        left = await effect_ledger.doubts(connection, tenant_id=caller.tenant_id, filter=_filter(wanted.filter))
    return max(0, left - (looked_at if wanted.dry_run else refused))


def _filter(wanted: DoubtFilter) -> resolve.Filter:
    workflow_id: UUID | None = None if wanted.workflow is None else ids.decode("wf", wanted.workflow)
    since: datetime | None = wanted.since
    until: datetime | None = wanted.until
    return resolve.Filter(tool=wanted.tool, workflow_id=workflow_id, step=wanted.step, since=since, until=until)
