"""What operators decide about undoing: a failure that was held, and a compensation that failed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from app.domain import ids
from app.domain.aggregate import Snapshot
from app.domain.facts import Fact, SagaDecided, UndoSettled
from app.domain.plan import Plan
from app.domain.states import CallState, Undo, WorkflowStatus
from app.engine import possibilities, transactions
from app.engine.advance import advance_one
from app.engine.services import Services
from app.errors import InvalidValue, NotFound, NotPossible
from app.store import calls

MODES: Final = ("undo", "keep")
ACTIONS: Final = {"retry": (), "done": (Undo.DONE,), "skip": (Undo.SKIPPED,)}
"""What an operator may say of a failed compensation → the state in which that was said already."""


async def decide_saga(services: Services, tenant_id: UUID, workflow_id: UUID, *, mode: str, note: str, by: str) -> None:
    """Allowed while a failed or cancelled workflow is held. Raises NotFound, InvalidValue, NotPossible."""
    if mode not in MODES:
        raise InvalidValue(f"mode is {mode!r:.40}.", fix="Send undo or keep.")
    asked = SagaDecided(mode=mode, note=note, by=by)

    def make(snapshot: Snapshot, plan: Plan) -> Sequence[Fact]:
        workflow = snapshot.workflow
        if workflow.tenant_id != tenant_id:
            raise NotFound(f"There is no workflow {ids.encode('wf', workflow_id)}.")
        if workflow.saga == mode:
            return []
        if workflow.saga != "held":
            status = WorkflowStatus(workflow.status)
            said = f"; {workflow.saga} was decided" if workflow.saga else ""
            raise NotPossible(
                f"The workflow is {status} and not held{said}.", extra={"possible": possibilities.of(workflow)}
            )
        return [asked]

    if not await advance_one(services, workflow_id, [asked], make=make):
        raise NotFound(f"There is no workflow {ids.encode('wf', workflow_id)}.")


async def settle_undo(services: Services, tenant_id: UUID, call_id: UUID, *, action: str, note: str, by: str) -> None:
    """`call_id` is the effect's. Raises NotFound, InvalidValue, NotPossible."""
    if action not in ACTIONS:
        raise InvalidValue(f"action is {action!r:.40}.", fix="Send retry, done or skip.")

    async def find(connection: transactions.Connection) -> calls.Place | None:
        return await calls.place(connection, tenant_id=tenant_id, call_id=call_id)

    place = await transactions.run(services.database, "operate", find, size=services.settings.pool_size)
    if place is None:
        raise NotFound(f"There is no effect {ids.encode('call', call_id)}.")
    asked = UndoSettled(call_id=call_id, step=place.step, action=action, note=note, by=by)

    def make(snapshot: Snapshot, plan: Plan) -> Sequence[Fact]:
        call = snapshot.calls[call_id]
        if call.undo == Undo.FAILED:
            return [asked]
        if call.undo in ACTIONS[action] or (action == "retry" and call.undo == Undo.RUNNING):
            return []
        possible = ["wait"] if call.undo in (Undo.RUNNING, Undo.RECORDED) else ["read"]
        if call.state == CallState.IN_DOUBT:
            possible = ["resolve"]
        raise NotPossible(
            f"The compensation of this effect is {call.undo}, not failed.",
            extra={"undo": call.undo, "possible": possible},
        )

    await advance_one(services, place.workflow_id, [asked], make=make)
