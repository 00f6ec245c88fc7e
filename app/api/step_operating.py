"""`/v1/workflows/{id}/steps/{path}/{verb}`: an operator takes a step into their own hands: skip, complete, fail, retry.

A step with an effect whose outcome nobody knows cannot be waved through: its doubt is resolved first (409 says so).
Answers 200 with the step as it is now.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field
from starlette.responses import Response

from app.api import answering, body, idempotency, steps
from app.api.authentication import Caller, needs
from app.api.context import services_of
from app.api.documents import accepts, problems_of
from app.api.operating import Words
from app.api.query import NoQuery
from app.api.shapes.step import StepDetail
from app.api.shapes.values import JSON
from app.api.workflow_reading import workflow_id_of
from app.engine import operate_step

router = APIRouter(tags=["steps"])

Operator = Annotated[Caller, Depends(needs("operate"))]
Action = Literal["skip", "complete", "fail", "retry-now"]

_REFUSALS: Final = problems_of(400, 401, 403, 404, 409, 413, 415, 422, 503)


class OperateStepBody(body.Body):
    note: Words | None = Field(default=None)
    """Why; kept with the step's event."""


class CompleteStepBody(body.Body):
    output: JSON = None
    """What its dependents read as its output."""
    note: Words | None = Field(default=None)


@router.post(
    "/v1/workflows/{workflow}/steps/{path}/skip",
    operation_id="skip_step",
    summary="Skip a step",
    response_model=StepDetail,
    responses=_REFUSALS,
    openapi_extra=accepts(OperateStepBody, key="accepted", required=False),
)
async def skip_step(
    workflow: str, path: str, request: Request, caller: Operator, query: Annotated[NoQuery, Query()]
) -> Response:
    """As if its `if` had been false: its dependents are skipped, too, unless their `if` asks about it."""
    return await _operate_plainly(request, caller, workflow, path, action="skip")


@router.post(
    "/v1/workflows/{workflow}/steps/{path}/complete",
    operation_id="complete_step",
    summary="Complete a step with an output of yours",
    response_model=StepDetail,
    responses=_REFUSALS,
    openapi_extra=accepts(CompleteStepBody, key="accepted", required=False),
)
async def complete_step(
    workflow: str, path: str, request: Request, caller: Operator, query: Annotated[NoQuery, Query()]
) -> Response:
    """What the step should have come to was done by hand: it has succeeded, with `output`."""
    idempotency.read_key(request.headers)
    checked = body.check(CompleteStepBody, await body.read_object(request, required=False))
    return await _operate(request, caller, workflow, path, action="complete", output=checked.output, note=checked.note)


@router.post(
    "/v1/workflows/{workflow}/steps/{path}/fail",
    operation_id="fail_step",
    summary="Fail a step",
    response_model=StepDetail,
    responses=_REFUSALS,
    openapi_extra=accepts(OperateStepBody, key="accepted", required=False),
)
async def fail_step(
    workflow: str, path: str, request: Request, caller: Operator, query: Annotated[NoQuery, Query()]
) -> Response:
    """It has failed for good; what follows is what the definition says (`on_error`, or the workflow fails)."""
    return await _operate_plainly(request, caller, workflow, path, action="fail")


@router.post(
    "/v1/workflows/{workflow}/steps/{path}/retry-now",
    operation_id="retry_step_now",
    summary="Do not wait for the next try",
    response_model=StepDetail,
    responses=_REFUSALS,
    openapi_extra=accepts(OperateStepBody, key="accepted", required=False),
)
async def retry_step_now(
    workflow: str, path: str, request: Request, caller: Operator, query: Annotated[NoQuery, Query()]
) -> Response:
    """A call of it that backs off becomes due now. No try is added, no quarantine shortened."""
    return await _operate_plainly(request, caller, workflow, path, action="retry-now")


async def _operate_plainly(request: Request, caller: Caller, workflow: str, path: str, *, action: Action) -> Response:
    idempotency.read_key(request.headers)
    checked = body.check(OperateStepBody, await body.read_object(request, required=False))
    return await _operate(request, caller, workflow, path, action=action, output=None, note=checked.note)


async def _operate(
    request: Request, caller: Caller, workflow: str, path: str, *, action: Action, output: JSON, note: str | None
) -> Response:
    workflow_id = workflow_id_of(workflow)
    if not steps.known_path(path):
        raise steps.no_step(path)
    await operate_step.operate(
        services_of(request),
        caller.tenant_id,
        workflow_id,
        path,
        action=action,
        output=output,
        note=note,
        by=caller.name,
    )
    return answering.answer(request, await steps.read(request, caller, workflow_id, path))
