"""Write what was submitted: keys, workflows, steps, first calls with their dues, first events, in one transaction.

Submissions that arrive while another transaction is on its way are gathered into the next one (`gather.py`): on an
idle system each has its own, under load they share its round trips and its write to disk. A key twice in one batch is
one workflow and a replay. Whatever breaks a batch (a twin in flight elsewhere, a poisoned submission, tools that were
registered meanwhile) sends its submissions on alone, so that each gets its own answer and none waits for another's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Final, NoReturn
from uuid import UUID

import structlog
from psycopg import errors as pg

from app.domain.aggregate import Snapshot, StepRow, Workflow
from app.domain.facts import Fact, WorkflowAccepted
from app.domain.faults import Fault
from app.domain.opening import open_accounts
from app.domain.outcomes import JSON
from app.domain.plan import Plan
from app.domain.states import ENGINE_VERSION, DueKind, StepState, WorkflowStatus
from app.domain.transition import Transition
from app.domain.transitions import Decision
from app.engine import transactions
from app.engine.advance import Advanced, decide, due_now, ring
from app.engine.definitions import Known
from app.engine.gather import Gatherer
from app.engine.services import Services
from app.engine.submission import Seen, Submission, Submitted
from app.errors import IdempotencyKeyReused, RequestInProgress
from app.store import plans, submissions, workflows
from app.store.submissions import Claim, Owner

BATCH_WAIT: Final = 0.05
"""Seconds a batch waits for anybody's lock: twins meet for the few milliseconds of one commit; who waits longer waits
alone, up to `twin_wait`."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """A submission that was judged."""

    workflow_id: UUID
    submission: Submission
    known: Known
    given: JSON
    """Its input, defaults filled in."""

    @property
    def place(self) -> tuple[UUID, str]:
        return self.submission.tenant_id, self.submission.key


class ToolsChanged(Exception):
    """The tenant's registered tools are not those the definition was checked with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Accepted:
    answers: list[Submitted | IdempotencyKeyReused]
    advanced: Advanced


async def accept(services: Services, asked: Asked) -> Submitted:
    """Committed when it returns. Raises IdempotencyKeyReused, RequestInProgress, ToolsChanged."""
    if services.submissions is None:
        services.submissions = Gatherer(partial(accept_batch, services), limit=services.settings.batch)
    return await services.submissions.submit(asked)


async def accept_batch(
    services: Services, batch: Sequence[Asked]
) -> Sequence[Submitted | Exception | asyncio.Task[Submitted]]:
    """One transaction for all; if that breaks, each in one of its own."""

    async def work(connection: transactions.Connection) -> _Accepted:
        claims = await _claim(connection, batch, wait=BATCH_WAIT)
        return await _accept(services, connection, batch, claims)

    try:
        accepted = await transactions.run(services.database, "submit", work)
    except Exception as error:
        if transactions.lost(error):
            raise
        log.info("submit.batch_broken", submissions=len(batch), error=f"{type(error).__name__}: {error}"[:200])
        return [asyncio.create_task(_accept_alone(services, asked)) for asked in batch]
    ring(services, accepted.advanced)
    return accepted.answers


async def _accept_alone(services: Services, asked: Asked) -> Submitted:
    """Waits for a twin in flight as long as a client may be kept waiting."""

    async def work(connection: transactions.Connection) -> _Accepted:
        claims = await _claim(connection, [asked], wait=services.settings.twin_wait)
        await submissions.patient(connection)  # a business key that somebody holds is waited for
        return await _accept(services, connection, [asked], claims)

    accepted = await transactions.run(services.database, "submit-alone", work, size=services.settings.pool_size)
    ring(services, accepted.advanced)
    [answer] = accepted.answers
    if isinstance(answer, Exception):
        raise answer
    return answer


async def _accept(
    services: Services, connection: transactions.Connection, batch: Sequence[Asked], claims: Sequence[Claim]
) -> _Accepted:
    fresh = [(asked, claim) for asked, claim in zip(batch, claims, strict=True) if claim.ours]
    taken = [asked.place for asked, claim in zip(batch, claims, strict=True) if not claim.ours]
    owners = await submissions.owners(connection, taken) if taken else {}
    if any(claim.tools != asked.known.tools for asked, claim in fresh):
        raise ToolsChanged
    await _store_definitions(connection, [asked for asked, claim in fresh if not claim.stored])
    pending: dict[UUID, tuple[Decision, Plan, list[Fact]]] = {
        asked.workflow_id: (_decision(services, asked, claim.now), asked.known.plan, [WorkflowAccepted()])
        for asked, claim in fresh
    }
    transitions = await decide(connection, pending)
    await workflows.apply(connection, transitions)
    seen = {
        asked.workflow_id: _seen(pending[asked.workflow_id][0].snapshot, transition, claim)
        for (asked, claim), transition in zip(fresh, transitions, strict=True)
    }
    answers = [
        Submitted(workflow_id=asked.workflow_id, replayed=False, seen=seen[asked.workflow_id])
        if claim.ours
        else _replay(asked, owners.get(asked.place))
        for asked, claim in zip(batch, claims, strict=True)
    ]
    return _Accepted(answers=answers, advanced=Advanced(transitions=transitions))


