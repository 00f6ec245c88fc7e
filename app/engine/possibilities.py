"""What may be asked of a workflow in its state: what every refusal says instead of only no."""

from __future__ import annotations

from app.domain.aggregate import Workflow
from app.domain.states import WorkflowStatus


def of(workflow: Workflow) -> list[str]:
    """The operations that would not be refused now, the usual one first."""
    status = WorkflowStatus(workflow.status)
    if status is WorkflowStatus.SUCCEEDED:
        return ["read"]
    if status.final:
        return ["read", "retry", "submit again"] if reopens(workflow) else ["read", "submit again"]
    if workflow.saga == "held":
        return ["retry", "compensate"] if reopens(workflow) else ["compensate"]
    settle = ["resolve"] if workflow.doubts else []
    if status.ending:
        undo = ["undo"] if workflow.undos_failed else []
        return [*settle, *undo, "wait", "hold"]
    return [*settle, "resume" if status is WorkflowStatus.PAUSED else "pause", "cancel"]


def reopens(workflow: Workflow) -> bool:
    """Whether a retry could go on from here: nothing was undone, nothing given up or contradicted that may have
    happened."""
    told = workflow.effects_undone or workflow.effects_abandoned
    return not told and "contradicted" not in workflow.attention
