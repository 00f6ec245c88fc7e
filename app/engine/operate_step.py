"""An operator ends one step by hand, or lets its next try begin now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

from app.domain import ids, schemas, stepping
from app.domain.aggregate import Call, Snapshot, StepRow
from app.domain.facts import Fact, StepOperated, name_of
from app.domain.faults import Fault
from app.domain.outcomes import JSON
from app.domain.plan import Plan
from app.domain.states import CallState, HeldReason, StepKind, StepState, WorkflowStatus
from app.engine import possibilities, transactions
from app.engine.advance import advance_one
from app.engine.services import Services
from app.errors import InvalidValue, NotFound, NotPossible
from app.store import steps

ACTIONS: Final = {
    "skip": StepState.SKIPPED,
    "complete": StepState.SUCCEEDED,
    "fail": StepState.FAILED,
    "retry-now": None,
}
"""What may be asked → the state in which it was done already."""

_ANSWERS: Final = {
    HeldReason.APPROVAL: ["approve", "reject"],
    HeldReason.REPEAT: ["approve", "reject"],
    HeldReason.PAUSE: ["resume"],
    HeldReason.OPERATOR: ["release"],
}
"""What sets a held call free."""


async def operate(
    services: Services,
    tenant_id: UUID,
    workflow_id: UUID,
    path: str,
    *,
    action: str,
    output: JSON,
    note: str | None,
    by: str,
) -> None:
    """Raises NotFound, InvalidValue, NotPossible (with `possible`)."""
    if action not in ACTIONS:
        raise InvalidValue(f"action is {action!r:.40}.", fix=f"Send one of {', '.join(ACTIONS)}.")

    async def there(connection: transactions.Connection) -> bool:
        return await steps.exists(connection, tenant_id=tenant_id, workflow_id=workflow_id, path=path)

    if not await transactions.run(services.database, "operate", there, size=services.settings.pool_size):
        raise NotFound(f"There is no step {path!r:.80} in workflow {ids.encode('wf', workflow_id)}.")
    asked = StepOperated(step=path, action=action, output=output, note=note, by=by)

    def make(snapshot: Snapshot, plan: Plan) -> Sequence[Fact]:
        return _judge(snapshot, plan, asked)

    await advance_one(services, workflow_id, [asked], make=make)


def _judge(snapshot: Snapshot, plan: Plan, asked: StepOperated) -> Sequence[Fact]:
    row, status = snapshot.steps[asked.step], WorkflowStatus(snapshot.workflow.status)
    wanted = ACTIONS[asked.action]
    possible = {"possible": possibilities.of(snapshot.workflow)}
    if StepState(row.state).final:
        same = asked.action != "complete" or row.output == asked.output
        if wanted is not None and row.state == wanted and same:
            return []
        raise NotPossible(f"The step is already {row.state}.", extra=possible)
    if status.final or status.ending:
        raise NotPossible(f"The workflow is {status}.", extra=possible)
    open_calls = [
        call
        for call in snapshot.calls.values()
        if (call.step == asked.step or call.step.startswith(f"{asked.step}.")) and not CallState(call.state).final
    ]
    if asked.action == "retry-now":
        _judge_retry(row, any(stepping.retryable(call) for call in open_calls), open_calls)
        return [asked]
    blocking = next((call for call in open_calls if stepping.in_the_way(call)), None)
    if blocking is not None:
        raise _in_the_way(blocking)
    if row.state == StepState.PENDING and name_of(asked.step) != asked.step:
        raise NotPossible("This item has not begun.", extra={"possible": ["wait", "operate the whole step"]})
    if asked.action == "complete":
        _fits(plan.steps[name_of(asked.step)].output_schema if row.parent or row.items_total is None else None, asked)
    return [asked]


def _in_the_way(call: Call) -> NotPossible:
    """What is to be done first depends on what the call waits for: a person, its own repeat, or the tool."""
    if call.state == CallState.IN_DOUBT:
        possible, fix = ["resolve"], "Resolve the effect first."
    elif stepping.retryable(call):
        possible, fix = ["retry-now", "cancel"], "Let it be repeated (retry-now), then ask again."
    elif call.held_reason in _ANSWERS:
        possible, fix = [*_ANSWERS[HeldReason(call.held_reason)], "cancel"], "Let it go on first, then ask again."
    else:
        possible, fix = ["wait"], "Wait until it is settled, then ask again."
    return NotPossible(
        f"Its call {ids.encode('call', call.id)} is {call.state}: what it did is not known yet.",
        fix=fix,
        extra={"possible": possible},
    )


def _fits(schema: Mapping[str, JSON] | None, asked: StepOperated) -> None:
    """An output given by hand is what the step's dependents read: it keeps the promise of the step's schema."""
    errors = schemas.validate(schema, asked.output) if schema is not None else []
    if errors:
        raise InvalidValue(
            "The output does not fit the step's output_schema.",
            faults=[
                Fault(code=e.keyword or "invalid", pointer=f"/output{e.pointer}", detail=e.message, fix="Correct it.")
                for e in errors
            ],
        )


def _judge_retry(row: StepRow, possible: bool, open_calls: Sequence[Call]) -> None:
    if possible:
        return
    doubtful = next((call for call in open_calls if call.state == CallState.IN_DOUBT), None)
    if doubtful is not None:
        raise _in_the_way(doubtful)
    held = {call.held_reason for call in open_calls} - {None}
    if held & {HeldReason.APPROVAL, HeldReason.REPEAT} or row.kind == StepKind.APPROVAL:
        raise NotPossible("It waits for a person's word.", extra={"possible": ["approve", "reject"]})
    if HeldReason.OPERATOR in held:
        raise NotPossible("Its call is switched off by an operator.", extra={"possible": ["release"]})
    if HeldReason.PAUSE in held:
        raise NotPossible("The workflow is paused.", extra={"possible": ["resume"]})
    raise NotPossible(f"The step is {row.state}, and no call of it waits for a next try.", extra={"possible": ["wait"]})
