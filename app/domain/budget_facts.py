"""Facts about budgets: part of `app/domain/facts.py`, where the union of all facts is."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from app.domain.accounts import Limits


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetExceeded:
    """Left behind: a call was to become due, and no end of other calls can make room for it any more."""

    call_id: UUID
    step: str


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetFreed:
    """Left behind: a reservation was taken back, so calls that wait for room are read."""

    freed: int
    """How often in this decision: tells one round from the next."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetLooked:
    """A call has waited for room in its budget; it is looked at again, should nobody have told it."""

    call_id: UUID
    step: str


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetRaised:
    """Somebody topped a budget up."""

    scope: str
    added: Limits
    note: str | None
    by: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DurationPassed:
    """The calls of a scope have taken as long as its budget allows."""

    scope: str


BudgetFact = BudgetExceeded | BudgetFreed | BudgetLooked | BudgetRaised | DurationPassed
