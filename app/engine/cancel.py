"""Cancel a workflow: stop scheduling, settle what is in flight, then it is cancelled. The same again is the same."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from app.domain.aggregate import Snapshot
from app.domain.facts import CancelRequested, Fact
from app.domain.plan import Plan
from app.domain.states import WorkflowStatus
from app.engine import possibilities
from app.engine.advance import advance_one
from app.engine.services import Services
from app.errors import NotFound, NotPossible


async def cancel(services: Services, tenant_id: UUID, workflow_id: UUID, *, reason: str | None, by: str) -> None:
    """Raises NotFound; NotPossible if it succeeded or failed already, or failed and is being undone."""
    asked = CancelRequested(reason=reason, by=by)

    def make(snapshot: Snapshot, plan: Plan) -> Sequence[Fact]:
        workflow = snapshot.workflow
        if workflow.tenant_id != tenant_id:
            raise NotFound(f"There is no workflow {workflow_id}.")
        status = WorkflowStatus(workflow.status)
        if status in (WorkflowStatus.CANCELLED, WorkflowStatus.CANCELLING):
            return []
        if status.final:
            raise NotPossible(
                f"The workflow is already {status}; nothing is left to cancel.",
                extra={"possible": possibilities.of(workflow)},
            )
        if status is WorkflowStatus.COMPENSATING:
            if workflow.cancel:
                return []
            raise NotPossible(
                "The workflow failed, and what it did is being undone; that is not stopped half-way.",
                extra={"possible": possibilities.of(workflow)},
            )
        return [asked]

    if not await advance_one(services, workflow_id, [asked], make=make):
        raise NotFound(f"There is no workflow {workflow_id}.")
