"""The rows a decision works on: one workflow and those of its steps, calls, attempts and approvals that concern it.

Field names are column names (`app/store/tables.py`); the store builds these from rows and writes them back. A
`Snapshot` is what was loaded under the workflow's lock; `decide` works on it and nothing else sees it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from app.domain.accounts import Account
from app.domain.histories import History
from app.domain.outcomes import JSON
from app.domain.states import AttemptOutcome, CallState, EffectClass


@dataclass(slots=True, kw_only=True)
class Workflow:
    id: UUID
    tenant_id: UUID
    name: str
    version: int | None = None
    definition_digest: str
    plan_digest: str
    engine_version: int
    status: str
    idempotency_key: str
    submitted_by: str = ""
    input: JSON
    output: JSON = None
    failure: JSON = None
    compensation: str | None = None
    labels: JSON
    attention: list[str] = field(default_factory=list)
    webhook: JSON = None
    cancel: JSON = None
    traceparent: str | None = None
    last_seq: int = 0
    revision: int = 0
    steps_total: int = 0
    steps_done: int = 0
    steps_open: int = 0
    open_calls: int = 0
    waits: int = 0
    timers: int = 0
    doubts: int = 0
    held: int = 0
    retries: int = 0
    effects_done: int = 0
    effects_undone: int = 0
    effects_abandoned: int = 0
    undos: int = 0
    """Effects whose compensation is recorded, running or failed: what a saga has before it."""
    undos_failed: int = 0
    """Of these: those that wait for an operator."""
    pivot_passed: bool = False
    saga: str | None = None
    """`held`: drained, an operator decides; `undo`, `keep`: decided by one."""
    restored_to: datetime | None = None
    """The database was set back to this instant while the workflow was alive: what it asks for may be done already."""
    duplicates_prevented: int = 0
    tools_disabled: JSON = None
    """Tools that agents may not use any more: name → failures, message, step, at."""
    spent_microusd: int = 0
    recovery_microusd: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    budgeted: bool = False
    """It has rows in `budgets`, which every decision about it reads."""
    deadline_at: datetime
    created_at: datetime
    started_at: datetime | None = None
    reopened_at: datetime | None = None
    """When it was last retried: its deadline counts from then."""
    updated_at: datetime
    ended_at: datetime | None = None


@dataclass(slots=True, kw_only=True)
class StepRow:
    workflow_id: UUID
    path: str
    tenant_id: UUID
    name: str
    """The id in the definition; `availability` for the item `availability.3`."""
    position: int
    parent: str | None = None
    item_index: int | None = None
    item: JSON = None
    kind: str
    state: str
    title: str | None = None
    unmet_needs: int
    input: JSON = None
    output: JSON = None
    failure: JSON = None
    undo: str = "none"
    counters: dict[str, int] = field(default_factory=dict)
    """Changed requests per failure kind; `timed_out`; `tainted`; for a saga `undo` (effects of this step and its items
    that are not undone yet) and `undoing` (those under way)."""
    calls: int = 0
    turn: int = 0
    conversation: int = 0
    messages: int = 0
    """Messages in the current conversation: the next ordinal."""
    model: str | None = None
    """The model that its later calls are made with, if it was switched; None: the agent's own."""
    items_total: int | None = None
    items_inserted: int | None = None
    items_started: int | None = None
    items_open: int | None = None
    items_failed: int | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None


@dataclass(slots=True, kw_only=True)
class Attempt:
    workflow_id: UUID
    call_id: UUID
    id: UUID
    tenant_id: UUID
    n: int
    worker: UUID
    intended_at: datetime
    sent_at: datetime | None = None
    received_at: datetime | None = None
    send_deadline: datetime
    outcome: str | None = None
    lost_at: datetime | None = None
    failure: JSON = None
    status_code: int | None = None
    evidence: str | None = None
    media_type: str | None = None
    truncated: bool = False
    request_id: str | None = None
    usage: JSON = None
    cost_microusd: int | None = None
    reserved_microusd: int | None = None
    reserved_tokens: int | None = None
    """What budgets have counted for it, until they are told better: its worst case."""
    settled_at: datetime | None = None


