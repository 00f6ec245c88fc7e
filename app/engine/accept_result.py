"""The result of a call that its tool accepted with a 202, brought by the tool itself with its one-time token.

It is the attempt's outcome, as if it had been the answer: on time, or as late evidence. The same result again is a
replay; another one after the attempt was settled is refused, but that it succeeded is heard of one whose answer was
lost: that settles a doubt, or contradicts what was said of it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from app.domain import canonical, ids
from app.domain.aggregate import Snapshot
from app.domain.facts import CallSettled, Fact
from app.domain.outcomes import JSON, Evidence, Failure, Outcome
from app.domain.plan import Plan
from app.domain.states import AttemptOutcome, CallState, FailureKind
from app.engine import result_tokens, transactions
from app.engine.advance import advance_one
from app.engine.services import Services
from app.errors import AlreadySettled, ResultTokenInvalid
from app.store import calls

_MEDIA_TYPE: Final = "application/json"


async def accept(
    services: Services, call_id: UUID, *, token: str, succeeded: bool, result: JSON, message: str | None
) -> None:
    """Raises ResultTokenInvalid (also for a call that does not exist), AlreadySettled."""
    attempt_id = await result_tokens.attempt_of(services, call_id=call_id, token=token)
    if attempt_id is None:
        raise ResultTokenInvalid

    async def find(connection: transactions.Connection) -> calls.Place | None:
        return await calls.place_anywhere(connection, call_id=call_id)

    place = await transactions.run(services.database, "operate", find, size=services.settings.pool_size)
    if place is None:
        raise ResultTokenInvalid
    outcome = _outcome(succeeded=succeeded, result=result, message=message)
    fact = CallSettled(call_id=call_id, attempt_id=attempt_id, step=place.step, outcome=outcome)

    def make(snapshot: Snapshot, plan: Plan) -> Sequence[Fact]:
        attempt = snapshot.calls[call_id].attempt(attempt_id)
        if attempt is None:
            raise ResultTokenInvalid
        if attempt.outcome is None:
            return [fact]
        if attempt.outcome == outcome.certainty:
            return []
        if attempt.outcome == AttemptOutcome.UNKNOWN and succeeded:  # its answer was lost, and this is news
            told = snapshot.calls[call_id].state == CallState.SUCCEEDED or attempt.evidence == _digest(outcome)
            return [] if told else [fact]
        raise AlreadySettled(
            f"This attempt has already {attempt.outcome}; the call is {snapshot.calls[call_id].state}.",
            extra={"call": ids.encode("call", call_id), "outcome": attempt.outcome},
        )

    await advance_one(services, place.workflow_id, [fact], make=make)


def _digest(outcome: Outcome) -> str | None:
    return None if outcome.evidence is None else canonical.sha256_hex(outcome.evidence.body)


def _outcome(*, succeeded: bool, result: JSON, message: str | None) -> Outcome:
    body = json.dumps(result, ensure_ascii=False).encode()
    evidence = Evidence(body=body, media_type=_MEDIA_TYPE)
    if succeeded:
        return Outcome(certainty=AttemptOutcome.SUCCEEDED, evidence=evidence)
    failure = Failure(
        kind=FailureKind.TOOL_ERROR,
        message=message or "The tool reported that it failed.",
        fix="Read the result the tool reported on this call.",
    )
    return Outcome(certainty=AttemptOutcome.FAILED, failure=failure, evidence=evidence)
