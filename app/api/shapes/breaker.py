"""A breaker: a tool or a model that kept failing, or whose provider lets no more through. None: nothing is wrong."""

from __future__ import annotations

from datetime import datetime

from app.api.shapes.values import Shape, id_or_none
from app.domain import breakers, quotas
from app.domain.breakers import Breaker
from app.domain.dependencies import SHARED
from app.domain.quotas import Limits
from app.domain.rules import Rules
from app.engine.depend import State


class Limit(Shape):
    limit: int
    """A minute."""
    left: int
    """As far as is known now."""


class RateLimits(Shape):
    requests: Limit | None
    input_tokens: Limit | None
    output_tokens: Limit | None
    near: bool
    """Less than a tenth of one was left: calls are let go one after another, each tenant in its turn."""
    blocked_until: datetime | None
    """The provider refuses until then (429)."""


class BreakerShape(Shape):
    scope: str
    """`tool:<name>`, `model:<credential>/<model id>`, or `model:<credential>/*` for all models of a credential."""
    state: str
    """closed, open, half_open or parked."""
    headline: str
    kind: str | None
    """Failure kind of the last failure that was counted."""
    reason: str | None
    failures: int
    seen: int
    """Of so many answers and failures."""
    since: datetime | None
    """When it opened."""
    until: datetime | None
    """Before that nothing is sent; then one call is let through."""
    canary: str | None
    """The call that was let through, while it is under way."""
    held: int
    """Calls of this tenant that wait for it."""
    retry_tokens: float
    """Repeats that may go at once; below 0 as many wait in line."""
    limits: RateLimits | None


class Reset(Shape):
    scope: str
    reset: bool
    """False: nothing was known of that scope."""
    released: int
    """Calls that go on because of it, within the next sweeps."""


def breaker_shapes(state: State, *, rules: Rules) -> list[BreakerShape]:
    """Every breaker, and every rate limit without one."""
    known = {row.scope for row in state.breakers}
    alone = [
        breakers.fresh(SHARED, scope, now=limit.refilled_at, rules=rules)
        for scope, limit in state.limits.items()
        if scope not in known
    ]
    return [_shape(row, state) for row in (*state.breakers, *alone)]


def _shape(row: Breaker, state: State) -> BreakerShape:
    limit = state.limits.get(row.scope)
    return BreakerShape(
        scope=row.scope,
        state=row.state,
        headline=_headline(row, limit, state.now),
        kind=row.kind,
        reason=row.reason,
        failures=row.failures,
        seen=row.failures + row.successes,
        since=row.opened_at,
        until=row.until,
        canary=id_or_none("call", row.canary),
        held=state.held.get(row.scope, 0),
        retry_tokens=round(row.tokens, 1),
        limits=None if limit is None else _limits(limit, state.now),
    )


def _headline(row: Breaker, limit: Limits | None, now: datetime) -> str:
    if row.state != "closed":
        return breakers.story(row)
    name = breakers.named(row.scope)
    who = f"{name[0].upper()}{name[1:]}" if name.startswith("the ") else name
    if limit is not None and limit.blocked(now):
        return f"{who} takes no more requests for now: its rate limit was reached."
    if limit is not None and limit.armed(now):
        return f"{who} is close to its rate limit."
    return f"{who} answers; {row.failures} failures were counted lately." if row.failures else f"{who} answers."


def _limits(limit: Limits, now: datetime) -> RateLimits:
    filled = quotas.refilled(limit, now=now)
    return RateLimits(
        requests=_one(filled.requests, filled.requests_left),
        input_tokens=_one(filled.input_tokens, filled.input_left),
        output_tokens=_one(filled.output_tokens, filled.output_left),
        near=filled.armed(now),
        blocked_until=limit.blocked_until if limit.blocked(now) else None,
    )


def _one(limit: int | None, left: float | None) -> Limit | None:
    return None if limit is None or left is None else Limit(limit=limit, left=int(left))
