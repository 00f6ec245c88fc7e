"""`/v1/workflows/{id}/steps`: what the workflow did, down to the call and the bytes."""

from __future__ import annotations

import re
from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Request
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from app.api import answering, cursors, exchanges, written
from app.api.authentication import Caller, needs
from app.api.context import services_of
from app.api.documents import problems_of
from app.api.query import NoQuery, StepsQuery
from app.api.shapes.listing import Page
from app.api.shapes.step import CallDetail, Step, StepDetail, call_detail, step_detail, step_shape
from app.api.shapes.values import JSON
from app.api.workflow_reading import row_of, workflow_id_of
from app.domain import headlines, uninstalled
from app.errors import InvalidValue, NotFound
from app.store import step_views
from app.store.step_views import Row, StepPlace

router = APIRouter(tags=["steps"])

_PATH: Final = re.compile(r"[a-z0-9_]{1,128}(\.[a-z0-9_]{1,128}){0,16}", re.ASCII)
"""What a step's path looks like."""

CallNumber = Annotated[int, Path(ge=1, le=2**31 - 1, description="Number of the call in its step, from 1.")]


@router.get(
    "/v1/workflows/{workflow}/steps",
    operation_id="list_steps",
    summary="List a workflow's steps in document order, items after their parent",
    response_model=Page[Step],
    responses=problems_of(401, 403, 404, 422, 503),
)
async def list_steps(
    workflow: str,
    request: Request,
    caller: Annotated[Caller, Depends(needs("read"))],
    query: Annotated[StepsQuery, Query()],
) -> Response:
    workflow_id = workflow_id_of(workflow)
    states = [state.value for state in query.state]
    of = ["steps", workflow_id.hex, states]
    after = None if query.cursor is None else _place(cursors.decode(query.cursor, of=of))
    async with services_of(request).database.reading() as connection:
        owner = await row_of(connection, tenant_id=caller.tenant_id, workflow_id=workflow_id)
        rows = await step_views.page(
            connection, workflow_id=workflow_id, states=states, after=after, limit=query.limit + 1
        )
        has_more = len(rows) > query.limit
        rows = rows[: query.limit]
        attempts = await step_views.attempt_counts(
            connection, workflow_id=workflow_id, paths=[row["path"] for row in rows]
        )
        operated = await step_views.operated(connection, workflow_id=workflow_id, rows=rows)
    plan = await services_of(request).plans.get(caller.tenant_id, owner["plan_digest"])
    next_cursor = cursors.encode(_parts(step_views.place(rows[-1])), of=of) if has_more else None
    page = Page[Step](
        data=[
            step_shape(
                row,
                owner=owner,
                plan=plan,
                headline=headlines.step_headline(row, operated=operated.get(row["path"])),
                attempts=attempts.get(row["path"], 0),
            )
            for row in rows
        ],
        next_cursor=next_cursor,
        has_more=has_more,
    )
    links = answering.next_link(request, cursor=next_cursor) if next_cursor else {}
    return answering.answer(request, page, headers=links)


@router.get(
    "/v1/workflows/{workflow}/steps/{path}",
    operation_id="get_step",
    summary="Read a step with its calls and attempts",
    response_model=StepDetail,
    responses=problems_of(401, 403, 404, 422, 503),
)
async def get_step(
    workflow: str,
    path: str,
    request: Request,
    caller: Annotated[Caller, Depends(needs("read"))],
    query: Annotated[NoQuery, Query()],
) -> Response:
    """`path` is `understand`, for an item `availability.3`."""
    return answering.answer(request, await read(request, caller, workflow_id_of(workflow), path))


async def read(request: Request, caller: Caller, workflow_id: UUID, path: str) -> StepDetail:
    """The step as it is now. Raises NotFound."""
    async with services_of(request).database.reading() as connection:
        owner = await row_of(connection, tenant_id=caller.tenant_id, workflow_id=workflow_id)
        row = await _step(connection, owner, path)
        calls = await step_views.calls_of(connection, workflow_id=workflow_id, path=path)
        attempts = await step_views.attempts_of(
            connection, workflow_id=workflow_id, call_ids=[call["id"] for call in calls]
        )
        operated = await step_views.operated(connection, workflow_id=workflow_id, rows=[row])
    plan = await services_of(request).plans.get(caller.tenant_id, owner["plan_digest"])
    headline = headlines.step_headline(
        row, calls=calls, operated=operated.get(path), missing=uninstalled.among(calls, attempts)
    )
    return step_detail(
        row,
        owner=owner,
        plan=plan,
        headline=headline,
        calls=calls,
        attempts=attempts,
        partial=await written.of_step(services_of(request), calls, attempts),
    )


@router.get(
    "/v1/workflows/{workflow}/steps/{path}/calls/{n}",
    operation_id="get_call",
    summary="Read a call: the exact request, and every answer as it arrived",
    response_model=CallDetail,
    responses=problems_of(401, 403, 404, 422, 503),
)
async def get_call(
    workflow: str,
    path: str,
    n: CallNumber,
    request: Request,
    caller: Annotated[Caller, Depends(needs("read"))],
    query: Annotated[NoQuery, Query()],
) -> Response:
    """Secrets are placeholders: they are resolved in the worker at send and masked in what came back."""
    workflow_id = workflow_id_of(workflow)
    async with services_of(request).database.reading() as connection:
        owner = await row_of(connection, tenant_id=caller.tenant_id, workflow_id=workflow_id)
        step = await _step(connection, owner, path)
        call = await step_views.call(connection, workflow_id=workflow_id, path=path, n=n)
        if call is None:
            raise NotFound(f"The step {path} has no call {n}; it has {step['calls']}.")
        attempts = (await step_views.attempts_of(connection, workflow_id=workflow_id, call_ids=[call["id"]]))[
            call["id"]
        ]
        plan = await services_of(request).plans.get(caller.tenant_id, owner["plan_digest"])
        sent = await exchanges.request_of(connection, call, plan=plan, step=step)
        answers = await exchanges.answers_of(connection, attempts, workflow_id=workflow_id)
    return answering.answer(request, call_detail(call, attempts=attempts, request=sent, answers=answers))


async def _step(connection: AsyncConnection, owner: Row, path: str) -> Row:
    known = known_path(path)
    row = await step_views.one(connection, workflow_id=owner["id"], path=path) if known else None
    if row is None:
        raise no_step(path)
    return row


def known_path(path: str) -> bool:
    """Whether a step may be called so; anything else need not be looked for."""
    return _PATH.fullmatch(path) is not None


def no_step(path: str) -> NotFound:
    return NotFound(f"The workflow has no step {path[:128]}.", fix="See its steps for the paths it has.")


def _parts(place: StepPlace) -> list[JSON]:
    return [place.position, place.item, place.path]


def _place(parts: JSON) -> StepPlace:
    match parts:
        case [int(position), int(item), str(path)]:
            return StepPlace(position=position, item=item, path=path)
    raise InvalidValue("The cursor is not one that this list gave out.")
