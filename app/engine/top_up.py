"""Top a budget up: what was held for it goes on; a workflow that failed by it can be retried.

Not harmless twice, so each request is bound to an Idempotency-Key (the caller's, or one made for the request): the key
and the new limits commit together, and a repetition changes nothing. That also guards the transaction itself, which is
run again if the reply to its COMMIT is lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from app.domain import ids
from app.domain.accounts import WHOLE, Account, Limits
from app.domain.aggregate import Snapshot
from app.domain.budget_facts import BudgetRaised
from app.domain.facts import Fact
from app.domain.plan import Plan
from app.domain.states import WorkflowStatus
from app.engine import possibilities, transactions
from app.engine.accept import differing
from app.engine.advance import Advanced, advance, ring
from app.engine.services import Services
from app.errors import IdempotencyKeyReused, NotFound, NotPossible
from app.store import request_keys
from app.store.submissions import ACCEPTED

ROUTE: Final = "POST /v1/workflows/{workflow}/budget"

_NAMES: Final = {
    "microusd": "usd",
    "tokens": "tokens",
    "turns": "turns",
    "tool_calls": "tool_calls",
    "duration_ms": "duration",
    "recovery_microusd": "recovery_usd",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestKey:
    text: str
    fingerprint: str
    field_hashes: Mapping[str, str]


async def top_up(
    services: Services,
    tenant_id: UUID,
    workflow_id: UUID,
    *,
    added: Limits,
    step: str | None,
    note: str | None,
    by: str,
    key: RequestKey,
) -> bool:
    """Whether it was done before, with the same key. Raises NotFound; NotPossible if there is no such limit, or
    nothing that could go on; IdempotencyKeyReused."""
    asked = BudgetRaised(scope=step or WHOLE, added=added, note=note, by=by)

    def make(snapshot: Snapshot, plan: Plan) -> Sequence[Fact]:
        if snapshot.workflow.tenant_id != tenant_id:
            raise _absent(workflow_id)
        _possible(snapshot, asked)
        return [asked]

    async def work(connection: transactions.Connection) -> Advanced | None:
        owner = await request_keys.claim(
            connection,
            tenant_id=tenant_id,
            route=ROUTE,
            key=key.text,
            fingerprint=key.fingerprint,
            field_hashes=key.field_hashes,
            workflow_id=workflow_id,
            status=ACCEPTED,
        )
        if owner is None:
            return await advance(services, connection, {workflow_id: [asked]}, make=make)
        if owner.fingerprint == key.fingerprint:
            return None
        detail = f"The key {key.text!r:.80} was used with another body."
        raise IdempotencyKeyReused(detail, faults=differing(owner.field_hashes, key.field_hashes))

    advanced = await transactions.run(services.database, "operate", work, size=services.settings.pool_size)
    if advanced is None:
        return True
    if workflow_id in advanced.missing:
        raise _absent(workflow_id)
    ring(services, advanced)
    return False


def _absent(workflow_id: UUID) -> NotFound:
    return NotFound(f"There is no workflow {ids.encode('wf', workflow_id)}.")


def _possible(snapshot: Snapshot, asked: BudgetRaised) -> None:
    workflow = snapshot.workflow
    status = WorkflowStatus(workflow.status)
    possible = {"possible": possibilities.of(workflow)}
    if status is WorkflowStatus.SUCCEEDED:
        raise NotPossible("The workflow succeeded; nothing of it is left to pay for.", extra=possible)
    if status.final and not possibilities.reopens(workflow):
        detail = f"The workflow is {status} and cannot be retried, so its budget would buy nothing."
        raise NotPossible(detail, fix="Submit it again with a new Idempotency-Key.", extra=possible)
    if status.ending and workflow.saga != "held":
        detail = f"The workflow is {status}: it sends nothing that its budget governs."
        raise NotPossible(detail, fix="Top it up when it has ended, then retry it.", extra=possible)
    _limited(snapshot.accounts, asked, possible)


def _limited(accounts: Mapping[str, Account], asked: BudgetRaised, possible: Mapping[str, list[str]]) -> None:
    """Only a limit that there is can be raised: anything else would promise what nobody holds back."""
    account = accounts.get(asked.scope)
    if account is None:
        which = "The workflow" if asked.scope == WHOLE else f"The step {asked.scope}"
        fix = f"Budgets are there for: {', '.join(scope or 'the workflow' for scope in accounts) or 'nothing'}."
        raise NotPossible(f"{which} has no budget of its own.", fix=fix, extra=possible)
    limits = {
        "microusd": account.limit_microusd,
        "tokens": account.limit_tokens,
        "turns": account.limit_turns,
        "tool_calls": account.limit_tool_calls,
        "duration_ms": account.limit_ms,
        "recovery_microusd": account.limit_recovery_microusd,
    }
    added = {name: more for name, more in asked.added.to_json().items() if name in limits and more is not None}
    for name in added:
        if limits[name] is None:
            there = ", ".join(_NAMES[name] for name, limit in limits.items() if limit is not None)
            detail = f"The budget does not limit {_NAMES[name]}."
            raise NotPossible(detail, fix=f"It limits {there}.", extra=possible)
