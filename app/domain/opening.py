"""The accounts of a workflow, opened when it is accepted: one for itself, one for each step that has a budget."""

from __future__ import annotations

from uuid import UUID

from app.domain.accounts import FAIL, WHOLE, Account, Limits, milliseconds
from app.domain.plan import Plan


def open_accounts(plan: Plan, submitted: Limits | None, *, workflow_id: UUID, tenant_id: UUID) -> dict[str, Account]:
    """Scope → account; empty if nothing is limited. What the submission says stands for the definition's word, key by
    key; a step's `on_exceeded` is the workflow's unless it says otherwise."""
    whole = (plan.budget or Limits()).under(submitted)
    general = whole.on_exceeded or FAIL
    declared = {WHOLE: whole, **{step.id: step.budget for step in plan.steps.values() if step.budget is not None}}
    return {
        scope: _opened(scope, limits, workflow_id=workflow_id, tenant_id=tenant_id, on_exceeded=general)
        for scope, limits in declared.items()
        if limits.limited
    }


def _opened(scope: str, limits: Limits, *, workflow_id: UUID, tenant_id: UUID, on_exceeded: str) -> Account:
    return Account(
        workflow_id=workflow_id,
        scope=scope,
        tenant_id=tenant_id,
        on_exceeded=limits.on_exceeded or on_exceeded,
        limit_microusd=limits.microusd,
        limit_tokens=limits.tokens,
        limit_turns=limits.turns,
        limit_tool_calls=limits.tool_calls,
        limit_ms=None if limits.duration is None else milliseconds(limits.duration),
        limit_recovery_microusd=limits.recovery_microusd,
    )
