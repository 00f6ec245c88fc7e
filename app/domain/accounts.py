"""Budgets: what may be spent (`Limits`), and the account of what was (`Account`), one row a scope. Pure arithmetic.

    scope       "" is the whole workflow, else the path of a step: its items share it, because their paths begin with it
    measure     microusd, tokens, turns, tool_calls: reserved before, settled after; `duration` and `recovery` are only
                looked at
    reserve     sets aside what a call may take at worst; never more than there is room for
    settle      takes a reservation back and writes down what was really taken

The law, also a CHECK of the table: spent + reserved ≤ limit + overrun, for every measure at every instant. `overrun` is
how far the truth went beyond a worst case that was no upper bound after all (a provider that counts otherwise, a lost
attempt's late bill): it is written down and told, never hidden, and never makes room for anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from app.domain.outcomes import JSON

MEASURES: Final = ("microusd", "tokens", "turns", "tool_calls")
ESTIMATED: Final = ("microusd", "tokens")
"""Measures whose real amount is known only afterwards."""
WHOLE: Final = ""
"""The scope of the whole workflow."""
FAIL: Final = "fail"
PAUSE: Final = "pause"
ON_EXCEEDED: Final = (FAIL, PAUSE)
NEARLY: Final = 80
"""Per cent of a limit from which on a person is told."""

Amounts = Mapping[str, int]
"""Measure → how much; what is absent is 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """A `budget` as it was declared. None: no limit."""

    microusd: int | None = None
    tokens: int | None = None
    turns: int | None = None
    tool_calls: int | None = None
    duration: timedelta | None = None
    """Of the time in which a call is due or in flight: waiting for people does not count."""
    recovery_microusd: int | None = None
    """Of what attempts cost that had to be repeated. Only of the whole workflow."""
    on_exceeded: str | None = None
    """`fail` | `pause`; None: as around it, else `fail`."""

    @property
    def priced(self) -> bool:
        """Whether it cannot be kept without the price of every model."""
        return self.microusd is not None or self.recovery_microusd is not None

    @property
    def limited(self) -> bool:
        """Whether it limits anything."""
        return any(limit is not None for name, limit in self.to_json().items() if name != "on_exceeded")

    def under(self, other: Limits | None) -> Limits:
        """With what `other` says in place of its own, key by key."""
        if other is None:
            return self
        names = ("microusd", "tokens", "turns", "tool_calls", "duration", "recovery_microusd", "on_exceeded")
        said = {name: getattr(other, name) for name in names if getattr(other, name) is not None}
        return Limits(**{name: said.get(name, getattr(self, name)) for name in names})

    def to_json(self) -> dict[str, JSON]:
        return {
            "microusd": self.microusd,
            "tokens": self.tokens,
            "turns": self.turns,
            "tool_calls": self.tool_calls,
            "duration_ms": None if self.duration is None else milliseconds(self.duration),
            "recovery_microusd": self.recovery_microusd,
            "on_exceeded": self.on_exceeded,
        }

    @staticmethod
    def from_json(value: Mapping[str, JSON]) -> Limits:
        told = {name: value.get(name) for name in (*MEASURES, "recovery_microusd", "on_exceeded")}
        duration = value.get("duration_ms")
        return Limits(**told, duration=None if duration is None else timedelta(milliseconds=duration))


def milliseconds(duration: timedelta) -> int:
    return round(duration / timedelta(milliseconds=1))