@dataclass(slots=True, kw_only=True)
class Call:
    workflow_id: UUID
    id: UUID
    tenant_id: UUID
    step: str
    n: int
    kind: str
    tool: str | None = None
    turn: int = 0
    ordinal: int = 0
    tool_use_id: str | None = None
    args_sha256: str
    effect: str
    state: str
    held_reason: str | None = None
    attempt_id: UUID | None = None
    """The fence."""
    attempts: int = 0
    lost_in_a_row: int = 0
    tries: dict[str, int] = field(default_factory=dict)
    """Repeats of the same bytes, per failure kind; `probe`: probes made; `restored`: it may have been sent in the time
    that a restore of the database has lost."""
    request: JSON
    key: str | None = None
    business_key: bool = False
    generation: int = 1
    key_ttl_ms: int | None = None
    key_deadline: datetime | None = None
    timeout_ms: int
    settle_ms: int
    retry_of: UUID | None = None
    change: JSON = None
    recovery: list[JSON] = field(default_factory=list)
    target: UUID | None = None
    """The call a probe or compensation is about; the owner of the business key for one that is attached."""
    probe_id: UUID | None = None
    """The open probe of a call that is probing; the compensation of one that is being undone."""
    lane: str = "calls"
    priority: int = 0
    budget: JSON = None
    """What it takes at worst, and whether that is reserved (`app/domain/budgets.py`); None: no budget governs it."""
    result: JSON = None
    failure: JSON = None
    not_before: datetime | None = None
    doubt_since: datetime | None = None
    resolved: JSON = None
    undo: str = "none"
    compensation: JSON = None
    """Recorded when it succeeded: tool and arguments of the call that undoes it, or why they could not be made."""
    engine_version: int
    created_at: datetime
    ended_at: datetime | None = None

    history: list[Attempt] = field(default_factory=list)
    """Its attempts in order (not a column)."""

    def attempt(self, attempt_id: UUID) -> Attempt | None:
        return next((attempt for attempt in self.history if attempt.id == attempt_id), None)

    @property
    def vouched(self) -> int:
        """Up to which attempt a person or a probe said that it did not happen."""
        resolved = self.resolved or {}
        return int(resolved["attempts"] if resolved.get("outcome") == "did_not_happen" else resolved.get("vouched", 0))

    @property
    def uncertain(self) -> list[Attempt]:
        """Attempts that may have taken effect and for which nobody has vouched; also one whose success was committed
        without its decision, until that is made."""
        open_ = (None, AttemptOutcome.UNKNOWN) + (() if CallState(self.state).final else (AttemptOutcome.SUCCEEDED,))
        word = self.vouched
        return [a for a in self.history if a.outcome in open_ and a.n > word]

    @property
    def succeeded_once(self) -> bool:
        """Whether a success is on record."""
        return any(attempt.outcome == AttemptOutcome.SUCCEEDED for attempt in self.history)

    @property
    def lost_past(self) -> bool:
        """It may have been sent in the time that a restore of the database has lost, and nobody has vouched since."""
        return "restored" in self.tries and (self.resolved or {}).get("outcome") != "did_not_happen"

    @property
    def maybe_done(self) -> bool:
        """Whether something in the world may have changed by it, for all anybody knows."""
        return self.effect != EffectClass.READ_ONLY and bool(self.uncertain)


@dataclass(slots=True, kw_only=True)
class Approval:
    workflow_id: UUID
    id: UUID
    tenant_id: UUID
    kind: str
    step: str
    call_id: UUID | None = None
    status: str
    title: str
    show: JSON = None
    allow: list[str]
    revision: int = 1
    arguments_sha256: str | None = None
    approver: str = "anyone"
    on_expire: str = "reject"
    expires_at: datetime | None = None
    decision: str | None = None
    values: JSON = None
    comment: str | None = None
    by: str | None = None
    created_at: datetime
    decided_at: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    workflow_id: UUID
    tenant_id: UUID
    step: str
    conversation: int
    ordinal: int
    role: str
    turn: int
    body: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Sender:
    """What is known of the worker of an attempt."""

    lease_until: datetime
    reaped_at: datetime | None
    """Its parent waited for it: dead since then, by proof."""
    lost_at: datetime | None


@dataclass(slots=True, kw_only=True)
class Snapshot:
    """What was read under the lock. Absent rows are absent: a decision that needs more asks for it (`Reads`)."""

    workflow: Workflow
    steps: dict[str, StepRow] = field(default_factory=dict)
    calls: dict[UUID, Call] = field(default_factory=dict)
    approvals: dict[UUID, Approval] = field(default_factory=dict)
    workers: dict[UUID, Sender] = field(default_factory=dict)
    """The attempts' workers."""
    complete: bool = False
    """Every call, approval and begun step that is still open was loaded."""
    messages: dict[str, list[Message]] = field(default_factory=dict)
    """Agent step → the messages of its current conversation, where they were asked for."""
    children: set[str] = field(default_factory=set)
    """Parents all of whose items were loaded."""
    top: bool = False
    """Every step that is no item was loaded."""
    accounts: dict[str, Account] = field(default_factory=dict)
    """Scope → its budget; empty for a workflow that has none."""
    histories: dict[str, History] = field(default_factory=dict)
    """Of agent steps whose conversation begins anew."""
    answered: list[object] = field(default_factory=list)
    """Facts whose reads were made for them (see `transitions._needs_more`)."""
