"""The circuit breaker of one dependency, and its retry budget: pure arithmetic on one row.

    told        the row after one outcome was counted, and what follows for the call
    closed      every call may go again
    story       what happened, as a sentence for people

A row exists only once something was wrong. `closed` counts failures in a window; enough of them, and more than the
successes that those who saw them had seen, open it: nothing is sent until `until`. Then one call is let through, the
canary (`app/store/breakers.py` grants it): its answer closes the row, its failure opens it for twice as long. `parked`
is the same for a credential that is not accepted, or has spent its limit: one failure is enough, and the tries are
minutes apart.

The retry budget is a bucket of tokens: each repeat takes one, and one that finds none waits until there would be one.
Tokens come with time and with successes, so that a dependency that fails half of the time is not also flooded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from app.domain.rules import Rules
from app.domain.states import BreakerState

PARKED_FOR: Final = timedelta(minutes=1)
PARKED_AT_MOST: Final = timedelta(minutes=10)
"""Between two canaries of a credential that is not accepted: nobody mends it in seconds."""
UNCLEAR_FOR: Final = timedelta(seconds=5)
"""Before the next canary after one that said nothing about the dependency."""
MOST_OPENED: Final = 30
"""Times in a row that are counted: enough for every pause to have reached its longest."""
STEPS_BACK: Final = 2
"""Doublings of the pause that one answered canary takes back: of the opening, and of one canary that failed. Were none
taken back, a model that fails half of its calls would be shut for minutes though every canary is answered: those who
waited go on together, meet what fails, and open it again."""
LONGEST_WAIT: Final = timedelta(minutes=1)
"""A repeat waits for a token of the retry budget no longer than this: it slows repeats down, and stops none."""
REASON_LIMIT: Final = 500
"""Characters of a failure's message that are kept on the row."""


class Verdict(StrEnum):
    """What one outcome says about the dependency."""

    ANSWERED = "answered"
    FAILED = "failed"
    REFUSED = "refused"
    """The credential is not accepted, or may spend no more."""
    NOTHING = "nothing"


