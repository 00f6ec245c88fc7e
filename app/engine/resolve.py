"""Settle a doubt by a person's word. Idempotent: the same verdict again changes nothing, another one is refused.

"It did not happen" is believed only after the quarantine: until `not_before` a request that already left may still
take effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from app.domain import ids
from app.domain.aggregate import Snapshot
from app.domain.facts import DoubtResolved, Fact
from app.domain.outcomes import JSON
from app.domain.states import CallState
from app.engine import transactions
from app.engine.advance import advance_one, instant
from app.engine.services import Services
from app.errors import AlreadyResolved, NotFound, NotInDoubt, QuarantineActive
from app.store import calls, submissions

VERDICTS: Final = ("happened", "did_not_happen", "abandon")


async def resolve(
    services: Services, tenant_id: UUID, call_id: UUID, *, outcome: str, result: JSON, note: str, by: str
) -> None:
    """Raises NotFound, NotInDoubt, AlreadyResolved, QuarantineActive (with `not_before` and Retry-After)."""

    async def find(connection: transactions.Connection) -> tuple[calls.Place | None, datetime]:
        found = await calls.place(connection, tenant_id=tenant_id, call_id=call_id)
        return found, await submissions.clock(connection)

    place, now = await transactions.run(services.database, "operate", find, size=services.settings.pool_size)
    if place is None:
        raise NotFound(f"There is no effect {ids.encode('call', call_id)}.")
    fact = DoubtResolved(call_id=call_id, step=place.step, verdict=outcome, result=result, note=note, by=by)

    def make(snapshot: Snapshot) -> Sequence[Fact]:
        call = snapshot.calls[call_id]
        if call.state != CallState.IN_DOUBT:
            said = (call.resolved or {}).get("outcome")
            if said == outcome:
                return []
            if said is not None:
                raise AlreadyResolved(f"{call.resolved['by']} said {said} at {call.resolved['at']}.")
            raise NotInDoubt(f"The effect is {call.state}.", extra={"state": call.state})
        if outcome == "did_not_happen" and call.not_before is not None and now < call.not_before:
            raise _quarantined(call.not_before, now)
        return [fact]

    await advance_one(services, place.workflow_id, [fact], make=make)


def _quarantined(not_before: datetime, now: datetime) -> QuarantineActive:
    left = (not_before - now).total_seconds()
    return QuarantineActive(
        f"Until {instant(not_before.astimezone(UTC))} ({left:.0f} s) the request may still take effect.",
        extra={"not_before": instant(not_before.astimezone(UTC))},
        retry_after=max(1.0, left),
    )
