"""The next call of a workflow, claimed by the transaction that records the one before it.

    intend    inside the record's transaction: the calls it made due, as far as their place in this process is sure
    begin     after its COMMIT: what was claimed runs in the place of the call before it
    look_again    after an outcome that could only be recorded alone: what an earlier try may have committed

A call that is to run here next needs no bell and no claim of its own: its intent is on disk with the outcome that made
it due, in one commit instead of two. The same statement claims it, so that all that may stand before a call stands
before this one; what it does not claim is due like any other, and rung for.

The process may die at every line. Before the COMMIT nothing happened. After it the outcome is recorded and the next
attempt is `intended`: as after any claim, and the sweep decides by the effect class. A COMMIT whose reply was lost is
asked again with the attempt ids that the outcomes carry (`Settled.intents`), however often it is tried: what is
intended with one of them is ours, until it was handed over once (`Intent.begun`).

The place is there before anything is claimed: the call before it holds it until its record has returned.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from uuid_utils.compat import uuid7

from app.domain.facts import CallSettled
from app.domain.reads import Reads
from app.domain.states import DueKind
from app.domain.transition import Transition
from app.engine import claim, transactions
from app.engine.advance import due_now
from app.engine.claim import Asked
from app.engine.lease import Lease, boot_time
from app.engine.services import Ready, Services
from app.store import claims
from app.store.claims import Claimed

LOOKS: Final = 3
"""Times that it is asked for what an earlier try may have committed."""


@dataclass(kw_only=True, slots=True)
class Intent:
    """A call that was asked for together with an outcome."""

    asked: Asked
    worker_id: UUID
    """The incarnation it was asked for under: another one may not send it."""
    at: float
    """Boot time before its transaction: its deadline counts from here."""
    tries: int = 0
    """Transactions that have asked for it."""
    begun: bool = False
    """It was handed to the pool. From then on it is not asked for again: its attempt is ours for as long as it is on
    its way, and would be handed over, and sent, a second time."""


@dataclass(kw_only=True, slots=True)
class Settled:
    """An outcome that is to be recorded. The same object each time it is tried."""

    workflow_id: UUID
    fact: CallSettled
    ahead: Reads = field(default_factory=Reads)
    """What its decision will surely read."""
    intents: dict[UUID, Intent] = field(default_factory=dict)
    """By call: what one of the tries has asked for, and may have committed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Intended:
    """What a transaction has asked for, and the answer to it."""

    intents: dict[UUID, Intent]
    after: dict[UUID, list[UUID]]
    """By workflow: the calls that were recorded."""
    cursor: claims.Cursor


async def intend(
    services: Services,
    connection: transactions.Connection,
    transitions: Sequence[Transition],
    recorded: Mapping[UUID, Sequence[Settled]],
) -> Intended | None:
    """Claim the next call of each workflow that may go on here. None: there is none. `recorded`: by workflow."""
    lease = services.lease
    if lease is None or services.feed is None:
        return None
    if lease.may_claim():
        for transition in transitions:
            items = recorded[transition.workflow.id]
            if (due := due_now(transition, DueKind.CALL)) and services.feed.follows(_calls(items)):
                _note(items[0], due[0], lease)
    intents = _unbegun([item for items in recorded.values() for item in items])
    if not intents:
        return None
    for intent in intents.values():
        intent.tries += 1
    wanted = [intent.asked for intent in intents.values()]
    cursor = await claim.later(services, connection, wanted, worker=lease.worker_id)
    return Intended(intents=intents, after={w: _calls(items) for w, items in recorded.items()}, cursor=cursor)


def _calls(items: Sequence[Settled]) -> list[UUID]:
    return [item.fact.call_id for item in items]


def _unbegun(items: Sequence[Settled]) -> dict[UUID, Intent]:
    return {call: intent for item in items for call, intent in item.intents.items() if not intent.begun}


def _note(item: Settled, call_id: UUID, lease: Lease) -> None:
    asked = Asked(call_id=call_id, attempt_id=uuid7())
    item.intents.setdefault(call_id, Intent(asked=asked, worker_id=lease.worker_id, at=boot_time()))


async def begin(services: Services, intended: Intended | None) -> set[UUID]:
    """After the COMMIT: run what was claimed. The workflows that go on here."""
    if intended is None:
        return set()
    going: set[UUID] = set()
    for found in await claims.told(intended.cursor):
        intent = intended.intents[found.call_id]
        if found.granted and found.attempt_id == intent.asked.attempt_id:
            going.add(found.workflow_id)
            _take(services, found, intent, after=intended.after[found.workflow_id])
    return going


def in_question(items: Sequence[Settled]) -> bool:
    """Whether an earlier try may have claimed what the last one did not find: somebody may have held its row."""
    return any(intent.tries > 1 for intent in _unbegun(items).values())


async def look_again(services: Services, items: Sequence[Settled], *, looks: int = LOOKS) -> None:
    """After an outcome was recorded in another way: what an earlier try has asked for may have been committed by it.

    Asked several times: a row that somebody (a sweep) holds for a moment is not in the answer, and nobody but us would
    perform the call before its deadline.
    """
    for look in range(looks):
        intents = _unbegun(items)
        if not intents:
            return
        for found, _ in await claim.claim(services, [intent.asked for intent in intents.values()]):
            if found is not None and found.granted:
                _take(services, found, intents[found.call_id], after=_calls(items))
        if look < looks - 1 and _unbegun(items):
            await asyncio.sleep(transactions.PAUSE)


def _take(services: Services, found: Claimed, intent: Intent, *, after: Sequence[UUID]) -> None:
    assert services.feed is not None, "nothing was asked for where nothing is fed"
    intent.begun = True
    services.ready[found.call_id] = Ready(claimed=found, worker_id=intent.worker_id, before_claim=intent.at)
    services.feed.take(found.call_id, after)