@dataclass(frozen=True, kw_only=True, slots=True)
class Breaker:
    """Field names are the columns of `breakers`."""

    tenant_id: UUID
    scope: str
    state: str = BreakerState.CLOSED
    kind: str | None = None
    """Failure kind of the last failure that was counted."""
    reason: str | None = None
    """Its words."""
    failures: int = 0
    successes: int = 0
    window_began: datetime
    opened_at: datetime | None = None
    until: datetime | None = None
    """No canary before this."""
    opened: int = 0
    """How often in a row it was opened: each time for twice as long."""
    closed_at: datetime | None = None
    """Since when it has been closed, if it was open before."""
    canary: UUID | None = None
    """The call that was let through."""
    canary_until: datetime | None = None
    """It has to be claimed by then; afterwards it has the place for as long as it is in flight."""
    tokens: float
    refilled_at: datetime
    updated_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """One outcome, as it is counted."""

    verdict: Verdict
    kind: str | None = None
    message: str | None = None
    successes: int = 0
    """Answers that this process has had since it last told of a failure, within the window."""
    canary: bool = False
    """The call had been let through as this breaker's canary."""
    repeats: bool = False
    """The call may be repeated, which takes a token."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Advice:
    """What the decision about a failed call has to know."""

    scope: str
    reason: str
    shut_until: datetime | None = None
    """Nothing is sent before this; None: the breaker is closed."""
    wait: timedelta = timedelta(0)
    """How long until the retry budget has a token for this repeat."""


def fresh(tenant_id: UUID, scope: str, *, now: datetime, rules: Rules) -> Breaker:
    return Breaker(
        tenant_id=tenant_id,
        scope=scope,
        window_began=now,
        tokens=float(rules.retry_burst),
        refilled_at=now,
        updated_at=now,
    )


def told(row: Breaker, what: Told, *, now: datetime, rules: Rules) -> tuple[Breaker, Advice]:
    row = _refilled(replace(row, updated_at=now), what, now=now, rules=rules)
    match what.verdict:
        case Verdict.ANSWERED if what.canary:
            row = closed(row, now=now)
        case Verdict.NOTHING if what.canary:
            row = replace(row, canary=None, canary_until=None, until=now + UNCLEAR_FOR)
        case Verdict.REFUSED:
            row = _parked(_because(row, what), canary=what.canary, now=now)
        case Verdict.FAILED:
            row = _failed(_because(row, what), what, now=now, rules=rules)
    shut = None if row.state == BreakerState.CLOSED else row.until
    if shut is None and what.repeats and what.verdict is Verdict.FAILED:
        row, wait = _taken(row, rules=rules)
    else:
        wait = timedelta(0)
    return row, Advice(scope=row.scope, reason=story(row), shut_until=shut, wait=wait)


def closed(row: Breaker, *, now: datetime) -> Breaker:
    """Open no more. How often it was is kept, less `STEPS_BACK`: what was away for long and comes back soon is not
    asked as often as at first, what answers now and then is not left alone for longer and longer."""
    return replace(
        row,
        state=BreakerState.CLOSED,
        opened=max(row.opened - STEPS_BACK, 0),
        failures=0,
        successes=0,
        window_began=now,
        opened_at=None,
        until=None,
        closed_at=now,
        canary=None,
        canary_until=None,
    )


def _because(row: Breaker, what: Told) -> Breaker:
    return replace(row, kind=what.kind, reason=(what.message or "")[:REASON_LIMIT])


def _failed(row: Breaker, what: Told, *, now: datetime, rules: Rules) -> Breaker:
    if row.state == BreakerState.CLOSED and now - row.window_began > timedelta(seconds=rules.breaker_window):
        row = replace(row, failures=0, successes=0, window_began=now)
    row = replace(row, failures=row.failures + 1, successes=row.successes + what.successes)
    if row.state == BreakerState.PARKED:
        again = replace(row, canary=None, canary_until=None, until=now + UNCLEAR_FOR)
        return again if what.canary else row  # it says nothing about the credential
    if what.canary or (row.state == BreakerState.CLOSED and _enough(row, rules)):
        return _opened(row, now=now, rules=rules)
    return row


def _enough(row: Breaker, rules: Rules) -> bool:
    """Enough failures, and at least half of what those who saw them have seen."""
    return 0 < rules.breaker_failures <= row.failures and row.failures >= row.successes


def _opened(row: Breaker, *, now: datetime, rules: Rules) -> Breaker:
    opened = min(_in_a_row(row, now=now, rules=rules) + 1, MOST_OPENED)
    return replace(
        row,
        state=BreakerState.OPEN,
        opened=opened,
        opened_at=row.opened_at or now,
        closed_at=None,
        until=now + open_for(opened, rules),
        canary=None,
        canary_until=None,
    )


def _in_a_row(row: Breaker, *, now: datetime, rules: Rules) -> int:
    """How often it was opened before, unless it has held for longer than it would be shut now: that was other trouble.
    Without an end to the row what fails for moments would, after a day, be shut for minutes each time."""
    if row.closed_at is None:
        return row.opened
    held = now - row.closed_at
    return 0 if held > max(open_for(row.opened, rules), timedelta(seconds=rules.breaker_window)) else row.opened


def open_for(opened: int, rules: Rules) -> timedelta:
    return timedelta(seconds=min(rules.breaker_open * 2.0 ** max(opened - 1, 0), rules.breaker_open_longest))


def _parked(row: Breaker, *, canary: bool, now: datetime) -> Breaker:
    """One failure is enough. Those who were under way when it was parked put it off no further."""
    if row.state == BreakerState.PARKED and not canary:
        return row
    opened = min(row.opened + 1, MOST_OPENED) if row.state == BreakerState.PARKED else 1
    return replace(
        row,
        state=BreakerState.PARKED,
        opened=opened,
        opened_at=row.opened_at or now,
        closed_at=None,
        until=now + min(PARKED_FOR * 2.0 ** (opened - 1), PARKED_AT_MOST),
        canary=None,
        canary_until=None,
    )


def _refilled(row: Breaker, what: Told, *, now: datetime, rules: Rules) -> Breaker:
    seconds = max((now - row.refilled_at).total_seconds(), 0.0)
    earned = seconds * rules.retry_rate + what.successes * rules.retry_share
    return replace(
        row, tokens=min(float(rules.retry_burst), row.tokens + earned), refilled_at=max(now, row.refilled_at)
    )


def _taken(row: Breaker, *, rules: Rules) -> tuple[Breaker, timedelta]:
    """A token, or a place in the queue for one. What waits longest waits `LONGEST_WAIT`."""
    tokens = max(row.tokens - 1.0, -LONGEST_WAIT.total_seconds() * rules.retry_rate)
    wait = timedelta(seconds=-tokens / rules.retry_rate) if tokens < 0 else timedelta(0)
    return replace(row, tokens=tokens), min(wait, LONGEST_WAIT)


def named(scope: str) -> str:
    """What is called, for a sentence: `crm.search`, `the model claude-haiku-5-5`, `the model provider`."""
    kind, _, name = scope.partition(":")
    if kind == "tool":
        return name
    model = name.partition("/")[2]
    return "the model provider" if model in ("", "*") else f"the model {model}"


def story(row: Breaker) -> str:
    """What happened: "crm.search failed 6 of 7 times since 14:02:11. The last time: it did not answer."."""
    return told_as(
        {name: getattr(row, name) for name in ("scope", "state", "reason", "failures", "successes", "window_began")}
    )


def told_as(row: Mapping[str, Any]) -> str:
    """The same of a row as it was read."""
    who, why = named(row["scope"]), (row["reason"] or "").strip()
    head = who[:1].upper() + who[1:] if who.startswith("the ") else who
    if row["state"] == BreakerState.PARKED:
        return f"{head} does not let us go on: {why}" if why else f"{head} does not let us go on."
    seen = row["failures"] + row["successes"]
    since = row["window_began"].strftime("%H:%M:%S")
    last = f" The last time: {why}" if why else ""
    return f"{head} failed {row['failures']} of {seen} times since {since}.{last}"
