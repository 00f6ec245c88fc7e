"""`/v1/workflows`: submit, list, read. What an operator does to one is in `app/api/operating.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from app.api import answering, body, cursors, holding, idempotency, preferences, submission, workflow_reading
from app.api.authentication import Caller, needs
from app.api.context import passage_of, services_of
from app.api.documents import accepts, problems_of
from app.api.faults import unknown_field
from app.api.idempotency import Fingerprint
from app.api.query import NoQuery, WorkflowsQuery
from app.api.shapes.listing import Page
from app.api.shapes.values import JSON
from app.api.shapes.workflow import Workflow, WorkflowItem, workflow_item
from app.api.workflow_reading import workflow_id_of
from app.domain import headlines
from app.domain.faults import Fault
from app.domain.states import FINAL_STATUSES
from app.domain.transition import DEFAULT_WEBHOOK_EVENTS
from app.engine import submit
from app.engine.submit import Submission, Submitted
from app.errors import (
    DefinitionInvalid,
    IdempotencyKeyReused,
    InputInvalid,
    InvalidValue,
    RequestInProgress,
    SurefootError,
    Unsupported,
)
from app.store import accounts, submissions, workflow_views
from app.store.workflow_views import WorkflowFilters

router = APIRouter(tags=["workflows"])

RETRY_AFTER: Final = "1"
"""Seconds: when to look at a workflow that was just accepted."""

_LABEL: Final = "label."
_UNBUILT_FILTERS: Final = ("q",)


@router.post(
    "/v1/workflows",
    operation_id="submit_workflow",
    summary="Submit a workflow",
    status_code=202,
    response_model=Workflow,
    responses={
        200: {"model": Workflow, "description": "With `Prefer: wait`: it ended, or waits for a person."},
        **problems_of(400, 401, 403, 409, 413, 415, 422, 503),
    },
    openapi_extra=accepts(submission.SubmissionBody, key="required"),
)
async def submit_workflow(
    request: Request, caller: Annotated[Caller, Depends(needs("submit"))], query: Annotated[NoQuery, Query()]
) -> Response:
    """Accepted means stored: the workflow, its key and its first event are committed. The same key with the same body
    answers with the same workflow (`Idempotent-Replayed: true`); `Prefer: wait=30` holds the answer until it ends."""
    key = idempotency.required_key(request.headers)
    value = await body.read_object(request)
    fingerprint = idempotency.fingerprint(route=submit.ROUTE, body=value)
    try:
        submitted = await _submit(request, caller, key=key, fingerprint=fingerprint, value=value)
    except SurefootError as refused:
        if isinstance(refused, IdempotencyKeyReused | RequestInProgress):
            raise
        # What the key was used for goes before whatever is wrong with this body.
        begun = await submit.replay(
            services_of(request),
            tenant_id=caller.tenant_id,
            key=key,
            fingerprint=fingerprint.whole,
            field_hashes=fingerprint.fields,
        )
        if begun is None:
            raise
        submitted = begun
    return await _accepted(request, caller, submitted)


async def _submit(
    request: Request, caller: Caller, *, key: str, fingerprint: Fingerprint, value: dict[str, JSON]
) -> Submitted:
    checked = submission.read(value)
    webhook = checked.webhook
    told = None if webhook is None else {"url": webhook.url, "events": webhook.events or list(DEFAULT_WEBHOOK_EVENTS)}
    wanted = Submission(
        tenant_id=caller.tenant_id,
        key=key,
        fingerprint=fingerprint.whole,
        field_hashes=fingerprint.fields,
        definition=checked.definition,
        definition_text=checked.definition_text,
        source_name=checked.source_name,
        input=checked.input,
        labels=checked.labels,
        webhook=told,
        deadline=checked.deadline_after,
        traceparent=str(passage_of(request).trace),
        budget=None if checked.budget is None else checked.budget.limits(),
        by=caller.name,
    )
    try:
        return await submit.submit(services_of(request), wanted)
    except DefinitionInvalid as invalid:
        raise _placed(invalid, under="/definition") from invalid
    except InputInvalid as invalid:
        raise _placed(invalid, under="/input") from invalid


def _placed(error: SurefootError, *, under: str) -> SurefootError:
    """The same error with pointers from the root of the body."""
    faults = [
        Fault(
            code=fault.code,
            pointer=under + fault.pointer,
            line=fault.line,
            detail=fault.detail,
            fix=fault.fix,
        )
        for fault in error.faults
    ]
    return type(error)(error.detail, fix=error.how, faults=faults, extra=error.extra, retry_after=error.retry_after)


async def _accepted(request: Request, caller: Caller, submitted: Submitted) -> Response:
    """202 and where to look; 200 if the client waited for the end and it came."""
    seconds = preferences.wait_seconds(request.headers)
    status = submissions.ACCEPTED
    headers = {"Idempotent-Replayed": "true"} if submitted.replayed else {}
    if submitted.seen is not None:
        reading = workflow_reading.of_acceptance(submitted.seen)
    else:
        reading = await workflow_reading.read(request, tenant_id=caller.tenant_id, workflow_id=submitted.workflow_id)
    if seconds is not None:
        reading = await holding.until_settled(request, reading, tenant_id=caller.tenant_id, seconds=seconds)
        headers["Preference-Applied"] = f"wait={seconds}"
        status = 200 if reading.settled else status
    if reading.shape.status not in FINAL_STATUSES:
        headers["Retry-After"] = RETRY_AFTER
    headers |= {"Location": reading.shape.links.self, "ETag": reading.etag}
    return answering.answer(request, reading.shape, status=status, headers=headers)


@router.get(
    "/v1/workflows",
    operation_id="list_workflows",
    summary="List workflows, newest first",
    response_model=Page[WorkflowItem],
    responses=problems_of(401, 403, 422, 503),
)
async def list_workflows(
    request: Request, caller: Annotated[Caller, Depends(needs("read"))], query: Annotated[WorkflowsQuery, Query()]
) -> Response:
    """Filters are joined by "and". `label.<name>=<value>` filters by a label."""
    filters = WorkflowFilters(
        statuses=[status.value for status in query.status],
        definition=query.definition,
        labels=_labels(query),
        since=query.since,
        attention=query.attention,
        failure_kind=query.failure_kind,
        key=query.key,
    )
    of = ["workflows", query.model_dump(mode="json", exclude={"cursor", "limit"})]
    before = cursors.decode_id(query.cursor, of=of)
    async with services_of(request).database.reading() as connection:
        rows = await workflow_views.page(
            connection, tenant_id=caller.tenant_id, filters=filters, before=before, limit=query.limit + 1
        )
        has_more = len(rows) > query.limit
        rows = rows[: query.limit]
        waits = await workflow_views.waits(connection, rows)
        symptoms = await workflow_views.symptoms(connection, rows)
        again = [row for row in rows if workflow_views.RETRYING in symptoms.get(row["id"], ())]
        missing = await workflow_views.missing(connection, again)
        budgets = await accounts.of(connection, [row["id"] for row in rows if row["budgeted"]])
    next_cursor = cursors.encode(rows[-1]["id"].hex, of=of) if has_more else None
    page = Page[WorkflowItem](
        data=[
            workflow_item(
                row,
                headline=headlines.workflow_headline(row, steps=(), calls=(), missing=missing.get(row["id"])),
                waits=waits[row["id"]],
                symptoms=symptoms.get(row["id"], []),
                budgets=budgets.get(row["id"], ()),
            )
            for row in rows
        ],
        next_cursor=next_cursor,
        has_more=has_more,
    )
    links = answering.next_link(request, cursor=next_cursor) if next_cursor else {}
    return answering.answer(request, page, headers=links)


def _labels(query: WorkflowsQuery) -> dict[str, str]:
    """The `label.x` among the parameters the model does not name; anything else there is an error."""
    labels: dict[str, str] = {}
    faults: list[Fault] = []
    unbuilt = False
    for name, value in (query.model_extra or {}).items():
        if name.startswith(_LABEL) and submission.LABEL_NAME.fullmatch(name.removeprefix(_LABEL)):
            if isinstance(value, str) and "\x00" not in value:
                labels[name.removeprefix(_LABEL)] = value
            else:
                detail = f"{name} has one value, text without NUL."
                faults.append(Fault(code="invalid_value", pointer=f"?{name}", detail=detail, fix=f"Send {name} once."))
        elif name in _UNBUILT_FILTERS:
            unbuilt = True
            detail = f"The filter {name} is not built yet."
            faults.append(Fault(code="unsupported", pointer=f"?{name}", detail=detail, fix="Leave it out."))
        else:
            faults.append(unknown_field(f"?{name}", name, known=_filter_names()))
    if faults:
        kind = Unsupported if unbuilt and len(faults) == 1 else InvalidValue
        raise kind(faults[0].detail, faults=faults)
    return labels


def _filter_names() -> Sequence[str]:
    fields = [field.alias or name for name, field in WorkflowsQuery.model_fields.items()]
    return [*fields, f"{_LABEL}<name>"]


@router.get(
    "/v1/workflows/{workflow}",
    operation_id="get_workflow",
    summary="Read a workflow",
    response_model=Workflow,
    responses={304: {"description": "Unchanged since the ETag you sent."}, **problems_of(401, 403, 404, 422, 503)},
)
async def get_workflow(
    workflow: str,
    request: Request,
    caller: Annotated[Caller, Depends(needs("read"))],
    query: Annotated[NoQuery, Query()],
) -> Response:
    """With `Prefer: wait=30` the answer comes when it ended or waits for a person; with `If-None-Match` beside it,
    when it changed. `next_poll_ms` says when to look again."""
    workflow_id = workflow_id_of(workflow)
    seconds = preferences.wait_seconds(request.headers)
    reading = await workflow_reading.read(request, tenant_id=caller.tenant_id, workflow_id=workflow_id)
    if seconds is None:
        return answering.answer(request, reading.shape, etag=reading.etag)
    hold = holding.until_changed if "if-none-match" in request.headers else holding.until_settled
    reading = await hold(request, reading, tenant_id=caller.tenant_id, seconds=seconds)
    applied = {"Preference-Applied": f"wait={seconds}"}
    return answering.answer(request, reading.shape, etag=reading.etag, headers=applied)
