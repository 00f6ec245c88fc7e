"""Ask a person: an approval row, its expiry, and everybody who should know."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from app.domain import ids
from app.domain.aggregate import Approval, StepRow
from app.domain.outcomes import JSON
from app.domain.states import ApprovalKind, ApprovalStatus, DueKind
from app.domain.transition import Draft, Due


def request_approval(
    draft: Draft,
    row: StepRow,
    *,
    kind: ApprovalKind,
    title: str,
    show: JSON,
    allow: list[str],
    expires: timedelta | None = None,
    on_expire: str = "reject",
    call_id: UUID | None = None,
    arguments_sha256: str | None = None,
    approver: str = "anyone",
) -> None:
    place = (str(row.workflow_id), row.path, str(row.turn), str(call_id))
    approval = Approval(
        workflow_id=row.workflow_id,
        id=ids.timed(draft.now, "approval", *place),
        tenant_id=row.tenant_id,
        kind=kind,
        step=row.path,
        call_id=call_id,
        status=ApprovalStatus.OPEN,
        title=title,
        show=show,
        allow=allow,
        arguments_sha256=arguments_sha256,
        approver=approver,
        on_expire=on_expire,
        expires_at=None if expires is None else draft.now + expires,
        created_at=draft.now,
    )
    draft.snapshot.approvals[approval.id] = approval
    draft.transition.new_approvals.append(approval)
    if kind is ApprovalKind.STEP:
        draft.workflow.waits += 1
    if approval.expires_at is not None:
        draft.set_due(
            Due(
                kind=DueKind.EXPIRY,
                ref=approval.id,
                due_at=approval.expires_at,
                ring_at=approval.expires_at,
                note=row.path,
            )
        )
    draft.event(
        "approval.requested",
        step=row.path,
        data={"approval": ids.encode("apr", approval.id), "kind": kind, "title": title},
    )
    draft.attend("approval_pending")
