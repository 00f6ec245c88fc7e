"""One call, once: claim, perform, record, ring. What a Celery task and the sweep's local feed run.

    claim    a transaction: the intent is committed before any byte leaves
    perform  no transaction: self-fence, then the world (`app/engine/send.py`), under the attempt's send deadline
    record   a transaction: evidence and decision (`app/engine/record.py`)

The process may die at every line. Before the claim's commit nothing happened; between it and the record the attempt is
`intended` and the sweep, or late evidence, decides by the effect class; after the record's commit the bell is only a
hint. A doorbell rung twice finds nothing due.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final
from uuid import UUID

import psycopg
import structlog
from uuid_utils.compat import uuid7

from app.domain import ids
from app.domain.facts import Fact, KeyExpired, MayHaveHappened, SwitchedOff
from app.domain.outcomes import Outcome
from app.domain.states import ENGINE_VERSION
from app.engine import depend, record, send, switch, transactions
from app.engine.advance import advance_one
from app.engine.gather import Gatherer
from app.engine.lease import Lease, boot_time
from app.engine.sending import Sending, Watch
from app.engine.services import Services
from app.store import claims
from app.store.claims import Claimed

log = structlog.get_logger(__name__)

KNOWN_VERSIONS: Final = (ENGINE_VERSION,)

CLAIM_TRIES: Final = 3
"""Flushes in which a call that is due, but whose row somebody held, is asked for; then the sweep has it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    call_id: UUID
    attempt_id: UUID


async def perform(services: Services, call_id: UUID) -> None:
    """Perform the call if it is due. Never raises for what the world does."""
    lease = services.lease
    if lease is None or not lease.may_claim():
        return
    before_claim = boot_time()
    worker_id = lease.worker_id
    asked = Asked(call_id=call_id, attempt_id=uuid7())
    claimed = await _claimed(services, lease, asked)
    if claimed is None:
        return
    with structlog.contextvars.bound_contextvars(
        workflow_id=ids.encode("wf", claimed.workflow_id), step=claimed.step, call=ids.encode("call", call_id)
    ):
        refused = _refused(claimed)
        if isinstance(refused, SwitchedOff):
            await switch.hold_call(services, claimed.tenant_id, claimed.workflow_id, refused)
            return
        if refused is not None:
            await advance_one(services, claimed.workflow_id, [refused], purpose="expire")
            return
        await _perform_claimed(services, lease, claimed, worker_id=worker_id, before_claim=before_claim)


async def _claimed(services: Services, lease: Lease, asked: Asked) -> Claimed | None:
    """Claimed, or found with something before it that the door decides about. None: not due, or held meanwhile."""
    for _ in range(CLAIM_TRIES):
        claimed, locked = await _claim_for_certain(services, lease, asked)
        if claimed is not None and _stands_back(claimed):
            if not await depend.stand_back(services, claimed):
                return None
        elif not locked:
            return claimed
    return None


def _stands_back(claimed: Claimed) -> bool:
    """Whether nothing but the state of what it calls is in its way."""
    return (claimed.stands is not None or claimed.short is not None) and _refused(claimed) is None


def _refused(claimed: Claimed) -> Fact | None:
    """Why a call that is due was not claimed after all: for the one door to decide about."""
    if claimed.key_expired:
        return KeyExpired(call_id=claimed.call_id, step=claimed.step)
    if claimed.lost_past:
        return MayHaveHappened(call_id=claimed.call_id, step=claimed.step)
    if claimed.switched_off is not None:
        return SwitchedOff(call_id=claimed.call_id, step=claimed.step, scope=claimed.switched_off)
    return None


async def _perform_claimed(
    services: Services, lease: Lease, claimed: Claimed, *, worker_id: UUID, before_claim: float
) -> None:
    sending = Sending(lease=lease, claimed=claimed, partials=services.partials)
    deadline = before_claim + claimed.timeout_ms / 1000
    lease.opened(
        claimed.call_id,
        claimed.attempt_id,
        sending.revoked,
        worker_id=worker_id,
        deadline=deadline,
        harmless=sending.harmless,
    )
    watch = _watch(services, lease)
    watch.sendings[claimed.attempt_id] = sending
    try:
        outcome = await _outcome(services, claimed, sending, deadline=deadline)
        await record.record(services, claimed, outcome)
    finally:
        lease.closed(claimed.attempt_id)
        watch.sendings.pop(claimed.attempt_id, None)


async def _outcome(services: Services, claimed: Claimed, sending: Sending, *, deadline: float) -> Outcome:
    """Of an attempt that was claimed, whatever happens: without one it would be open until its deadline."""
    try:
        return await sending.run(send.send(services, claimed, sending, deadline=deadline))
    except Exception as error:
        return send.broken(error, sent=sending.sent)


def _watch(services: Services, lease: Lease) -> Watch:
    if services.watch is None:
        services.watch = Watch(lease)
    return services.watch


# --- claim ---------------------------------------------------------------------------------------------------------


def _claims(services: Services) -> Gatherer[Asked, tuple[Claimed | None, bool]]:
    if services.claims is None:
        services.claims = Gatherer(partial(claim, services), limit=services.settings.batch)
    return services.claims


async def _claim_for_certain(services: Services, lease: Lease, asked: Asked) -> tuple[Claimed | None, bool]:
    """Ask until the database answers, or we are told to end: a claim whose reply was lost may be committed, and then
    nobody but us would perform it before its deadline."""
    pause = record.PAUSE
    while True:
        try:
            return await _claims(services).submit(asked)
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            if lease.draining.is_set() or not transactions.lost(error):
                raise
            log.info("claim.database_away", error=str(error)[:200], after=pause)
        await asyncio.sleep(pause)
        pause = min(pause * 2, record.LONGEST_PAUSE)


async def claim(services: Services, batch: Sequence[Asked]) -> list[tuple[Claimed | None, bool]]:
    """(what was claimed, whether somebody held the row) for each. Repeated with the same attempt ids if the COMMIT's
    reply is lost: then what is intended with our attempt id is ours."""
    lease = services.lease
    if lease is None:
        return [(None, False)] * len(batch)
    settings, worker = services.settings, lease.worker_id
    unique = {asked.call_id: asked for asked in batch}  # the same bell twice in one batch: one attempt

    async def work(connection: transactions.Connection) -> tuple[dict[UUID, Claimed], set[UUID]]:
        asked = [(one.call_id, one.attempt_id) for one in unique.values()]
        got = await claims.claim(
            connection,
            asked,
            worker=worker,
            versions=KNOWN_VERSIONS,
            key_margin=settings.key_margin,
            credential=services.credential,
        )
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
