"""Rate limits of a model, as the provider tells them, and what they let pass: pure arithmetic on one row.

    Allowances  what one response said: how much of each kind there is a minute, and how much is left
    Limits      the row that all workers share, per credential and model; there is none while nothing is short
    learned     the row after another response; `blocked_until` after a 429, so that siblings wait instead of asking
    admitted    how many calls may be sent now, and the row without what they will take

A row is *armed* while less than `NEAR` of a limit is left: only then calls are counted before they are sent. Like the
provider's, the buckets fill up evenly. What a call takes is an average of what was seen; the next response corrects it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

NEAR: Final = 0.1
"""Share of a limit below which what is left is handed out call by call: about six seconds of a minute's limit."""
FAR: Final = 0.5
"""Share above which nothing is short any more. Well above `NEAR`, so that a row is not written back and forth."""
ARMED_FOR: Final = timedelta(minutes=1)
"""What the provider said is true of the minute it spoke of."""
MINUTE: Final = 60.0
BLOCKED_BY_DEFAULT: Final = timedelta(seconds=5)
"""After a 429 that does not say until when."""
BLOCKED_AT_MOST: Final = timedelta(hours=1)
"""A longer retry-after is believed only up to this: as long as the call itself waits."""
RAMP: Final = 10
"""Calls a sweep lets go after a block if nobody said how many there may be."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """One kind of limit, as a response told it."""

    limit: int
    """A minute."""
    remaining: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Allowances:
    """What one response said about the limits of its credential and model; None: nothing about that kind."""

    requests: Window | None = None
    input_tokens: Window | None = None
    output_tokens: Window | None = None

    @property
    def least(self) -> float | None:
        """The smallest share that is left of any limit; None if none was told."""
        told = (self.requests, self.input_tokens, self.output_tokens)
        shares = [window.remaining / window.limit for window in told if window is not None and window.limit]
        return min(shares, default=None)

    @property
    def near(self) -> bool:
        return self.least is not None and self.least < NEAR


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Field names are the columns of `limits`. `_left`: what the buckets held at `refilled_at`."""

    scope: str
    requests: int | None = None
    requests_left: float | None = None
    input_tokens: int | None = None
    input_left: float | None = None
    output_tokens: int | None = None
    output_left: float | None = None
    input_per_call: float = 0.0
    output_per_call: float = 0.0
    blocked_until: datetime | None = None
    armed_until: datetime | None = None
    refilled_at: datetime
    updated_at: datetime

    def blocked(self, now: datetime) -> bool:
        return self.blocked_until is not None and self.blocked_until > now

    def armed(self, now: datetime) -> bool:
        return self.armed_until is not None and self.armed_until > now


@dataclass(frozen=True, kw_only=True, slots=True)
class Heard:
    """What one attempt heard about the limits of its model."""

    allowances: Allowances | None
    rate_limited: bool
    retry_after: timedelta | None
    input_per_call: float
    """Tokens, on average, as this process saw them."""
    output_per_call: float


def fresh(scope: str, *, now: datetime) -> Limits:
    return Limits(scope=scope, refilled_at=now, updated_at=now)


def learned(row: Limits, heard: Heard, *, now: datetime) -> Limits:
    """The provider's word replaces our guess where it is less; ours stays where calls that it did not count yet are
    under way."""
    row = replace(
        refilled(row, now=now),
        updated_at=now,
        input_per_call=heard.input_per_call or row.input_per_call,
        output_per_call=heard.output_per_call or row.output_per_call,
    )
    if heard.rate_limited:
        wait = min(heard.retry_after or BLOCKED_BY_DEFAULT, BLOCKED_AT_MOST)
        row = replace(row, blocked_until=max(row.blocked_until or now, now + wait))
    told = heard.allowances
    if told is None or told.least is None:
        return row
    ours = row if row.armed(now) else fresh(row.scope, now=now)
    row = replace(
        row,
        requests=_limit(told.requests),
        requests_left=_least(told.requests, ours.requests_left),
        input_tokens=_limit(told.input_tokens),
        input_left=_least(told.input_tokens, ours.input_left),
        output_tokens=_limit(told.output_tokens),
        output_left=_least(told.output_tokens, ours.output_left),
    )
    if told.near or heard.rate_limited:
        return replace(row, armed_until=now + ARMED_FOR)
    return replace(row, armed_until=None) if told.least > FAR else row


def _limit(told: Window | None) -> int | None:
    return None if told is None else told.limit


def _least(told: Window | None, ours: float | None) -> float | None:
    if told is None:
        return None
    return float(told.remaining) if ours is None else min(ours, float(told.remaining))


def refilled(row: Limits, *, now: datetime) -> Limits:
    seconds = max((now - row.refilled_at).total_seconds(), 0.0)
    return replace(
        row,
        requests_left=_filled(row.requests_left, row.requests, seconds),
        input_left=_filled(row.input_left, row.input_tokens, seconds),
        output_left=_filled(row.output_left, row.output_tokens, seconds),
        refilled_at=max(now, row.refilled_at),
    )


def _filled(left: float | None, limit: int | None, seconds: float) -> float | None:
    return None if left is None or limit is None else min(float(limit), left + limit * seconds / MINUTE)


def admitted(row: Limits, *, wanted: int, now: datetime) -> tuple[int, Limits]:
    """How many of `wanted` calls may be sent now. Nobody while the provider's block lasts."""
    if row.blocked(now):
        return 0, row
    if not row.armed(now):
        return min(wanted, RAMP) if row.blocked_until is not None else wanted, row
    row = refilled(row, now=now)
    n = min(
        wanted,
        _room(row.requests_left, row.requests, each=1.0),
        _room(row.input_left, row.input_tokens, each=row.input_per_call),
        _room(row.output_left, row.output_tokens, each=row.output_per_call),
    )
    return n, replace(
        row,
        requests_left=_less(row.requests_left, n * 1.0),
        input_left=_less(row.input_left, n * row.input_per_call),
        output_left=_less(row.output_left, n * row.output_per_call),
    )


_ANY: Final = 1_000_000
"""More calls than any sweep looks at."""


def _room(left: float | None, limit: int | None, *, each: float) -> int:
    """How many fit. One that takes more than the whole limit may go when the bucket is full: the provider's word about
    it is better than a wait for ever. If nobody knows yet what one takes, something must be left at least."""
    if left is None or limit is None:
        return _ANY
    return int(left / min(max(each, 1.0), max(float(limit), 1.0)))


def _less(left: float | None, by: float) -> float | None:
    return None if left is None else max(left - by, 0.0)
