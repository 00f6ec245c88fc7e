"""Reopen a workflow that failed or was cancelled: it goes on with what did not succeed. The only way out of an end.

Refused once something was undone, and where an effect was given up: going on would repeat what may have happened.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from app.domain import ids
from app.domain.aggregate import Snapshot, Workflow
from app.domain.facts import Fact, RetryRequested
from app.domain.plan import Plan
from app.domain.states import FailureKind, WorkflowStatus
from app.engine import possibilities
from app.engine.advance import advance_one
from app.engine.services import Services
from app.errors import NotFound, NotPossible

_REOPENED = (WorkflowStatus.FAILED, WorkflowStatus.CANCELLED)


async def retry(services: Services, tenant_id: UUID, workflow_id: UUID, *, note: str | None, by: str) -> None:
    """Raises NotFound, NotPossible. A workflow that goes on already is left alone: the same again is the same."""
    asked = RetryRequested(note=note, by=by)

    def make(snapshot: Snapshot, plan: Plan) -> Sequence[Fact]:
        workflow = snapshot.workflow
        if workflow.tenant_id != tenant_id:
            raise NotFound(f"There is no workflow {ids.encode('wf', workflow_id)}.")
        status = WorkflowStatus(workflow.status)
        if status not in _REOPENED and workflow.saga != "held":
            _refuse(workflow, status)
            return []
        _refuse_without_money(snapshot)
        if workflow.effects_undone:
            raise NotPossible(
                f"Effects of it were undone ({workflow.effects_undone}); the workflow cannot go on from there.",
                fix="Submit it again with a new Idempotency-Key (later: fork).",
                extra={"possible": possibilities.of(workflow)},
            )
        if workflow.effects_abandoned:
            raise NotPossible(
                "An effect was given up without knowing whether it happened; going on might repeat it.",
                fix="Look at GET …/effects?state=abandoned, then submit again with a new Idempotency-Key.",
                extra={"possible": possibilities.of(workflow)},
            )
        if "contradicted" in workflow.attention:
            raise NotPossible(
                "What somebody said about an effect was contradicted by what arrived later; going on might repeat it.",
                fix="Look at the events effect.contradicted, then submit again with a new Idempotency-Key.",
                extra={"possible": possibilities.of(workflow)},
            )
        return [asked]

    if not await advance_one(services, workflow_id, [asked], make=make):
        raise NotFound(f"There is no workflow {ids.encode('wf', workflow_id)}.")


def _refuse_without_money(snapshot: Snapshot) -> None:
    """Over a budget that nobody has topped up since it would fail the same way at once."""
    failure = snapshot.workflow.failure or {}
    if failure.get("kind") != FailureKind.BUDGET_EXCEEDED:
        return
    if any(account.exceeded for account in snapshot.accounts.values()):
        raise NotPossible(
            f"It failed by its budget, and would again: {failure['message']}",
            fix=f"{str(failure.get('fix') or '').removesuffix(' Then retry it.')} Then retry.",
            extra={"possible": ["budget", *possibilities.of(snapshot.workflow)]},
        )


def _refuse(workflow: Workflow, status: WorkflowStatus) -> None:
    possible = {"possible": possibilities.of(workflow)}
    if status is WorkflowStatus.SUCCEEDED:
        raise NotPossible("The workflow succeeded; nothing is left to retry.", extra=possible)
    if status.ending:
        raise NotPossible(f"The workflow is {status}; it can be reopened when it has ended.", extra=possible)
    if status is WorkflowStatus.PAUSED:
        raise NotPossible("The workflow is paused.", extra=possible)
