"""What a provider's answer says about its rate limits: the `anthropic-ratelimit-…` headers, read once for each answer.

    read      headers → `Allowances`, None if they say nothing
    attached  the outcome of an attempt with them

When a bucket is full again is said, too (`…-reset`), and not read: buckets fill up evenly, so a limit and what is left
of it say the same. `retry-after` is read with the error (`app/ports/model_failures.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from app.domain.outcomes import Outcome
from app.domain.quotas import Allowances, Window

_MOST: Final = 10**12
"""More than any provider allows: a longer number is a mistake, and no column holds it."""


def read(headers: Mapping[str, str]) -> Allowances | None:
    found = Allowances(
        requests=_window(headers, "requests"),
        input_tokens=_window(headers, "input-tokens"),
        output_tokens=_window(headers, "output-tokens"),
    )
    return None if found.least is None else found


def attached(outcome: Outcome, limits: Allowances | None) -> Outcome:
    return outcome if limits is None else replace(outcome, limits=limits)


def _window(headers: Mapping[str, str], kind: str) -> Window | None:
    """None for what is missing, or is no pair of whole numbers: a header is no reason for a failure."""
    texts = [headers.get(f"anthropic-ratelimit-{kind}-{what}", "") for what in ("limit", "remaining")]
    if not all(text.isascii() and text.isdigit() for text in texts):
        return None
    limit, remaining = int(texts[0]), int(texts[1])
    return Window(limit=limit, remaining=min(remaining, limit)) if 0 < limit <= _MOST else None