@dataclass(slots=True, kw_only=True)
class Account:
    """A row of `budgets`; field names are column names."""

    workflow_id: UUID
    scope: str
    tenant_id: UUID
    on_exceeded: str = FAIL
    limit_microusd: int | None = None
    limit_tokens: int | None = None
    limit_turns: int | None = None
    limit_tool_calls: int | None = None
    limit_ms: int | None = None
    limit_recovery_microusd: int | None = None
    spent_microusd: int = 0
    spent_tokens: int = 0
    spent_turns: int = 0
    spent_tool_calls: int = 0
    reserved_microusd: int = 0
    reserved_tokens: int = 0
    reserved_turns: int = 0
    reserved_tool_calls: int = 0
    overrun_microusd: int = 0
    overrun_tokens: int = 0
    spent_ms: int = 0
    """Of the duration, up to `active_since`."""
    active_since: datetime | None = None
    """A call of the scope is due or in flight since then."""
    open_calls: int = 0
    """Calls of the scope that are due, in flight or being probed."""
    warned: bool = False
    """That it is nearly used up was told."""
    exceeded: bool = False
    """That it did not allow a call was told; a top-up takes that back."""

    # --- reading -------------------------------------------------------------------------------------------------

    def covers(self, path: str) -> bool:
        return self.scope == WHOLE or path == self.scope or path.startswith(f"{self.scope}.")

    def limit(self, measure: str) -> int | None:
        found: int | None = getattr(self, f"limit_{measure}")
        return found

    def spent(self, measure: str) -> int:
        return int(getattr(self, f"spent_{measure}"))

    def reserved(self, measure: str) -> int:
        return int(getattr(self, f"reserved_{measure}"))

    def room(self, measure: str) -> int | None:
        """What is neither spent nor reserved; None: there is no limit."""
        limit = self.limit(measure)
        return None if limit is None else limit - self.spent(measure) - self.reserved(measure)

    def active_ms(self, now: datetime) -> int:
        """Time that its calls took until now."""
        running = timedelta(0) if self.active_since is None else max(now - self.active_since, timedelta(0))
        return self.spent_ms + milliseconds(running)

    def out_of_time(self, now: datetime) -> bool:
        return self.limit_ms is not None and self.active_ms(now) >= self.limit_ms

    def nearly_spent(self, now: datetime) -> str | None:
        """A measure of which four fifths are spent, or None."""
        for measure in MEASURES:
            limit = self.limit(measure)
            if limit is not None and self.spent(measure) * 100 >= limit * NEARLY:
                return measure
        if self.limit_ms is not None and self.active_ms(now) * 100 >= self.limit_ms * NEARLY:
            return "duration"
        return None

    # --- writing -------------------------------------------------------------------------------------------------

    def reserve(self, wanted: Amounts) -> None:
        """Raises ValueError if there is no room: whoever reserves has looked before."""
        for measure in MEASURES:
            amount, room = wanted.get(measure, 0), self.room(measure)
            if amount and room is not None and amount > room:
                raise ValueError(f"{measure}: {amount} do not fit into {room} of the budget {self.scope!r}")
            self._add("reserved", measure, amount)

    def settle(self, reserved: Amounts, taken: Amounts) -> bool:
        """A reservation comes to its end. Whether more was taken than there was room for."""
        for measure in MEASURES:
            self._add("reserved", measure, -reserved.get(measure, 0))
            self._add("spent", measure, taken.get(measure, 0))
        return self._note_overrun()

    def raise_limits(self, added: Limits) -> None:
        """Top-up: only limits that there are can be raised."""
        for measure in MEASURES:
            more: int | None = getattr(added, measure)
            limit = self.limit(measure)
            if more is not None and limit is not None:
                setattr(self, f"limit_{measure}", limit + more)
        if added.duration is not None and self.limit_ms is not None:
            self.limit_ms += milliseconds(added.duration)
        if added.recovery_microusd is not None and self.limit_recovery_microusd is not None:
            self.limit_recovery_microusd += added.recovery_microusd
        for measure in ESTIMATED:
            setattr(self, f"overrun_{measure}", self._beyond(measure))
        self.exceeded = False

    def _note_overrun(self) -> bool:
        over = False
        for measure in ESTIMATED:
            beyond = self._beyond(measure)
            if beyond > getattr(self, f"overrun_{measure}"):
                over = True
                setattr(self, f"overrun_{measure}", beyond)
        return over

    def _beyond(self, measure: str) -> int:
        room = self.room(measure)
        return 0 if room is None else max(-room, 0)

    def _add(self, what: str, measure: str, amount: int) -> None:
        name = f"{what}_{measure}"
        setattr(self, name, getattr(self, name) + amount)
