"""What a client submits, and what becomes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from app.domain.accounts import Limits
from app.domain.aggregate import Workflow
from app.domain.outcomes import JSON


@dataclass(frozen=True, kw_only=True, slots=True)
class Submission:
    tenant_id: UUID
    key: str
    fingerprint: str
    field_hashes: Mapping[str, str]
    definition: JSON
    """A tree, or None if `definition_text` carries the source."""
    definition_text: str | None
    source_name: str | None
    input: JSON
    labels: Mapping[str, str]
    webhook: JSON
    """`{"url", "events"}` or None."""
    deadline: timedelta | None
    traceparent: str | None
    budget: Limits | None = None
    """Stands for the definition's, key by key."""
    by: str = ""
    """Who submits: an approval may want somebody else."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """A workflow as it stood when it was accepted: what a reader of its rows would have seen at that commit.

    Told only of one that runs and waits for nothing but its own calls: that is nearly every one, and it spares the
    answer a read. Of others None is told, and they are read.
    """

    workflow: Workflow
    """With input and labels as they are read back."""
    busy: Sequence[str]
    """Paths of its steps that run, in document order; items are not among them."""
    due: bool
    """A call of it is due."""
    worker: bool
    """Some worker lives."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Submitted:
    workflow_id: UUID
    replayed: bool
    seen: Seen | None = None
