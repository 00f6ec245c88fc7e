"""Durations and money as people read them: `5.75 s`, `2 h 05 m`, `$0.042`. The same in headlines, traces and the CLI.

Money comes in as integer micro-dollars and never passes through a float; an unknown price is None and is said to be
unknown, never shown as zero. Pure.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

MICRO: Final = 1_000_000
"""Micro-dollars in a dollar."""

_FEW: Final = 1000
"""Below a tenth of a cent, in micro-dollars, four decimals say too little."""
_SMALLEST: Final = 50
"""Below half a hundredth of a cent, in micro-dollars, four decimals would read as zero."""


def took(duration: timedelta | None) -> str:
    """`0.26 s`, `41.0 s`, `6 m 05 s`, `2 h 05 m`, `3 d 04 h`; `-` if it is not known."""
    if duration is None:
        return "-"
    seconds = max(duration.total_seconds(), 0.0)
    if round(seconds, 2) < 10:
        return f"{seconds:.2f} s"
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} m"
    return f"{whole // 86400} d {whole % 86400 // 3600:02d} h"


def usd(microusd: int | None) -> str | None:
    """The decimal text of `usd` members in JSON: `0.0264`, at least four decimals, exact; None if not known."""
    if microusd is None:
        return None
    text = f"{Decimal(microusd) / MICRO:.6f}"
    return text[:-2] + text[-2:].rstrip("0")


def dollars(microusd: int) -> str:
    """For a sentence: `$0.042`, `$0.50`, `$12.30`; four decimals at most, two at least."""
    if 0 < microusd < _SMALLEST:
        return "under $0.0001"
    if microusd >= MICRO:
        return f"${Decimal(microusd) / MICRO:.2f}"
    text = f"{Decimal(microusd) / MICRO:.4f}"
    return "$" + text[:-2] + text[-2:].rstrip("0")


def price(microusd: int) -> str:
    """For a column: `0.0121`; what four decimals would round away gets six."""
    return f"{Decimal(microusd) / MICRO:.{6 if 0 < microusd < _FEW else 4}f}"


def counted(number: int, noun: str, *, plural: str | None = None) -> str:
    """`1 step`, `2 steps`, `1,930 tries`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def clock(instant: datetime) -> str:
    """`10:24:02 UTC`; the day stands before it by the caller's choice."""
    return f"{instant:%H:%M:%S} UTC"


def moment(instant: datetime) -> str:
    """`2026-11-22 10:24:02 UTC`."""
    return f"{instant:%Y-%m-%d %H:%M:%S} UTC"
