"""`POST /v1/workflows/{id}/budget`: top a budget up. Unlike the other verbs not harmless twice, so its key is kept."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Request
from pydantic import ConfigDict, Field, StringConstraints
from starlette.responses import Response
from uuid_utils.compat import uuid7

from app.api import answering, body, idempotency, workflow_reading
from app.api.authentication import Caller, needs
from app.api.budget_bodies import AmountsBody
from app.api.context import services_of
from app.api.documents import accepts, problems_of
from app.api.query import NoQuery
from app.api.shapes.workflow import Workflow
from app.api.workflow_reading import workflow_id_of
from app.engine import top_up
from app.engine.top_up import RequestKey

router = APIRouter(tags=["workflows"])

LONGEST_STEP: Final = 200


class TopUpBody(AmountsBody):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"usd": "0.50", "note": "The customer wants it finished."}]}
    )

    step: Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_STEP)] | None = Field(default=None)
    """Id of a step that has a budget of its own; without it the workflow's is topped up."""
    note: Annotated[str, StringConstraints(max_length=2000)] | None = Field(default=None)
    """Why, for the audit."""


@router.post(
    "/v1/workflows/{workflow}/budget",
    operation_id="top_up_budget",
    summary="Top up a workflow's budget",
    status_code=202,
    response_model=Workflow,
    responses=problems_of(400, 401, 403, 404, 409, 413, 415, 422, 503),
    openapi_extra=accepts(TopUpBody, key="accepted"),
)
async def top_up_budget(
    workflow: str,
    request: Request,
    caller: Annotated[Caller, Depends(needs("operate"))],
    query: Annotated[NoQuery, Query()],
) -> Response:
    """Adds to the limits there are. Calls that were held for the budget go on; a workflow that failed by it goes on
    with a retry afterwards. Without an Idempotency-Key each request adds once more."""
    workflow_id = workflow_id_of(workflow)
    text = idempotency.read_key(request.headers)
    value = await body.read_object(request)
    checked = body.check(TopUpBody, value)
    # The workflow is part of what the key is bound to: the same body for another one is another request.
    fingerprint = idempotency.fingerprint(route=f"{top_up.ROUTE} {workflow}", body=value)
    replayed = await top_up.top_up(
        services_of(request),
        caller.tenant_id,
        workflow_id,
        added=checked.amounts(),
        step=checked.step,
        note=checked.note,
        by=caller.name,
        key=RequestKey(
            text=text or f"made:{uuid7()}",  # so that a transaction that is run again adds once
            fingerprint=fingerprint.whole,
            field_hashes=fingerprint.fields,
        ),
    )
    reading = await workflow_reading.read(request, tenant_id=caller.tenant_id, workflow_id=workflow_id)
    place = {"Location": reading.shape.links.self, "ETag": reading.etag}
    again = {"Idempotent-Replayed": "true"} if replayed else {}
    return answering.answer(request, reading.shape, status=202, headers={**place, **again})
