"""What a decision about a conversation leaves behind because it needs more rows: decided in the same transaction."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from app.domain.outcomes import Failure


@dataclass(frozen=True, kw_only=True, slots=True)
class ContextSummarised:
    """A model has summarised its conversation: the step's task and effects are read before the next one begins."""

    step: str
    call_id: UUID
    """Of the summary."""
    summary: str
    was_cut: bool
    """It was longer than an answer may be."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSwitched:
    """Another model is to go on with a conversation in which there is thinking that it cannot read: its messages are
    read, and go on without it as the next conversation."""

    step: str
    call_id: UUID
    """Of the call that failed."""
    failure: Failure
