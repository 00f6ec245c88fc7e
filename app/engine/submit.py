"""Accept a workflow: key, workflow, steps, first calls with their dues, first event, in one transaction; then ring.

A 202 means committed. Dies the process before the commit, nothing happened and the client's repetition starts it;
after it, the repetition finds the key. A twin in flight waits on the key's unique index, then replays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from psycopg import errors as pg
from uuid_utils.compat import uuid7

from app.domain import schemas
from app.domain.aggregate import Snapshot, StepRow, Workflow
from app.domain.definition.catalogue import Catalogue, Checked
from app.domain.definition.checking import check
from app.domain.definition.compiling import compile_plan
from app.domain.definition.source import read_text
from app.domain.facts import WorkflowAccepted
from app.domain.faults import Fault
from app.domain.outcomes import JSON
from app.domain.plan import Plan
from app.domain.states import ENGINE_VERSION, StepState, WorkflowStatus
from app.domain.transitions import Decision
from app.engine import transactions
from app.engine.advance import Advanced, decide, ring
from app.engine.services import Services
from app.errors import (
    DefinitionInvalid,
    IdempotencyKeyReused,
    InputInvalid,
    OutboundForbidden,
    RequestInProgress,
)
from app.ports.outbound import literal_forbidden
from app.store import plans, submissions, workflows

ROUTE: Final = "POST /v1/workflows"
ACCEPTED: Final = 202


@dataclass(frozen=True, kw_only=True, slots=True)
class Submission:
    tenant_id: UUID
    key: str
    fingerprint: str
    field_hashes: Mapping[str, str]
    definition: JSON
    """A tree, or None if `definition_text` carries the source."""
    definition_text: str | None
    source_name: str | None
    input: JSON
    labels: Mapping[str, str]
    webhook: JSON
    """`{"url", "events"}` or None."""
    deadline: timedelta | None
    traceparent: str | None
    by: str = ""
    """Who submits: an approval may want somebody else."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Submitted:
    workflow_id: UUID
    replayed: bool


async def submit(services: Services, submission: Submission) -> Submitted:
    """Raises DefinitionInvalid, InputInvalid, OutboundForbidden (nothing is stored), IdempotencyKeyReused,
    RequestInProgress."""
    document, checked, plan = await _checked(services, submission)
    given = _input(plan, submission.input)
    _outbound(services, submission, document)
    workflow_id = uuid7()

    async def work(connection: transactions.Connection) -> tuple[Submitted, Advanced | None]:
        owner = await _claim_key(services, connection, submission, workflow_id)
        if owner is not None:  # ours: an earlier try whose COMMIT got through, but not its reply
            return Submitted(workflow_id=owner, replayed=owner != workflow_id), None
        await plans.put_definition(connection, submission.tenant_id, checked.digest, document)
        await plans.put_plan(connection, submission.tenant_id, plan.digest, checked.plan_body)
        now = await submissions.clock(connection)
        snapshot = _new(submission, plan, workflow_id=workflow_id, given=given, digest=checked.digest, now=now)
        decision = Decision(snapshot, plan=plan, now=now, rules=services.rules)
        transitions = await decide(connection, {workflow_id: (decision, plan, [WorkflowAccepted()])})
        await workflows.apply(connection, transitions)
        return Submitted(workflow_id=workflow_id, replayed=False), Advanced(transitions=transitions)

    services.plans.keep(submission.tenant_id, plan)
    submitted, advanced = await transactions.run(services.database, "submit", work, size=services.settings.pool_size)
    if advanced is not None:
        ring(services, advanced)
    return submitted


async def _claim_key(
    services: Services, connection: transactions.Connection, submission: Submission, workflow_id: UUID
) -> UUID | None:
    """None: the key is ours now. Else the workflow that has it, perhaps our own of an earlier try."""
    try:
        owner = await submissions.claim_key(
            connection,
            tenant_id=submission.tenant_id,
            route=ROUTE,
            key=submission.key,
            fingerprint=submission.fingerprint,
            field_hashes=submission.field_hashes,
            workflow_id=workflow_id,
            status=ACCEPTED,
            wait=services.settings.twin_wait,
        )
    except pg.LockNotAvailable as error:
        raise RequestInProgress(retry_after=1) from error
    if owner is None:
        return None
    if owner.fingerprint != submission.fingerprint:
        raise IdempotencyKeyReused(
            f"The key {submission.key!r:.80} was used with another body.",
            faults=differing(owner.field_hashes, submission.field_hashes),
        )
    return owner.workflow_id


