"""Cancel a workflow: stop scheduling, settle what is in flight, then it is cancelled. The same again is the same."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from app.domain.aggregate import Snapshot
from app.domain.facts import CancelRequested, Fact
from app.domain.states import WorkflowStatus
from app.engine.advance import advance_one
from app.engine.services import Services
from app.errors import NotFound, NotPossible


async def cancel(services: Services, tenant_id: UUID, workflow_id: UUID, *, reason: str | None, by: str) -> None:
    """Raises NotFound; NotPossible if it succeeded or failed already."""
    asked = CancelRequested(reason=reason, by=by)

    def make(snapshot: Snapshot) -> Sequence[Fact]:
        workflow = snapshot.workflow
        if workflow.tenant_id != tenant_id:
            raise NotFound(f"There is no workflow {workflow_id}.")
        status = WorkflowStatus(workflow.status)
        if status in (WorkflowStatus.CANCELLED, WorkflowStatus.CANCELLING):
            return []
        if status.final:
            raise NotPossible(
                f"The workflow has already {status}; nothing is left to cancel.",
                extra={"possible": ["read", "submit again"]},
            )
        return [asked]

    if not await advance_one(services, workflow_id, [asked], make=make):
        raise NotFound(f"There is no workflow {workflow_id}.")