async def _claim(connection: transactions.Connection, batch: Sequence[Asked], *, wait: float) -> list[Claim]:
    wanted = [
        submissions.Asked(
            workflow_id=asked.workflow_id,
            tenant_id=asked.submission.tenant_id,
            key=asked.submission.key,
            fingerprint=asked.submission.fingerprint,
            field_hashes=asked.submission.field_hashes,
            definition=asked.known.checked.digest,
            plan=asked.known.plan.digest,
            input=asked.given,
            labels=_labels(asked),
        )
        for asked in batch
    ]
    try:
        return await submissions.claim(connection, wanted, wait=wait)
    except pg.LockNotAvailable as error:
        raise RequestInProgress(retry_after=1) from error


async def _store_definitions(connection: transactions.Connection, batch: Sequence[Asked]) -> None:
    """Each once, and in one order: two batches that store the same ones wait one way."""
    new = {(asked.submission.tenant_id, asked.known.plan.digest): asked.known for asked in batch}
    for (tenant_id, digest), known in sorted(new.items(), key=lambda item: item[0]):
        await plans.put_definition(connection, tenant_id, known.checked.digest, known.document)
        await plans.put_plan(connection, tenant_id, digest, known.checked.plan_body)


def _replay(asked: Asked, owner: Owner | None) -> Submitted | IdempotencyKeyReused:
    """`asked` itself is the owner if an earlier try was committed and only its reply was lost."""
    if owner is None:
        _gone(asked)
    if owner.fingerprint != asked.submission.fingerprint:
        return reused(asked.submission, owner)
    return Submitted(workflow_id=owner.workflow_id, replayed=owner.workflow_id != asked.workflow_id)


def _gone(asked: Asked) -> NoReturn:
    """The key was taken when we claimed it and is free now: it was pruned in between. The client's next try has it."""
    raise RequestInProgress(f"The key {asked.submission.key!r:.80} has just become free.", retry_after=1)


def reused(submission: Submission, owner: Owner) -> IdempotencyKeyReused:
    return IdempotencyKeyReused(
        f"The key {submission.key!r:.80} was used with another body.",
        faults=differing(owner.field_hashes, submission.field_hashes),
    )


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


def _seen(snapshot: Snapshot, transition: Transition, claim: Claim) -> Seen | None:
    workflow = snapshot.workflow
    waits = workflow.waits or workflow.held or workflow.doubts or workflow.undos_failed or workflow.retries
    if workflow.status != WorkflowStatus.RUNNING or waits or workflow.budgeted or workflow.revision != 1:
        return None
    return Seen(
        workflow=replace(workflow, input=claim.input, labels=claim.labels),
        busy=[s.path for s in snapshot.steps.values() if s.parent is None and s.state == StepState.RUNNING],
        due=bool(due_now(transition, DueKind.CALL)),
        worker=claim.worker,
    )


def _labels(asked: Asked) -> dict[str, str]:
    return {**asked.known.plan.labels, **asked.submission.labels}


def _decision(services: Services, asked: Asked, now: datetime) -> Decision:
    return Decision(_new(asked, asked.known.plan, now=now), plan=asked.known.plan, now=now, rules=services.rules)


def _new(asked: Asked, plan: Plan, *, now: datetime) -> Snapshot:
    submission = asked.submission
    workflow = Workflow(
        id=asked.workflow_id,
        tenant_id=submission.tenant_id,
        name=plan.name,
        definition_digest=asked.known.checked.digest,
        plan_digest=plan.digest,
        engine_version=ENGINE_VERSION,
        status=WorkflowStatus.QUEUED,
        idempotency_key=submission.key,
        submitted_by=submission.by,
        input=asked.given,
        labels=_labels(asked),
        webhook=submission.webhook,
        traceparent=submission.traceparent,
        steps_total=len(plan.steps),
        steps_open=len(plan.steps),
        deadline_at=now + (submission.deadline or plan.deadline),
        created_at=now,
        updated_at=now,
    )
    snapshot = Snapshot(workflow=workflow, complete=True)
    snapshot.accounts = open_accounts(
        plan, submission.budget, workflow_id=asked.workflow_id, tenant_id=submission.tenant_id
    )
    workflow.budgeted = bool(snapshot.accounts)
    for position, step in enumerate(plan.steps.values()):
        snapshot.steps[step.id] = StepRow(
            workflow_id=asked.workflow_id,
            path=step.id,
            tenant_id=submission.tenant_id,
            name=step.id,
            position=position,
            kind=step.kind,
            state=StepState.PENDING,
            unmet_needs=len(step.needs),
        )
    return snapshot
