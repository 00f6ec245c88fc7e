"""Durations as people write them: `250ms`, `10s`, `1.5h`, `7d`.

Promises: one number and one unit, nothing implied; what is refused says what to write instead. Never reads a clock.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

MILLISECOND: Final = timedelta(milliseconds=1)
LONGEST: Final = timedelta(days=3650)
"""Ten years: beyond it a duration is a slip, and date arithmetic in the database could overflow."""

_FORM: Final = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,3}))?(ms|s|m|h|d)", re.ASCII)
_UNITS: Final = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}


class DurationError(ValueError):
    """The text is not a duration. The message says why, in one sentence."""


def parse_duration(text: object) -> timedelta:
    """`90s` → a timedelta, at least one millisecond and at most ten years. Raises `DurationError`."""
    if isinstance(text, bool) or not isinstance(text, str):
        raise DurationError(f"A duration is text with a unit, as 250ms, 10s, 5m, 2h or 7d, not {_shown(text)}.")
    match = _FORM.fullmatch(text)
    if match is None:
        raise DurationError(f"{_shown(text)} is not a duration; write a number and a unit: 250ms, 10s, 5m, 2h or 7d.")
    whole, fraction, unit = match.groups()
    number = float(f"{whole}.{fraction or 0}")
    if number * _UNITS[unit].total_seconds() > LONGEST.total_seconds():
        raise DurationError(f"{text} is longer than ten years.")
    duration = _UNITS[unit] * number
    if duration < MILLISECOND:
        raise DurationError(f"{text} is shorter than a millisecond.")
    return duration


def milliseconds(duration: timedelta) -> int:
    return round(duration / MILLISECOND)


def format_duration(duration: timedelta) -> str:
    """The shortest form that `parse_duration` reads back: `90s`, `2m`, `7d`."""
    total = milliseconds(duration)
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if total >= size and total % size == 0:
            return f"{total // size}{unit}"
    return f"{total}ms"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:39] + "…"
