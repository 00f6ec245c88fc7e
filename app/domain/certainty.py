"""From what was seen on the wire to what one attempt came to: `judge(observation, …)`, the only door.

A pure lookup in one table (`app/domain/certainty_table.py`) by what was seen, the status, the effect class and what
the tool declares.

It promises: only what is certain is called certain. Never sent is said only of what was seen before the first byte of
the request; failed only of an answer that says so; whatever lies between is unknown, and what is done about that is
decided by the effect class elsewhere (`app/domain/settling.py`). It never looks at a body.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from datetime import timedelta

from app.domain.certainty_table import SUCCESS, TABLE, UNSENT, Row
from app.domain.observations import Declaration, Observation, declarations
from app.domain.outcomes import JSON, Failure
from app.domain.states import AttemptOutcome, EffectClass

__all__ = [
    "SUCCESS",
    "TABLE",
    "UNSENT",
    "Declaration",
    "Observation",
    "Row",
    "Verdict",
    "declarations",
    "judge",
    "row_for",
]

NOTHING_DECLARED: frozenset[Declaration] = frozenset()


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    outcome: AttemptOutcome
    failure: Failure | None
    """None exactly if succeeded. `detail` holds `seen`; `not_executed: true` if the answer says that nothing was done
    (the engine repeats with the same key, whatever the class); `pending: true` beside `pending` below, so that a
    decision made later from the stored row knows it, too."""
    pending: bool = False


def row_for(
    observation: Observation,
    *,
    status: int | None,
    effect: EffectClass,
    declared: Set[Declaration] = NOTHING_DECLARED,
) -> Row:
    """The row of the table that speaks of this observation. There is always one."""
    if observation is Observation.ANSWER_CUT and status not in SUCCESS:
        observation = Observation.ANSWERED
        # An answer that is no success says what it says by its status; its body is for people.
    for row in TABLE:
        if row.fits(observation, status, effect, declared):
            return row
    raise ValueError(f"the certainty table has no row for {observation} {status}")


def judge(
    observation: Observation,
    *,
    effect: EffectClass,
    tool: str,
    status: int | None = None,
    declared: Set[Declaration] = NOTHING_DECLARED,
    detail: str = "",
    retry_after: timedelta | None = None,
    extras: dict[str, JSON] | None = None,
) -> Verdict:
    """What one attempt came to. `declared` is `declarations(tool)`; `detail` is a fragment for the message, free of
    secrets and payloads."""
    row = row_for(observation, status=status, effect=effect, declared=declared)
    if row.kind is None:
        return Verdict(outcome=row.outcome, failure=None)
    failure = Failure(
        kind=row.kind,
        message=row.message.format(tool=tool, status=status, detail=detail or "no more is known"),
        fix=row.fix,
        status_code=status,
        retry_after=retry_after,
        detail={"seen": observation.value, **_marks(row), **(extras or {})},
    )
    return Verdict(outcome=row.outcome, failure=failure, pending=row.pending)


def _marks(row: Row) -> dict[str, JSON]:
    """Left out where they do not hold: most failures carry neither."""
    marks: dict[str, JSON] = {"not_executed": row.not_executed, "pending": row.pending}
    return {name: mark for name, mark in marks.items() if mark}
