"""Settle a doubt by a person's word. Idempotent: the same verdict again changes nothing, another one is refused.

"It did not happen" is believed only after the quarantine: until `not_before` a request that already left may still
take effect.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from app.domain import ids
from app.domain.aggregate import Call, Snapshot
from app.domain.facts import DoubtResolved, Fact
from app.domain.outcomes import JSON
from app.domain.plan import Plan
from app.domain.states import CallState
from app.engine import transactions
from app.engine.advance import advance_one, instant
from app.engine.services import Services
from app.errors import AlreadyResolved, InvalidValue, NotFound, NotInDoubt, QuarantineActive, SurefootError
from app.store import calls, doubts, submissions
from app.store.doubts import Filter

__all__ = ["VERDICTS", "Bulk", "Filter", "Refused", "resolve", "resolve_many"]

VERDICTS: Final = ("happened", "did_not_happen", "abandon", "probe")


async def resolve(
    services: Services, tenant_id: UUID, call_id: UUID, *, outcome: str, result: JSON, note: str, by: str
) -> None:
    """Raises InvalidValue, NotFound, NotInDoubt, AlreadyResolved, QuarantineActive (with `not_before` and
    Retry-After)."""
    _check(outcome)

    async def find(connection: transactions.Connection) -> tuple[calls.Place | None, datetime]:
        found = await calls.place(connection, tenant_id=tenant_id, call_id=call_id)
        return found, await submissions.clock(connection)

    place, now = await transactions.run(services.database, "operate", find, size=services.settings.pool_size)
    if place is None:
        raise NotFound(f"There is no effect {ids.encode('call', call_id)}.")
    fact = DoubtResolved(call_id=call_id, step=place.step, verdict=outcome, result=result, note=note, by=by)

    def make(snapshot: Snapshot, plan: Plan) -> Sequence[Fact]:
        return [fact] if _judge(snapshot.calls[call_id], outcome=outcome, plan=plan, now=now) else []

    await advance_one(services, place.workflow_id, [fact], make=make)


def _check(outcome: str) -> None:
    if outcome not in VERDICTS:
        raise InvalidValue(f"outcome is {outcome!r:.40}.", fix=f"Send one of {', '.join(VERDICTS)}.")


def _judge(call: Call, *, outcome: str, plan: Plan, now: datetime) -> bool:
    """Whether the verdict is to be taken; False if it was taken already. Raises what stands against it."""
    if call.state == CallState.PROBING:
        if outcome == "probe":
            return False
        raise NotInDoubt(
            "Its tool's probe is being asked; it is in doubt only if that cannot tell.",
            extra={"state": call.state, "possible": ["wait"]},
        )
    if call.state != CallState.IN_DOUBT:
        said = (call.resolved or {}).get("outcome")
        if said == outcome:
            return False
        if said is not None:
            raise AlreadyResolved(f"{call.resolved['by']} said {said} at {call.resolved['at']}.")
        raise NotInDoubt(f"The effect is {call.state}.", extra={"state": call.state})
    if outcome == "did_not_happen" and call.not_before is not None and now < call.not_before:
        raise _quarantined(call.not_before, now)
    if outcome == "probe" and plan.tools[call.tool or ""].probe is None:
        raise InvalidValue(f"{call.tool} declares no probe.", fix="Look at the tool yourself and say what happened.")
    return True


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    call_id: UUID
    code: str
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Bulk:
    """What one word settled. In a dry run `resolved` is what it would settle."""

    matched: int
    """Effects in doubt that the filter means, at most `limit`."""
    resolved: int
    refused: list[Refused]


async def resolve_many(
    services: Services,
    tenant_id: UUID,
    *,
    filter: Filter,
    outcome: str,
    note: str,
    by: str,
    limit: int,
    dry_run: bool,
) -> Bulk:
    """One word about every doubt the filter means, oldest first; what cannot be settled is told for each. Each workflow
    is a transaction of its own: dying in between leaves the rest in doubt, and the same again goes on there. Raises
    InvalidValue."""
    _check(outcome)

    async def find(connection: transactions.Connection) -> tuple[list[doubts.Doubt], datetime]:
        found = await doubts.listed(connection, tenant_id=tenant_id, filter=filter, limit=limit)
        return found, await submissions.clock(connection)

    found, now = await transactions.run(services.database, "operate", find, size=services.settings.pool_size)
    by_workflow: dict[UUID, list[doubts.Doubt]] = defaultdict(list)
    for doubt in found:
        by_workflow[doubt.workflow_id].append(doubt)
    resolved, refused = 0, []
    for workflow_id, meant in by_workflow.items():
        facts, told = await _resolve_in(
            services, workflow_id, meant, outcome=outcome, note=note, by=by, now=now, dry_run=dry_run
        )
        resolved += facts
        refused += told
    return Bulk(matched=len(found), resolved=resolved, refused=refused)


async def _resolve_in(
    services: Services,
    workflow_id: UUID,
    meant: Sequence[doubts.Doubt],
    *,
    outcome: str,
    note: str,
    by: str,
    now: datetime,
    dry_run: bool,
) -> tuple[int, list[Refused]]:
    facts = [
        DoubtResolved(call_id=d.call_id, step=d.step, verdict=outcome, result=None, note=note, by=by) for d in meant
    ]
    taken: list[DoubtResolved] = []
    refused: list[Refused] = []

    def make(snapshot: Snapshot, plan: Plan) -> Sequence[Fact]:
        taken.clear()  # a transaction that is repeated judges anew
        refused.clear()
        for fact in facts:
            try:
                if _judge(snapshot.calls[fact.call_id], outcome=outcome, plan=plan, now=now):
                    taken.append(fact)
            except SurefootError as error:
                refused.append(Refused(call_id=fact.call_id, code=error.code, detail=error.detail))
        return [] if dry_run else taken

    await advance_one(services, workflow_id, facts, make=make)
    return len(taken), refused


def _quarantined(not_before: datetime, now: datetime) -> QuarantineActive:
    left = (not_before - now).total_seconds()
    return QuarantineActive(
        f"Until {instant(not_before.astimezone(UTC))} ({left:.0f} s) the request may still take effect.",
        extra={"not_before": instant(not_before.astimezone(UTC))},
        retry_after=max(1.0, left),
    )
