"""A person decides an approval. The same decision again is a replay, another is refused, a late one is told so."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import structlog

from app.domain import calling, gating, ids, schemas
from app.domain.aggregate import Approval, Snapshot
from app.domain.facts import ApprovalDecided, ApprovalExpired, Fact
from app.domain.faults import Fault
from app.domain.outcomes import JSON
from app.domain.plan import Plan, Tool
from app.domain.states import ApprovalStatus
from app.engine import transactions
from app.engine.advance import advance_one, instant
from app.engine.services import Services
from app.errors import (
    AlreadyDecided,
    ApprovalClosed,
    ApproverIsSubmitter,
    InvalidValue,
    NotFound,
    RequestChanged,
    RevisionChanged,
)
from app.store import calls, submissions

log = structlog.get_logger(__name__)


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
    """Raises NotFound, AlreadyDecided, ApprovalClosed, RevisionChanged, RequestChanged, ApproverIsSubmitter,
    InvalidValue."""

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

    def make(snapshot: Snapshot, plan: Plan) -> Sequence[Fact]:
        nonlocal late
        approval = snapshot.approvals[approval_id]
        if approval.status == ApprovalStatus.DECIDED and approval.decision == decision and approval.values == values:
            return []
        _judge(approval, decision=decision, revision=revision, by=by, submitter=snapshot.workflow.submitted_by)
        if approval.expires_at is not None and approval.expires_at <= now:
            late = True  # judged by the database's clock even if the timer has not fired yet
            return [ApprovalExpired(approval_id=approval_id, step=place.step, call_id=place.call_id)]
        if place.call_id is not None:
            _judge_call(snapshot, plan, approval, decision=decision, values=values)
        return [fact]

    await advance_one(services, place.workflow_id, [fact], make=make)
    if late:
        raise ApprovalClosed("The approval had expired before this decision.")


def _judge_call(snapshot: Snapshot, plan: Plan, approval: Approval, *, decision: str, values: JSON) -> None:
    """Of a call that waits: what is approved is what is there, and is what the tool takes."""
    call = snapshot.calls[approval.call_id] if approval.call_id is not None else None
    if call is None or decision not in ("approve", "edit"):
        return
    tool = plan.tools[call.tool or ""]
    if not gating.matches(tool, call.request["arguments"], approval.arguments_sha256):
        log.error("approval.request_changed", approval=ids.encode("apr", approval.id), tool=tool.name)
        raise RequestChanged(
            f"The request of {calling.shown_id(call)} is not the one this approval was asked for; nothing was sent."
        )
    if decision == "edit":
        _judge_edit(tool, values)
    elif values is not None:
        raise InvalidValue(
            "`approve` is about the arguments that were shown; other ones are approved with `edit`.",
            fix="Send `edit` with the whole arguments as `values`, or `approve` without values.",
        )


def _judge_edit(tool: Tool, values: JSON) -> None:
    if not isinstance(values, dict):
        raise InvalidValue(
            "An edited approval says which arguments are approved.", fix="Send the whole arguments as `values`."
        )
    errors = schemas.validate(tool.input_schema, values) if tool.input_schema is not None else []
    if errors:
        raise InvalidValue(
            "The edited arguments do not fit the tool's input_schema.",
            faults=[
                Fault(
                    code=error.keyword or "invalid",
                    pointer=f"/values{error.pointer}",
                    detail=error.message,
                    fix="Correct the value.",
                )
                for error in errors
            ],
        )


def _judge(approval: Approval, *, decision: str, revision: int, by: str, submitter: str) -> None:
    match approval.status:
        case ApprovalStatus.DECIDED:
            raise AlreadyDecided(f"{approval.by} said {approval.decision}.")
        case ApprovalStatus.EXPIRED | ApprovalStatus.CANCELLED:
            ended = "" if approval.decided_at is None else f" at {instant(approval.decided_at)}"
            raise ApprovalClosed(f"The approval was {approval.status}{ended}.")
    if approval.revision != revision:
        raise RevisionChanged(f"Its revision is {approval.revision}, the decision names {revision}.")
    if approval.approver == "other_than_submitter" and by == submitter:
        raise ApproverIsSubmitter(f"{by} submitted this workflow.")
    if decision not in approval.allow:
        raise InvalidValue(f"This approval allows {', '.join(approval.allow)}.", fix="Send one of those as `decision`.")
