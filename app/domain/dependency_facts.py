"""What happened to a call because of what it calls: a breaker or a rate limit stands before it, or does so no more."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID


@dataclass(frozen=True, kw_only=True, slots=True)
class DependencyDown:
    """A call became due, but what it calls is left in peace, or allows no more at the moment."""

    call_id: UUID
    step: str
    scope: str
    quota: bool
    """A rate limit stands before it, no breaker."""
    kind: str
    """The failure kind because of which."""
    reason: str
    """A sentence: what happened."""
    until: datetime
    """When it is looked at again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DependencyLooked:
    """A call that a breaker or a rate limit held may go now: as one of the first, or because all may."""

    call_id: UUID
    step: str


DependencyFact = DependencyDown | DependencyLooked
