"""Which of the calls that a breaker or a rate limit holds may go now: few at a time, and every tenant in its turn.

Asked by the sweep about those whose time to be looked at has come, and never by the calls themselves: so an outage of
any length costs one statement a second, and its end is no stampede.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from app.domain import quotas, recovery
from app.domain.breakers import PARKED_FOR, Breaker, open_for
from app.domain.dependencies import SHARED
from app.domain.quotas import Limits
from app.domain.rules import Rules
from app.domain.states import BreakerState

Place = tuple[UUID, str]

AGAIN: Final = timedelta(seconds=1)
"""Until the next look at a call that a rate limit had no room for."""
TAKEN: Final = timedelta(seconds=2)
"""Until one that was let go is looked at again, should the process die before it went."""
_SPREAD: Final = 0.2
"""Share of a breaker's pause over which those that wait for its end are looked at."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiter:
    ref: UUID
    """The call."""
    tenant_id: UUID
    scope: str
    since: datetime

    @property
    def place(self) -> Place:
        return place_of(self.tenant_id, self.scope)


@dataclass(frozen=True, kw_only=True, slots=True)
class Released:
    go: Sequence[UUID] = ()
    looked_at: Mapping[UUID, datetime] = field(default_factory=dict)
    """Call → when it is looked at next. Those that go, too."""
    limits: Sequence[Limits] = ()
    """Rows without what those that go will take."""


def place_of(tenant_id: UUID, scope: str) -> Place:
    return (SHARED if scope.startswith("model:") else tenant_id, scope)


def release(
    waiting: Sequence[Waiter],
    *,
    breakers: Mapping[Place, Breaker],
    limits: Mapping[str, Limits],
    now: datetime,
    rules: Rules,
    credential: str,
) -> Released:
    """`credential`: of whoever sweeps; what waits because of another one may be this one's to make. `limits` may lack
    what somebody else is handing out: then the scope has no row, or is not in `waiting`."""
    by_place: dict[Place, list[Waiter]] = defaultdict(list)
    for waiter in waiting:
        by_place[waiter.place].append(waiter)
    go: list[UUID] = []
    looked_at: dict[UUID, datetime] = {}
    changed: list[Limits] = []
    for place, found in by_place.items():
        queue = in_turn(found)
        row, limit = breakers.get(place), limits.get(place[1])
        foreign = _of_another(place[1], credential)
        if foreign:
            row = limit = None
        shut = row if row is not None and row.state != BreakerState.CLOSED else None
        free = len(queue) if shut is None else _canaries(shut, now=now)
        free = min(free, quotas.RAMP) if foreign else free
        if limit is not None and free:
            free, after = quotas.admitted(limit, wanted=min(free, len(queue)), now=now)
            changed.append(after)
        go += [waiter.ref for waiter in queue[:free]]
        looked_at |= {waiter.ref: now + TAKEN for waiter in queue[:free]}
        for waiter in queue[free:]:
            looked_at[waiter.ref] = _next_look(waiter, shut, limit, now=now, rules=rules)
    return Released(go=go, looked_at=looked_at, limits=changed)


def _of_another(scope: str, credential: str) -> bool:
    return scope.startswith("model:") and not scope.startswith(f"model:{credential}/")


def in_turn(waiting: Sequence[Waiter]) -> list[Waiter]:
    """One of each tenant, then the second of each: who waits longest first among those of a tenant."""
    turns: dict[UUID, int] = defaultdict(int)
    placed = []
    for waiter in sorted(waiting, key=lambda one: (one.since, one.ref)):
        placed.append((turns[waiter.tenant_id], waiter.since, waiter.ref, waiter))
        turns[waiter.tenant_id] += 1
    return [waiter for *_, waiter in sorted(placed, key=lambda one: one[:3])]


def _canaries(row: Breaker, *, now: datetime) -> int:
    """One may ask to be the canary when it is time, and the one before has not just been let through."""
    if row.until is not None and row.until > now:
        return 0
    return 0 if row.canary_until is not None and row.canary_until > now else 1


def _next_look(waiter: Waiter, row: Breaker | None, limit: Limits | None, *, now: datetime, rules: Rules) -> datetime:
    if row is not None:
        return look_again_at(row, now=now, rules=rules) + _spread(waiter, row, rules)
    if limit is not None and limit.blocked_until is not None and limit.blocked_until > now:
        return limit.blocked_until
    return now + AGAIN


def look_again_at(row: Breaker, *, now: datetime, rules: Rules) -> datetime:
    """When it is time for a canary; while one is under way, when its answer has probably told everybody."""
    if row.until is not None and row.until > now:
        return row.until
    return now + _pause(row, rules)


def _pause(row: Breaker, rules: Rules) -> timedelta:
    return PARKED_FOR if row.state == BreakerState.PARKED else open_for(row.opened, rules)


def _spread(waiter: Waiter, row: Breaker, rules: Rules) -> timedelta:
    return _pause(row, rules) * (_SPREAD * recovery.jitter(waiter.ref))