def differing(before: Mapping[str, str], now: Mapping[str, str]) -> list[Fault]:
    """One fault per top-level field that is not as it was."""
    return [
        Fault(
            code="differs",
            pointer=f"/{name}",
            detail=f"{name} {_difference(name, before, now)}",
            fix="Send the original value, or a new Idempotency-Key.",
        )
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]


def _difference(name: str, before: Mapping[str, str], now: Mapping[str, str]) -> str:
    if name not in now:
        return "was in the first request and is missing now."
    return "is not what the first request said." if name in before else "was not in the first request."


async def _checked(services: Services, submission: Submission) -> tuple[JSON, Checked, Plan]:
    """The document, what is known about it, its plan; every fault at once."""
    lines: Mapping[str, int] = {}
    document = submission.definition
    if submission.definition_text is not None:
        read = read_text(submission.definition_text)
        if read.faults:
            raise DefinitionInvalid(faults=read.faults)
        document, lines = read.tree, read.lines
    async with services.database.hot("tools", size=2) as connection:
        registered = await plans.tools(connection, submission.tenant_id)
    checked = check(
        document, lines=lines, source_name=submission.source_name, catalogue=catalogue(services, registered)
    )
    if checked.faults or checked.plan_body is None:
        raise DefinitionInvalid(faults=checked.faults)
    return document, checked, compile_plan(checked.plan_body)


def catalogue(services: Services, registered: Mapping[str, JSON]) -> Catalogue:
    settings = services.settings
    return Catalogue(
        tools=registered,
        models=settings.models,
        tool_timeout=settings.tool_timeout,
        model_timeout=settings.model_timeout,
        settle_factor=settings.settle_factor,
        max_parallel=settings.max_parallel,
        deadline=settings.deadline,
        max_turns=settings.max_turns,
        max_tokens=settings.max_tokens,
        steps_limit=settings.steps_limit,
        items_limit=settings.items_limit,
        definition_limit=settings.definition_limit,
    )


def _input(plan: Plan, given: JSON) -> JSON:
    if plan.input_schema is None:
        return given
    filled = schemas.with_defaults(plan.input_schema, given)
    found = schemas.validate(plan.input_schema, filled)
    if found:
        raise InputInvalid(
            faults=[
                Fault(
                    code=error.keyword or "invalid",
                    pointer=error.pointer,
                    detail=error.message,
                    fix="Correct the value; the definition's `input` says what it wants.",
                )
                for error in found
            ]
        )
    return filled


def _outbound(services: Services, submission: Submission, document: JSON) -> None:
    """Literal private addresses are refused now; names are judged at each send, because no DNS happens in a POST."""
    urls: list[tuple[str, str]] = []
    if submission.webhook:
        urls.append(("/webhook/url", submission.webhook["url"]))
    tools = document.get("tools") if isinstance(document, dict) else None
    for name, tool in (tools or {}).items():
        url = tool["http"]["url"]
        if "${{" not in url.split("/")[2]:  # scheme, nothing, host: the check of the definition saw to that
            urls.append((f"/definition/tools/{schemas.escape(name)}/http/url", url.partition("${{")[0]))
    faults: Sequence[Fault] = [
        Fault(code="outbound_forbidden", pointer=pointer, detail=reason, fix=OutboundForbidden.fix)
        for pointer, url in urls
        if (reason := literal_forbidden(url, services.outbound)) is not None
    ]
    if faults:
        raise OutboundForbidden(faults[0].detail, faults=faults)


def _new(submission: Submission, plan: Plan, *, workflow_id: UUID, given: JSON, digest: str, now: datetime) -> Snapshot:
    workflow = Workflow(
        id=workflow_id,
        tenant_id=submission.tenant_id,
        name=plan.name,
        definition_digest=digest,
        plan_digest=plan.digest,
        engine_version=ENGINE_VERSION,
        status=WorkflowStatus.QUEUED,
        idempotency_key=submission.key,
        submitted_by=submission.by,
        input=given,
        labels={**plan.labels, **submission.labels},
        webhook=submission.webhook,
        traceparent=submission.traceparent,
        steps_total=len(plan.steps),
        steps_open=len(plan.steps),
        deadline_at=now + (submission.deadline or plan.deadline),
        created_at=now,
        updated_at=now,
    )
    snapshot = Snapshot(workflow=workflow, complete=True)
    for position, step in enumerate(plan.steps.values()):
        snapshot.steps[step.id] = StepRow(
            workflow_id=workflow_id,
            path=step.id,
            tenant_id=submission.tenant_id,
            name=step.id,
            position=position,
            kind=step.kind,
            state=StepState.PENDING,
            unmet_needs=len(step.needs),
        )
    return snapshot
