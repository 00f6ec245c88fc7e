"""Every second, in every worker: what is due and not rung, leases that are over, timers. The only recovery code.

Each chore takes its rows with SKIP LOCKED in a short transaction, lets them go, and brings facts to the one door in
another: dying between the two repeats the chore, whose facts then decide nothing new.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

import structlog

from app.domain.accounts import WHOLE
from app.domain.budget_facts import BudgetLooked, DurationPassed
from app.domain.facts import (
    ApprovalExpired,
    DeadlinePassed,
    Fact,
    OwnerLooked,
    ResultTimedOut,
    StepTimedOut,
    SwitchReleased,
    WorkerLost,
)
from app.domain.states import DueKind, Lane
from app.engine import depend, recover, transactions
from app.engine.advance import Advanced, advance, ring
from app.engine.record import told_again
from app.engine.services import Services
from app.store import dues, effect_keys
from app.store.dues import Found

log = structlog.get_logger(__name__)

LIMIT: Final = 200
"""Facts brought to the door by one sweep of one process."""

MOST_IN_FLIGHT: Final = 1_000
"""Dues that become their attempts' in one sweep: more than one process performs at once."""

LEAST_RINGS: Final = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Swept:
    calls: list[UUID] = field(default_factory=list)
    deliveries: list[UUID] = field(default_factory=list)


async def sweep(services: Services, *, free_slots: int) -> Swept:
    """Rings what it found (and returns it, for the local pool when the broker is away)."""
    await recover.notice(services)
    await _ring_again_if_emptied(services)
    await _end_leases(services)
    await _in_flight(services)
    await _lost(services)
    await _timers(services)
    await bring(services, await depend.release(services))
    return await _ring(services, free_slots=free_slots)


async def _ring_again_if_emptied(services: Services) -> None:
    if services.marker is not None and await services.marker.vanished():
        log.info("sweep.redis_was_emptied")
        await transactions.run(services.database, "sweep", dues.ring_again, one_statement=True)


async def _end_leases(services: Services) -> None:
    async def work(connection: transactions.Connection) -> list[UUID]:
        return await dues.lapse_workers(connection, lease=services.settings.lease)

    for worker in await transactions.run(services.database, "sweep", work, one_statement=True):
        log.warning("sweep.lease_ended", worker=str(worker))


async def _in_flight(services: Services) -> None:
    async def work(connection: transactions.Connection) -> None:
        await dues.in_flight(connection, limit=MOST_IN_FLIGHT, lease=services.settings.lease)

    await transactions.run(services.database, "sweep", work, one_statement=True)


async def _lost(services: Services) -> None:
    async def work(connection: transactions.Connection) -> list[Found]:
        return await dues.lost_attempts(connection, limit=LIMIT)

    facts: dict[UUID, list[Fact]] = defaultdict(list)
    for found in await transactions.run(services.database, "sweep", work, one_statement=True):
        if found.attempt_id is not None and found.step is not None:
            facts[found.workflow_id].append(WorkerLost(call_id=found.ref, attempt_id=found.attempt_id, step=found.step))
    await bring(services, facts)


async def _timers(services: Services) -> None:
    async def work(connection: transactions.Connection) -> dict[UUID, list[Fact]]:
        facts: dict[UUID, list[Fact]] = defaultdict(list)
        for found in await dues.timers(connection, limit=LIMIT):
            if found.kind == DueKind.APPLY:
                facts[found.workflow_id] += await told_again(
                    connection, workflow_id=found.workflow_id, call_id=found.ref, attempts=_attempts(found)
                )
            elif found.kind == DueKind.ATTACHED and found.step is not None:
                facts[found.workflow_id].append(await _owner(connection, found, step=found.step))
            else:
                facts[found.workflow_id].append(_fact(found))
        return facts

    await bring(services, await transactions.run(services.database, "sweep", work))


async def _owner(connection: transactions.Connection, found: Found, *, step: str) -> OwnerLooked:
    """What became of the call that owns the key another one waits for."""
    owner_id = await effect_keys.attached_to(connection, workflow_id=found.workflow_id, call_id=found.ref)
    owner = None if owner_id is None else await effect_keys.owner(connection, call_id=owner_id)
    return OwnerLooked(
        call_id=found.ref,
        step=step,
        owner=owner_id,
        state=None if owner is None else owner.state,
        undo="none" if owner is None else owner.undo,
        result=None if owner is None else owner.result,
    )


def _attempts(found: Found) -> list[UUID]:
    """Whose evidence an `apply` due is about."""
    return [UUID(attempt) for attempt in (found.note or "").split(",") if attempt]


def _fact(found: Found) -> Fact:
    match found.kind:
        case DueKind.DEADLINE:
            return DeadlinePassed()
        case DueKind.STEP_TIMEOUT if found.step is not None:
            return StepTimedOut(step=found.step)
        case DueKind.EXPIRY if found.step is not None:
            return ApprovalExpired(approval_id=found.ref, step=found.step, call_id=found.call_id)
        case DueKind.RESULT if found.step is not None and found.attempt_id is not None:
            return ResultTimedOut(call_id=found.ref, attempt_id=found.attempt_id, step=found.step)
        case DueKind.SWITCH if found.step is not None:
            return SwitchReleased(call_id=found.ref, step=found.step)
        case DueKind.BUDGET if found.step is not None:
            return BudgetLooked(call_id=found.ref, step=found.step)
        case DueKind.DURATION:
            return DurationPassed(scope=found.note or WHOLE)
    raise LookupError(f"a due of kind {found.kind} means no fact")


async def bring(services: Services, facts: Mapping[UUID, Sequence[Fact]]) -> None:
    """Bring facts to the door; if one workflow's data breaks the batch, each goes alone and the others go on."""
    if not facts:
        return

    async def together(connection: transactions.Connection) -> Advanced:
        return await advance(services, connection, facts, skip_locked=True)

    try:
        ring(services, await transactions.run(services.database, "sweep", together))
        return
    except Exception as error:
        if transactions.lost(error) or len(facts) == 1:
            log.exception("sweep.facts_failed", workflows=[str(w) for w in facts])
            return
    for workflow_id in facts:
        await bring(services, {workflow_id: facts[workflow_id]})


async def _ring(services: Services, *, free_slots: int) -> Swept:
    """Never rings more than about twice the capacity: the surplus stays due, fair between tenants."""
    limit = max(LEAST_RINGS, 2 * free_slots)

    async def work(connection: transactions.Connection) -> list[dues.Rung]:
        return await dues.ring(connection, limit=limit, unrung=services.bell.broker_away)

    swept = Swept()
    for rung in await transactions.run(services.database, "sweep", work, one_statement=True):
        (swept.calls if rung.kind == DueKind.CALL else swept.deliveries).append(rung.ref)
    if swept.calls:
        services.bell.ring(Lane.CALLS, swept.calls)
    if swept.deliveries:
        services.bell.ring(Lane.DELIVERIES, swept.deliveries)
    return swept
