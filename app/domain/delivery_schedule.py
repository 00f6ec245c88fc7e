"""When a webhook is tried again: 0, 5 s, 5 m, 30 m, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h, with jitter; given up when the
*event* is too old, so that what queues behind a dead head does not arrive months later."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from app.domain.recovery import jitter

PAUSES: Final = tuple(
    timedelta(seconds=seconds) for seconds in (5, 300, 1800, 7200, 5 * 3600, 10 * 3600, 14 * 3600, 20 * 3600, 24 * 3600)
)
"""Between two attempts; after the last it stays daily until the event is too old."""

SPREAD: Final = 0.2
"""Up to this part longer, so that the deliveries of one outage do not return together."""


def next_attempt(
    *, now: datetime, attempts: int, event_at: datetime, expiry: timedelta, retry_after: float | None, delivery: UUID
) -> datetime | None:
    """When attempt `attempts + 1` may start, or None: given up. `attempts` were made."""
    pause = PAUSES[min(attempts, len(PAUSES)) - 1]
    pause = pause * (1 + SPREAD * jitter(delivery))
    if retry_after is not None:
        pause = max(pause, timedelta(seconds=retry_after))
    at = now + pause
    return None if at > event_at + expiry else at
