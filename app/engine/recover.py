"""After a restore or a failover: what may have happened in the lost time goes in doubt, then effects are claimed again.

    notice     every sweep looks whether this is the database that last worked for us; says once that it is not
    recover    `surefoot recover`: an operator says to which instant the database was set back, or that nothing is lost

While the identity is not the one on record, no effect is claimed (`store.identity.SAME` in the claim); model calls and
what changes nothing go on. Recovering is a row of short transactions, and dying after any of them is harmless:

    close      the record matches nothing: effects wait, even if the identity never changed (files that were put back)
    restore    batches of workflows that are alive: marked, and their open effects parked (`domain/restoring.py`)
    accept     the identity is on record, and what was done in the audit log: effects are claimed again

Done again it finds the same workflows and nothing left to send in them. A workflow that cannot be decided keeps the
door closed, and is named. Never: guesses whether something was lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import structlog

from app.domain import ids
from app.domain.facts import DatabaseRestored, Fact
from app.domain.states import CallState
from app.domain.transition import Transition
from app.engine import transactions
from app.engine.advance import Advanced, advance, instant
from app.engine.services import Services
from app.errors import NotRecovered
from app.store import identity, submissions
from app.store.identity import Identity

log = structlog.get_logger(__name__)

BATCH: Final = 20
"""Workflows in one transaction: each is read with everything that is open in it."""

FIRST: Final = UUID(int=0)

NAMED: Final = 20
"""Workflows that a refusal names; the log has them all."""

COMMAND: Final = "surefoot recover --since <when the database was set back to>"


@dataclass(frozen=True, kw_only=True, slots=True)
class Recovered:
    """What was done, or in a dry run would be: workflows, and what became of their open effects."""

    identity: Identity
    since: datetime | None
    """None: nothing was lost."""
    workflows: int = 0
    """That were alive and may have lost something."""
    in_doubt: int = 0
    """A person says what happened; those that were in doubt before are among them."""
    probing: int = 0
    abandoned: int = 0
    """Given up without asking: declared so (`on_unknown_outcome: abandon`)."""
    repeated: int = 0
    """Made again as they were: safe by declaration."""
    held: int = 0
    """Wait for something else, and are looked at when they would be sent."""


class _DryRun(Exception):
    """Rolls a batch back and carries what it would have done."""

    def __init__(self, advanced: Advanced) -> None:
        super().__init__("a dry run writes nothing")
        self.advanced = advanced


async def notice(services: Services) -> None:
    """Put the identity on record if there is none; say once, over all processes, that it is not the recorded one."""

    async def look(connection: transactions.Connection) -> tuple[Identity, bool]:
        found = await identity.read(connection)
        if found.actual is None:
            return found, False
        if found.recorded is None:
            await identity.record(connection)
            return found, False
        return found, found.changed and await identity.notice(connection, found.actual)

    found, first = await transactions.run(services.database, "sweep", look, one_statement=True)
    if first:
        log.error("database_restored", recorded=found.recorded, actual=found.actual, effects="held", fix=COMMAND)


async def recover(
    services: Services, *, since: datetime | timedelta | None, by: str, dry_run: bool = False
) -> Recovered:
    """`since`: the instant the database was set back to, or how long ago that is; earlier is safer. None: nothing was
    lost (a standby that had everything, an upgrade). Raises NotRecovered: nothing was changed (a standby, an instant to
    come), or effects are still held afterwards; then the same again."""
    await _expect_migrated(services)
    found, to = await _begin(services, since=since, close=since is not None and not dry_run)
    done = Recovered(identity=found, since=to)
    failed: list[UUID] = []
    after: UUID | None = FIRST
    while to is not None and after is not None:
        alive, after = await _alive(services, after)
        for start in range(0, len(alive), BATCH):
            batch = alive[start : start + BATCH]
            transitions, stuck = await _restore(services, batch, to=to, dry_run=dry_run)
            failed += stuck
            for transition in transitions:
                done = _counted(done, transition)
    if failed:
        named = ", ".join(ids.encode("wf", each) for each in failed[:NAMED])
        raise NotRecovered(
            f"{len(failed)} workflows could not be decided, and every effect is held until they can: {named}.",
            fix="The log above says why; the same command again goes on with them.",
        )
    if not dry_run:
        await _accept(services, done, by=by)
    return done


async def _expect_migrated(services: Services) -> None:
    """A database that was set back may be older than this code, which could then decide about nothing in it."""
    # Here and not above: every worker looks in here once a second (`notice`), and Alembic would be 7 MB of each.
    from app.store import migrating

    async def work(connection: transactions.Connection) -> str | None:
        return await migrating.version(connection)

    at = await transactions.run(services.database, "recover", work)
    if at != migrating.head():
        raise NotRecovered(
            f"The database is at migration {at or 'none'}, this code needs {migrating.head()}.",
            fix="Run surefoot migrate first, then the same command again.",
        )


async def _begin(
    services: Services, *, since: datetime | timedelta | None, close: bool
) -> tuple[Identity, datetime | None]:
    async def work(connection: transactions.Connection) -> tuple[Identity, datetime]:
        found, now = await identity.read(connection), await submissions.clock(connection)
        if close and found.actual is not None and _instant(since, now) <= now:
            await identity.close(connection)
        return found, now

    found, now = await transactions.run(services.database, "recover", work)
    if found.actual is None:
        raise NotRecovered("This database is a standby.", fix="Promote it, or name the primary.")
    if since is None:
        return found, None
    to = _instant(since, now)
    if to > now:
        raise NotRecovered(
            f"{instant(to)} is still to come: by the database's clock it is {instant(now)}.",
            fix="Give the instant the database was set back to; an earlier one is safe, too.",
        )
    return found, to


def _instant(since: datetime | timedelta | None, now: datetime) -> datetime:
    return now if since is None else now - since if isinstance(since, timedelta) else since


async def _alive(services: Services, after: UUID) -> tuple[list[UUID], UUID | None]:
    async def work(connection: transactions.Connection) -> tuple[list[UUID], UUID | None]:
        return await identity.alive(connection, after=after)

    return await transactions.run(services.database, "recover", work, one_statement=True)


async def _restore(
    services: Services, workflows: Sequence[UUID], *, to: datetime, dry_run: bool
) -> tuple[list[Transition], list[UUID]]:
    """(what was decided, workflows that could not be). One that breaks the batch does not keep the others from it."""
    facts: dict[UUID, Sequence[Fact]] = {workflow: [DatabaseRestored(to=to)] for workflow in workflows}

    async def work(connection: transactions.Connection) -> Advanced:
        advanced = await advance(services, connection, facts)
        if dry_run:
            raise _DryRun(advanced)
        return advanced

    try:
        return (await transactions.run(services.database, "recover", work)).transitions, []
    except _DryRun as dry:
        return dry.advanced.transitions, []
    except Exception as error:
        if transactions.lost(error):
            raise
        if len(workflows) == 1:
            log.exception("recover.workflow_failed", workflow=str(workflows[0]))
            return [], list(workflows)
    transitions: list[Transition] = []
    failed: list[UUID] = []
    for workflow in workflows:
        alone, stuck = await _restore(services, [workflow], to=to, dry_run=dry_run)
        transitions += alone
        failed += stuck
    return transitions, failed


def _counted(done: Recovered, transition: Transition) -> Recovered:
    if transition.workflow.restored_to is None:
        return done  # nothing in its plan changes the world
    states = [call.state for call in transition.calls.values() if call.lost_past or call.state == CallState.ABANDONED]
    return replace(
        done,
        workflows=done.workflows + 1,
        in_doubt=done.in_doubt + states.count(CallState.IN_DOUBT),
        probing=done.probing + states.count(CallState.PROBING),
        abandoned=done.abandoned + states.count(CallState.ABANDONED),
        repeated=done.repeated + states.count(CallState.DUE) + states.count(CallState.INTENDED),
        held=done.held + states.count(CallState.HELD),
    )


async def _accept(services: Services, done: Recovered, *, by: str) -> None:
    actual = done.identity.actual or ""
    counts = {name: value for name, value in asdict(done).items() if isinstance(value, int)}
    since = None if done.since is None else instant(done.since)

    async def work(connection: transactions.Connection) -> bool:
        accepted = await identity.accept(connection, actual)
        if accepted:
            data = {"since": since, "recorded": done.identity.recorded, "actual": actual, **counts}
            await identity.audit(connection, actor=by, action="database.recovered", data=data)
        return accepted

    if not await transactions.run(services.database, "recover", work):
        raise NotRecovered(
            "The database has become another one meanwhile; every effect is held.", fix="Run the same command again."
        )
    log.info("database_recovered", since=since, identity=actual, by=by)
