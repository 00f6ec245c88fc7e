"""What was read of one workflow to say why nothing moves, and what is said: `Situation` in, `Reason` out.

Rows are mappings with the column names of `app/store/tables.py`; `app/store/why_views.py` reads them in one
transaction, `why.py` and `why_calls.py` explain them. Pure: the clock is the database's, in `Situation.now`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

from app.domain.plan import Probe
from app.domain.states import DueKind
from app.domain.taken_tools import Taken
from app.domain.why_commands import Command

Row = Mapping[str, Any]

Kind = Literal[
    "approval",
    "doubt",
    "saga_held",
    "compensation_failed",
    "paused",
    "held",
    "restored",
    "no_worker",
    "nothing",
    "attached",
    "probing",
    "result",
    "worker_lost",
    "backing_off",
    "in_flight",
    "recording",
    "queued",
    "draining",
    "compensating",
]
"""Every kind of a reason, what most needs somebody first. `nothing` is a fault of ours."""

PERSON: Final = "a person"
OPERATOR: Final = "an operator"
TIME: Final = "nobody: it goes on by itself"
WORKER: Final = "a worker"

TITLE_LIMIT: Final = 120
"""Of a title, a reason or a name somebody gave, characters: it stands inside a sentence."""

ENDING_DUES: Final = frozenset({DueKind.DEADLINE, DueKind.STEP_TIMEOUT})
"""Dues that end something; they do not make it go on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reason:
    """One thing a workflow waits for. Ids are encoded; instants are the database's."""

    kind: Kind
    headline: str
    who: str
    step: str | None = None
    call: str | None = None
    effect: str | None = None
    approval: str | None = None
    reason: str | None = None
    """Of a held call: the word on its row."""
    since: datetime | None = None
    until: datetime | None = None
    not_before: datetime | None = None
    """Until then a request that left may still take effect."""
    commands: tuple[Command, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Situation:
    """What was read of one workflow, in one transaction."""

    workflow: Row
    now: datetime
    calls: Sequence[Row] = ()
    """Those that are not settled, and those whose undo failed."""
    attempts: Sequence[Row] = ()
    """The attempt at the fence of each call in flight, with `worker_name`, `worker_lost_at`, `worker_lease_until`."""
    dues: Sequence[Row] = ()
    approvals: Sequence[Row] = ()
    """Open ones."""
    switches: Sequence[Row] = ()
    dependencies: Sequence[Row] = ()
    """Breakers and rate limits that calls of this workflow wait for."""
    pause: Row | None = None
    """`by`, `reason`, `at` of the last pause."""
    verdicts: Mapping[UUID, Sequence[str]] = field(default_factory=dict)
    """Call → what its probes said so far: found, absent, unclear."""
    undo_failures: Mapping[UUID, Row] = field(default_factory=dict)
    """Effect → `reason` and `at` of the last failure of its undo."""
    owners: Mapping[UUID, Row] = field(default_factory=dict)
    """Call → `workflow_id`, `step`, `state` of the call that owns the business key it is attached to."""
    probes: Mapping[str, Probe] = field(default_factory=dict)
    """Tool → its probe, as the plan says."""
    ahead: Mapping[UUID, int] = field(default_factory=dict)
    """Due call → how many are due before it."""
    workers: Sequence[int] = ()
    """The engine versions of the workers that are alive, one entry a worker."""
    budgets: Sequence[Row] = ()
    """Its own and those of its steps."""
    taken: Sequence[Taken] = ()
    """Tools that its agents may not use any more, or might not for a while."""
    switched: Sequence[Row] = ()
    """Agent steps whose model was switched: `path`, `name`, the `model` that goes on, and of the latest switch the
    failure's `kind` and `since` when."""
    more: int = 0
    """Open calls that were not read, because nobody reads that many."""
    restored: bool = False
    """The database is a restored one and effects are not claimed until an operator has said since when."""

    def due(self, kind: DueKind, ref: UUID) -> Row | None:
        return next((row for row in self.dues if row["kind"] == kind and row["ref"] == ref), None)
