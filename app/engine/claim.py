"""Claim calls that are due: the intent is committed before any byte leaves.

    claimed    one call, asked for until the database answers; what stands before it is looked at
    claim      many in a transaction of their own
    later      the same inside somebody else's transaction: the record that made them due (`app/engine/follow.py`)
    refused    why a call that is due was not claimed after all

A COMMIT whose reply is lost is asked again with the same attempt ids: what is intended with our attempt id is ours.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final
from uuid import UUID

import psycopg
import structlog

from app.domain.facts import Fact, KeyExpired, MayHaveHappened, SwitchedOff
from app.domain.states import ENGINE_VERSION
from app.engine import depend, transactions
from app.engine.gather import Gatherer
from app.engine.lease import Lease
from app.engine.services import Services
from app.store import claims
from app.store.claims import Claimed

log = structlog.get_logger(__name__)

KNOWN_VERSIONS: Final = (ENGINE_VERSION,)

TRIES: Final = 3
"""Flushes in which a call that is due, but whose row somebody held, is asked for; then the sweep has it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    call_id: UUID
    attempt_id: UUID


async def claimed(services: Services, lease: Lease, asked: Asked) -> Claimed | None:
    """Claimed, or found with something before it that the door decides about. None: not due, or held meanwhile."""
    for _ in range(TRIES):
        found, locked = await _for_certain(services, lease, asked)
        if found is not None and _stands_back(found):
            if not await depend.stand_back(services, found):
                return None
        elif not locked:
            return found
    return None


def _stands_back(found: Claimed) -> bool:
    """Whether nothing but the state of what it calls is in its way."""
    return (found.stands is not None or found.short is not None) and refused(found) is None


def refused(found: Claimed) -> Fact | None:
    """Why a call that is due was not claimed after all: for the one door to decide about."""
    if found.key_expired:
        return KeyExpired(call_id=found.call_id, step=found.step)
    if found.lost_past:
        return MayHaveHappened(call_id=found.call_id, step=found.step)
    if found.switched_off is not None:
        return SwitchedOff(call_id=found.call_id, step=found.step, scope=found.switched_off)
    return None


async def _for_certain(services: Services, lease: Lease, asked: Asked) -> tuple[Claimed | None, bool]:
    """Ask until the database answers, or we are told to end: a claim whose reply was lost may be committed, and then
    nobody but us would perform it before its deadline."""
    pause = transactions.AWAY_PAUSE
    while True:
        try:
            return await _gatherer(services).submit(asked)
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            if lease.draining.is_set() or not transactions.lost(error):
                raise
            log.info("claim.database_away", error=str(error)[:200], after=pause)
        await asyncio.sleep(pause)
        pause = min(pause * 2, transactions.LONGEST_AWAY_PAUSE)


def _gatherer(services: Services) -> Gatherer[Asked, tuple[Claimed | None, bool]]:
    if services.claims is None:
        services.claims = Gatherer(partial(claim, services), limit=services.settings.batch)
    return services.claims


async def claim(services: Services, batch: Sequence[Asked]) -> list[tuple[Claimed | None, bool]]:
    """(what was claimed, whether somebody held the row) for each."""
    lease = services.lease
    if lease is None:
        return [(None, False)] * len(batch)
    worker = lease.worker_id
    # The same bell twice in one batch is one attempt, of who asked first: its place is the one that the call's name
    # stands for in this process's pool, and what follows it is claimed with its record only there.
    unique: dict[UUID, Asked] = {}
    for asked in batch:
        unique.setdefault(asked.call_id, asked)

    async def work(connection: transactions.Connection) -> tuple[dict[UUID, Claimed], set[UUID]]:
        got = await claims.told(await later(services, connection, unique.values(), worker=worker))
        found = {one.call_id: one for one in got}
        rest = [one.call_id for one in unique.values() if one.call_id not in found]
        return found, await claims.still_due(connection, rest) if rest else set()

    found, locked = await transactions.run(services.database, "claim", work, one_statement=True)
    answer: list[tuple[Claimed | None, bool]] = []
    for asked in batch:
        got = found.get(asked.call_id)
        mine = got is not None and (got.attempt_id == asked.attempt_id)
        answer.append((got if mine else None, asked.call_id in locked))
    return answer


async def later(
    services: Services, connection: transactions.Connection, batch: Iterable[Asked], *, worker: UUID
) -> claims.Cursor:
    """Send the statement; `claims.told` reads what it claimed. In a pipeline that may wait until after COMMIT."""
    return await claims.ask(
        connection,
        [(one.call_id, one.attempt_id) for one in batch],
        worker=worker,
        versions=KNOWN_VERSIONS,
        key_margin=services.settings.key_margin,
        credential=services.credential,
    )
