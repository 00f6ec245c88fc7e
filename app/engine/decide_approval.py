"""A person decides an approval. The same decision again is a replay, another is refused, a late one is told so."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from app.domain import ids
from app.domain.aggregate import Approval, Snapshot
from app.domain.facts import ApprovalDecided, ApprovalExpired, Fact
from app.domain.outcomes import JSON
from app.domain.states import ApprovalStatus
from app.engine import transactions
from app.engine.advance import advance_one, instant
from app.engine.services import Services
from app.errors import AlreadyDecided, ApprovalClosed, InvalidValue, NotFound, RevisionChanged
from app.store import calls, submissions


async def decide(
    services: Services,
    tenant_id: UUID,
    approval_id: UUID,
    *,
    decision: str,
    values: JSON,
    comment: str | None,
    revision: int,
    by: str,
) -> None:
    """Raises NotFound, AlreadyDecided 409, ApprovalClosed 410, RevisionChanged 409, InvalidValue."""

    async def find(connection: transactions.Connection) -> tuple[calls.Place | None, datetime]:
        found = await calls.place_of_approval(connection, tenant_id=tenant_id, approval_id=approval_id)
        return found, await submissions.clock(connection)

    place, now = await transactions.run(services.database, "operate", find, size=services.settings.pool_size)
    if place is None:
        raise NotFound(f"There is no approval {ids.encode('apr', approval_id)}.")
    fact = ApprovalDecided(
        approval_id=approval_id,
        step=place.step,
        call_id=place.call_id,
        decision=decision,
        values=values,
        comment=comment,
        by=by,
    )
    late = False

    def make(snapshot: Snapshot) -> Sequence[Fact]:
        nonlocal late
        approval = snapshot.approvals[approval_id]
        if approval.status == ApprovalStatus.DECIDED and approval.decision == decision:
            return []
        _judge(approval, decision=decision, revision=revision)
        if approval.expires_at is not None and approval.expires_at <= now:
            late = True  # judged by the database's clock even if the timer has not fired yet
            return [ApprovalExpired(approval_id=approval_id, step=place.step, call_id=place.call_id)]
        return [fact]

    await advance_one(services, place.workflow_id, [fact], make=make)
    if late:
        raise ApprovalClosed("The approval had expired before this decision.")


def _judge(approval: Approval, *, decision: str, revision: int) -> None:
    match approval.status:
        case ApprovalStatus.DECIDED:
            raise AlreadyDecided(f"{approval.by} said {approval.decision}.")
        case ApprovalStatus.EXPIRED | ApprovalStatus.CANCELLED:
            ended = "" if approval.decided_at is None else f" at {instant(approval.decided_at)}"
            raise ApprovalClosed(f"The approval was {approval.status}{ended}.")
    if approval.revision != revision:
        raise RevisionChanged(f"Its revision is {approval.revision}, the decision names {revision}.")
    if decision not in approval.allow:
        raise InvalidValue(f"This approval allows {', '.join(approval.allow)}.", fix="Send one of those as `decision`.")
