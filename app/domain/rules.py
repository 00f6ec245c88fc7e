"""The numbers a decision needs from the settings."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """The numbers a decision needs from the settings."""

    poison_after: int = 5
    """Workers that a call may lose in a row."""
    items_limit: int = 100_000
    """Items of one for_each."""
