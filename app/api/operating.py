"""`/v1/workflows/{id}/{verb}`: what an operator does to a workflow: cancel, pause, resume, retry, compensate.

Each is idempotent by itself (the same again is the same answer), answers 202 with the workflow as it is now, and says
in a 409 what is possible instead. Who asked is in the events and in the audit.
"""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field, StringConstraints
from starlette.responses import Response

from app.api import answering, body, idempotency, workflow_reading
from app.api.authentication import Caller, needs
from app.api.context import services_of
from app.api.documents import accepts, problems_of
from app.api.query import NoQuery
from app.api.shapes.workflow import Workflow
from app.api.workflow_reading import workflow_id_of
from app.engine import cancel, compensate, pause, retry

router = APIRouter(tags=["workflows"])

Words = Annotated[str, StringConstraints(max_length=2000)]
Note = Annotated[str, StringConstraints(min_length=1, max_length=2000, strip_whitespace=True)]
Operator = Annotated[Caller, Depends(needs("operate"))]

_REFUSALS = problems_of(400, 401, 403, 404, 409, 413, 415, 422, 503)


class CancelBody(body.Body):
    reason: Words | None = Field(default=None)


class PauseBody(body.Body):
    reason: Words | None = Field(default=None)


class ResumeBody(body.Body):
    reason: Words | None = Field(default=None)


class RetryBody(body.Body):
    note: Words | None = Field(default=None)
    """What was mended meanwhile."""


class CompensateBody(body.Body):
    mode: Literal["undo", "keep"]
    """`undo`: run the compensations of what was done; `keep`: leave everything done, and end."""
    note: Note
    """Why."""


@router.post(
    "/v1/workflows/{workflow}/cancel",
    operation_id="cancel_workflow",
    summary="Cancel a workflow",
    status_code=202,
    response_model=Workflow,
    responses=_REFUSALS,
    openapi_extra=accepts(CancelBody, key="accepted", required=False),
)
async def cancel_workflow(
    workflow: str, request: Request, caller: Operator, query: Annotated[NoQuery, Query()]
) -> Response:
    """Nothing new is started; what is in flight is settled first, then what was done is undone as the definition says.
    Cancelling again is the same answer."""
    workflow_id = workflow_id_of(workflow)
    idempotency.read_key(request.headers)
    checked = body.check(CancelBody, await body.read_object(request, required=False))
    await cancel.cancel(services_of(request), caller.tenant_id, workflow_id, reason=checked.reason, by=caller.name)
    return await _as_it_is(request, caller, workflow)


@router.post(
    "/v1/workflows/{workflow}/pause",
    operation_id="pause_workflow",
    summary="Pause a workflow",
    status_code=202,
    response_model=Workflow,
    responses=_REFUSALS,
    openapi_extra=accepts(PauseBody, key="accepted", required=False),
)
async def pause_workflow(
    workflow: str, request: Request, caller: Operator, query: Annotated[NoQuery, Query()]
) -> Response:
    """What is in flight is settled, nothing new is sent until it is resumed. Its deadline goes on."""
    workflow_id = workflow_id_of(workflow)
    idempotency.read_key(request.headers)
    checked = body.check(PauseBody, await body.read_object(request, required=False))
    await pause.pause(services_of(request), caller.tenant_id, workflow_id, reason=checked.reason, by=caller.name)
    return await _as_it_is(request, caller, workflow)


@router.post(
    "/v1/workflows/{workflow}/resume",
    operation_id="resume_workflow",
    summary="Resume a paused workflow",
    status_code=202,
    response_model=Workflow,
    responses=_REFUSALS,
    openapi_extra=accepts(ResumeBody, key="accepted", required=False),
)
async def resume_workflow(
    workflow: str, request: Request, caller: Operator, query: Annotated[NoQuery, Query()]
) -> Response:
    """It goes on where it was; what was held by the pause is due again."""
    workflow_id = workflow_id_of(workflow)
    idempotency.read_key(request.headers)
    checked = body.check(ResumeBody, await body.read_object(request, required=False))
    await pause.resume(services_of(request), caller.tenant_id, workflow_id, reason=checked.reason, by=caller.name)
    return await _as_it_is(request, caller, workflow)


@router.post(
    "/v1/workflows/{workflow}/retry",
    operation_id="retry_workflow",
    summary="Reopen a failed or cancelled workflow",
    status_code=202,
    response_model=Workflow,
    responses=_REFUSALS,
    openapi_extra=accepts(RetryBody, key="accepted", required=False),
)
async def retry_workflow(
    workflow: str, request: Request, caller: Operator, query: Annotated[NoQuery, Query()]
) -> Response:
    """The same workflow continues what failed; what succeeded stays as it is and is not repeated. Only while nothing
    of it was undone."""
    workflow_id = workflow_id_of(workflow)
    idempotency.read_key(request.headers)
    checked = body.check(RetryBody, await body.read_object(request, required=False))
    await retry.retry(services_of(request), caller.tenant_id, workflow_id, note=checked.note, by=caller.name)
    return await _as_it_is(request, caller, workflow)


@router.post(
    "/v1/workflows/{workflow}/compensate",
    operation_id="compensate_workflow",
    summary="Decide whether a failed workflow's effects are undone",
    status_code=202,
    response_model=Workflow,
    responses=_REFUSALS,
    openapi_extra=accepts(CompensateBody, key="accepted"),
)
async def compensate_workflow(
    workflow: str, request: Request, caller: Operator, query: Annotated[NoQuery, Query()]
) -> Response:
    """For a workflow that failed and waits for an operator (`attention: failure_held`): after its pivot, or because
    its definition says `on_failure: hold`."""
    workflow_id = workflow_id_of(workflow)
    idempotency.read_key(request.headers)
    checked = body.check(CompensateBody, await body.read_object(request))
    await compensate.decide_saga(
        services_of(request), caller.tenant_id, workflow_id, mode=checked.mode, note=checked.note, by=caller.name
    )
    return await _as_it_is(request, caller, workflow)


async def _as_it_is(request: Request, caller: Caller, workflow: str) -> Response:
    """202 with the workflow now, and where to look on."""
    reading = await workflow_reading.read(request, tenant_id=caller.tenant_id, workflow_id=workflow_id_of(workflow))
    place = {"Location": reading.shape.links.self, "ETag": reading.etag}
    return answering.answer(request, reading.shape, status=202, headers=place)
