"""An approval: a question to a person, bound to the exact bytes it is about."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from app.api.shapes.values import JSON, Shape, id_or_none
from app.domain import ids
from app.domain.states import ApprovalKind, ApprovalStatus

Row = Mapping[str, Any]


class Approval(Shape):
    id: str
    kind: ApprovalKind
    headline: str
    workflow_id: str
    step: str
    status: ApprovalStatus
    title: str
    show: JSON
    allow: list[str]
    revision: int
    """A decision names it, so that nobody approves what he did not see."""
    effect: str | None
    """Of all kinds but `step`: the call that is held until this is decided."""
    tool: str | None
    arguments: JSON
    """What would be sent; with the decision `edit`, `values` takes its place."""
    arguments_sha256: str | None
    """What the approval is bound to: the tool's declaration and the arguments, hashed; after an edit with `values`."""
    approver: Literal["anyone", "other_than_submitter"]
    expires_at: datetime | None
    decision: str | None
    values: JSON
    comment: str | None
    by: str | None
    decided_at: datetime | None


def approval_shape(row: Row, *, headline: str) -> Approval:
    held = row["show"] if row["call_id"] is not None and isinstance(row["show"], Mapping) else {}
    return Approval(
        id=ids.encode("apr", row["id"]),
        kind=row["kind"],
        headline=headline,
        workflow_id=ids.encode("wf", row["workflow_id"]),
        step=row["step"],
        status=row["status"],
        title=row["title"],
        show=row["show"],
        allow=list(row["allow"]),
        revision=row["revision"],
        effect=id_or_none("call", row["call_id"]),
        tool=held.get("tool"),
        arguments=held.get("arguments"),
        arguments_sha256=row["arguments_sha256"],
        approver=row["approver"],
        expires_at=row["expires_at"],
        decision=row["decision"],
        values=row["values"],
        comment=row["comment"],
        by=row["by"],
        decided_at=row["decided_at"],
    )
