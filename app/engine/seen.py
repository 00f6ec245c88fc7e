"""What one worker process has seen of the tools and models it calls, in memory: a success alone writes nothing.

Told with the next failure, so that a breaker weighs failures against what those who saw them have seen. Lost with the
process: then a failure weighs more for half a minute.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from app.domain.outcomes import Usage

Place = tuple[UUID, str]

MOST: Final = 10_000
"""Dependencies that are remembered: definitions name them, so there is no end to their number."""
WEIGHT: Final = 0.2
"""Of the latest call in the average of what a call takes: the last dozen calls count."""
TELL_AGAIN: Final = 1.0
"""Seconds between two words about the same model's limits, unless it refuses: they change with every answer."""
TIDY_EVERY: Final = 60.0
"""Seconds between two looks for rows that nobody needs any more."""


@dataclass(slots=True)
class _One:
    successes: int = 0
    since: float = 0.0
    input_tokens: float = 0.0
    output_tokens: float = 0.0
    told_at: float = float("-inf")


class Seen:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._all: dict[Place, _One] = {}
        self._tidied = clock()
        self.welcomed = False
        """Whether calls that wait because of another worker's credential were told of this one."""

    def answered(self, place: Place, *, window: float) -> None:
        one, now = self._of(place), self._clock()
        if now - one.since > window:
            one.successes, one.since = 0, now
        one.successes += 1

    def tell_successes(self, place: Place, *, window: float) -> int:
        """Those of the window that were not told yet."""
        one = self._of(place)
        told = one.successes if self._clock() - one.since <= window else 0
        one.successes = 0
        return told

    def used(self, place: Place, usage: Usage) -> None:
        one = self._of(place)
        taken = (
            usage.input_tokens + usage.cache_write_tokens
        )  # what is read from the cache is not counted by the limits
        one.input_tokens = _average(one.input_tokens, taken)
        one.output_tokens = _average(one.output_tokens, usage.output_tokens)

    def per_call(self, place: Place) -> tuple[float, float]:
        """Input and output tokens of a call, on average; 0: not known."""
        one = self._of(place)
        return one.input_tokens, one.output_tokens

    def tells(self, place: Place) -> bool:
        """Whether it is time to tell the others of its limits again."""
        one, now = self._of(place), self._clock()
        if now - one.told_at < TELL_AGAIN:
            return False
        one.told_at = now
        return True

    def tidies(self) -> bool:
        now = self._clock()
        if now - self._tidied < TIDY_EVERY:
            return False
        self._tidied = now
        return True

    def _of(self, place: Place) -> _One:
        if place not in self._all and len(self._all) >= MOST:
            self._all.clear()
        return self._all.setdefault(place, _One())


def _average(before: float, now: int) -> float:
    return float(now) if before == 0 else before + WEIGHT * (now - before)
