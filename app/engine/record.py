"""Record what attempts came to: evidence, decision, next calls, in one transaction over many workflows. Where a
workflow goes on in this process its next call is claimed by the same transaction (`app/engine/follow.py`).

Evidence is never lost: a workflow that somebody else holds is recorded alone on a second connection; if anything but
the world fails, the evidence alone is committed and an `apply` due brings it to the door again; while the process
lives it is tried again. A COMMIT whose reply is lost is run again: an outcome is written once.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Final
from uuid import UUID

import psycopg
import structlog
from psycopg import errors

from app.domain import settling
from app.domain.aggregate import Snapshot
from app.domain.facts import CallSettled, Fact
from app.domain.outcomes import Evidence, Failure, Outcome
from app.domain.reads import Reads, read_for
from app.domain.states import AttemptOutcome
from app.domain.transition import Draft
from app.engine import depend, follow, transactions
from app.engine.advance import Advanced, advance, ring
from app.engine.follow import Intended, Settled
from app.engine.gather import Gatherer
from app.engine.services import Services
from app.store import database, dues, loading, locking, payloads, workflows
from app.store.claims import Claimed

log = structlog.get_logger(__name__)

ALONE: Final = 8
"""Connections for workflows that are recorded alone: each may wait for a lock."""


async def record(services: Services, claimed: Claimed, outcome: Outcome) -> None:
    """Record the outcome, however long the database is away; only the end of the process ends the trying."""
    fact = CallSettled(
        call_id=claimed.call_id,
        attempt_id=claimed.attempt_id,
        step=claimed.step,
        outcome=outcome,
        advice=await depend.report(services, claimed, outcome),
    )
    item = Settled(workflow_id=claimed.workflow_id, fact=fact, ahead=ahead(services, claimed, fact))
    pause = transactions.AWAY_PAUSE
    while True:
        try:
            await _outcomes(services).submit(item)
            return
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:  # a full disk is one, too
            log.warning("record.database_away", error=str(error)[:200], after=pause)
        await asyncio.sleep(pause)
        pause = min(pause * 2, transactions.LONGEST_AWAY_PAUSE)


def ahead(services: Services, claimed: Claimed, fact: CallSettled) -> Reads:
    """What its decision will surely read, so that it comes with the lock: nothing if the plan is not at hand."""
    plan, reads = services.plans.known(claimed.tenant_id, claimed.plan_digest), Reads()
    if plan is not None:
        read_for(fact, plan=plan, reads=reads)
    return reads


def _outcomes(services: Services) -> Gatherer[Settled, None]:
    if services.outcomes is None:
        services.outcomes = Gatherer(partial(record_batch, services), limit=services.settings.batch)
    return services.outcomes


async def record_batch(services: Services, batch: Sequence[Settled]) -> list[asyncio.Task[None] | None]:
    """One transaction for all; what somebody else holds, or what breaks the batch, goes alone in a task of its own."""
    by_workflow: dict[UUID, list[Settled]] = defaultdict(list)
    for item in batch:
        by_workflow[item.workflow_id].append(item)
    facts = {workflow: [item.fact for item in items] for workflow, items in by_workflow.items()}
    ahead = {workflow: _together(items) for workflow, items in by_workflow.items()}

    async def work(connection: transactions.Connection) -> tuple[Advanced, Intended | None]:
        advanced = await advance(services, connection, facts, skip_locked=True, ahead=ahead)
        return advanced, await follow.intend(services, connection, advanced.transitions, by_workflow)

    intended: Intended | None = None
    try:
        advanced, intended = await transactions.run(services.database, "record", work)
    except Exception as error:
        if transactions.lost(error):
            raise
        if isinstance(error, errors.LockNotAvailable):  # of what one of them shares with somebody who stands still
            log.info("record.batch_split", workflows=len(by_workflow))
        else:
            log.exception("record.batch_failed", workflows=len(by_workflow))
        advanced = Advanced(skipped=list(by_workflow))
    ring(services, advanced, going_on=await follow.begin(services, intended))
    for items in by_workflow.values():
        if intended is not None and follow.in_question(items):
            await follow.look_again(services, items)
    alone = {w: asyncio.create_task(_record_alone(services, w, by_workflow[w])) for w in advanced.skipped}
    return [alone.get(item.workflow_id) for item in batch]


def _together(items: Sequence[Settled]) -> Reads:
    steps, calls = (item.ahead.steps for item in items), (item.ahead.calls for item in items)
    return Reads(steps=set().union(*steps), calls=set().union(*calls))


async def _record_alone(services: Services, workflow_id: UUID, items: Sequence[Settled]) -> None:
    """One workflow, waiting for its lock. If its decision fails, its evidence is kept all the same."""
    facts = [item.fact for item in items]

    async def work(connection: transactions.Connection) -> Advanced:
        await connection.execute("SET LOCAL statement_timeout = 0")  # its lock is waited for as long as it takes
        await locking.lock(connection, [workflow_id])
        await database.bounded(connection)
        return await advance(services, connection, {workflow_id: facts})

    try:
        ring(services, await transactions.run(services.database, "record-alone", work, size=ALONE))
    except Exception as error:
        if transactions.lost(error):
            raise
        log.exception("record.decision_failed", workflow=str(workflow_id))
        await keep_evidence(services, workflow_id, facts)
    await follow.look_again(services, items)


async def keep_evidence(services: Services, workflow_id: UUID, facts: Sequence[CallSettled]) -> None:
    """Commit what arrived without deciding about it; an `apply` due brings it to the door again."""

    async def work(connection: transactions.Connection) -> None:
        await connection.execute("SET LOCAL statement_timeout = 0")
        locked, now = await locking.lock(connection, [workflow_id])
        await database.bounded(connection)
        if now is None:
            return
        workflow = locked[workflow_id]
        plan = await services.plans.get(workflow.tenant_id, workflow.plan_digest)
        snapshot, reads = Snapshot(workflow=workflow), Reads()
        for fact in facts:
            read_for(fact, plan=plan, reads=reads)
        await loading.load(connection, {workflow_id: (snapshot, reads)})
        draft = Draft(snapshot, plan=plan, now=now, rules=services.rules)
        undecided = [fact for fact in facts if settling.keep(draft, fact)]
        workflow.updated_at, workflow.revision = now, workflow.revision + 1
        await workflows.apply(connection, [draft.transition])
        await dues.apply_later(
            connection, workflow=workflow_id, kept=[(fact.call_id, fact.attempt_id) for fact in undecided]
        )

    await transactions.run(services.database, "record-alone", work, size=ALONE)


async def told_again(
    connection: transactions.Connection, *, workflow_id: UUID, call_id: UUID, attempts: Sequence[UUID]
) -> list[Fact]:
    """The facts of a call whose evidence was committed without its decision, rebuilt from its rows."""
    return [
        CallSettled(
            call_id=call_id,
            attempt_id=row.attempt_id,
            step=row.step,
            kept=True,
            outcome=Outcome(
                certainty=AttemptOutcome(row.outcome),
                failure=None if row.failure is None else Failure.from_json(row.failure),
                evidence=None
                if row.body is None
                else Evidence(body=row.body, media_type=row.media_type, truncated=row.truncated),
                status_code=row.status_code,
                request_id=row.request_id,
            ),
        )
        for row in await payloads.undecided(connection, workflow_id=workflow_id, call_id=call_id, attempts=attempts)
    ]
