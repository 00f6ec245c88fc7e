"""Why calls wait for what they call: one reason for each breaker and each rate limit, however many calls it holds.

`Situation.dependencies` are rows of `breakers` and `limits`, those that stand before calls of this workflow. Pure.
"""

from __future__ import annotations

from typing import Final

from app.domain import ids, why_commands
from app.domain.amounts import clock, counted
from app.domain.breakers import named, told_as
from app.domain.plain import clipped
from app.domain.situation import OPERATOR, TIME, Reason, Row, Situation
from app.domain.states import BreakerState, CallState, DueKind, HeldReason

REASONS: Final = frozenset({HeldReason.BREAKER, HeldReason.QUOTA})
_LIMIT: Final = 400
"""Characters of what a provider said."""


def reasons(situation: Situation) -> list[Reason]:
    scopes: dict[tuple[str, HeldReason], list[Row]] = {}
    for call in situation.calls:
        if call["state"] == CallState.HELD and call["held_reason"] in REASONS:
            due = situation.due(DueKind.DEPENDENCY, call["id"]) or {}
            scopes.setdefault((str(due.get("note") or ""), HeldReason(call["held_reason"])), []).append(call)
    return [_reason(situation, scope, held, calls) for (scope, held), calls in scopes.items()]


def _reason(situation: Situation, scope: str, held: HeldReason, calls: list[Row]) -> Reason:
    row = next((found for found in situation.dependencies if found["scope"] == scope), None)
    looked = [due["ring_at"] for call in calls if (due := situation.due(DueKind.DEPENDENCY, call["id"])) is not None]
    next_look = min(looked, default=None)
    waits = f"{'at least ' if situation.more else ''}{counted(len(calls), 'call')} held"
    parked = row is not None and row.get("state") == BreakerState.PARKED
    until = None if row is None else row.get("until") if held is HeldReason.BREAKER else row.get("blocked_until")
    until = until if until is not None and until > situation.now else next_look
    again = f"; the next try is at {clock(until)}" if until is not None and until > situation.now else ""
    first = calls[0]
    return Reason(
        kind="held",
        headline=clipped(_story(row, scope, held), _LIMIT).rstrip(".") + f"; {waits}{again}.",
        reason=held,
        step=first["step"] if len(calls) == 1 else None,
        call=ids.encode("call", first["id"]) if len(calls) == 1 else None,
        since=None if row is None else row.get("opened_at"),
        until=until,
        who=OPERATOR if parked else TIME,
        commands=(why_commands.show_breakers(), *((why_commands.reset_breaker(scope),) if scope and row else ())),
    )


def _story(row: Row | None, scope: str, held: HeldReason) -> str:
    who = named(scope) if scope else "what it calls"
    if held is HeldReason.QUOTA:
        return f"The rate limit of {who} is reached: calls are let go as the provider allows, each tenant in its turn"
    if row is None or row.get("state") == BreakerState.CLOSED:
        return f"{who} answers again: what waited for it is let go, a few each second"
    return told_as(row)
