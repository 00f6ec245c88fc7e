"""Pause a workflow, and let it go on. What is in flight is finished, nothing else is sent. Again is the same."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from app.domain import ids
from app.domain.aggregate import Snapshot, Workflow
from app.domain.facts import Fact, PauseRequested, ResumeRequested
from app.domain.plan import Plan
from app.domain.states import WorkflowStatus
from app.engine import possibilities
from app.engine.advance import advance_one
from app.engine.services import Services
from app.errors import NotFound, NotPossible


async def pause(services: Services, tenant_id: UUID, workflow_id: UUID, *, reason: str | None, by: str) -> None:
    """Raises NotFound; NotPossible once it has ended or is on its way there."""
    asked = PauseRequested(reason=reason, by=by)

    def make(snapshot: Snapshot, plan: Plan) -> Sequence[Fact]:
        status = _status(snapshot.workflow, tenant_id)
        possible = {"possible": possibilities.of(snapshot.workflow)}
        if status is WorkflowStatus.PAUSED:
            return []
        if status.final:
            raise NotPossible(f"The workflow is already {status}.", extra=possible)
        if status.ending:
            raise NotPossible(f"The workflow is {status}: nothing new is started anyway.", extra=possible)
        return [asked]

    if not await advance_one(services, workflow_id, [asked], make=make):
        raise _absent(workflow_id)


async def resume(services: Services, tenant_id: UUID, workflow_id: UUID, *, reason: str | None, by: str) -> None:
    """Raises NotFound; NotPossible once it has ended or is on its way there."""
    asked = ResumeRequested(reason=reason, by=by)

    def make(snapshot: Snapshot, plan: Plan) -> Sequence[Fact]:
        status = _status(snapshot.workflow, tenant_id)
        possible = {"possible": possibilities.of(snapshot.workflow)}
        if status is WorkflowStatus.PAUSED:
            return [asked]
        if status.final:
            raise NotPossible(f"The workflow is already {status}.", extra=possible)
        if status.ending:
            raise NotPossible(f"The workflow is {status}, not paused.", extra=possible)
        return []

    if not await advance_one(services, workflow_id, [asked], make=make):
        raise _absent(workflow_id)


def _status(workflow: Workflow, tenant_id: UUID) -> WorkflowStatus:
    if workflow.tenant_id != tenant_id:
        raise _absent(workflow.id)
    return WorkflowStatus(workflow.status)


def _absent(workflow_id: UUID) -> NotFound:
    return NotFound(f"There is no workflow {ids.encode('wf', workflow_id)}.")
