"""The numbers a decision needs from the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """The numbers a decision needs from the settings."""

    poison_after: int = 5
    """Workers that a call may lose in a row."""
    items_limit: int = 100_000
    """Items of one for_each."""
    model_windows: Mapping[str, int] = field(default_factory=dict)
    """Tokens that a model takes, by its id, where the server's operator knows it better than the built-in table."""
    breaker_failures: int = 5
    """Failures of a dependency, within a window, that open its breaker; 0: none does."""
    breaker_window: float = 30.0
    """Seconds."""
    breaker_open: float = 5.0
    """Seconds before the first canary; doubled each time in a row."""
    breaker_open_longest: float = 300.0
    """Seconds."""
    retry_burst: int = 20
    """Tokens of a retry budget that is full."""
    retry_rate: float = 1.0
    """Tokens a second."""
    retry_share: float = 0.2
    """Tokens for each success."""
