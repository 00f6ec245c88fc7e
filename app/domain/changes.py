"""The parts of a transition: rows to write, dues to set, events to tell. Values only; `Draft` puts them together.

Field names are column names where a part is a row (`app/store/tables.py`); `app/store/workflows.py::apply` is the only
writer of what stands here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from app.domain.accounts import Account
from app.domain.aggregate import Approval, Attempt, Call, Message, StepRow, Workflow
from app.domain.facts import Fact
from app.domain.outcomes import JSON, Evidence
from app.domain.states import DueKind, Lane


@dataclass(frozen=True, kw_only=True, slots=True)
class Due:
    kind: DueKind
    ref: UUID
    due_at: datetime
    ring_at: datetime
    lane: str = Lane.CALLS
    priority: int = 0
    note: str | None = None
    worker: UUID | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    id: UUID
    seq: int
    type: str
    step: str | None
    call_id: UUID | None
    attempt_id: UUID | None
    from_state: str | None
    to_state: str | None
    data: Mapping[str, JSON]
    at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    id: UUID
    stream: UUID
    url: str
    event_id: UUID
    seq: int
    type: str


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyWanted:
    """A step wants a business key: the store finds or makes its owner, and the answer is another fact."""

    step: str
    call_id: UUID
    """The call that is to own it; it is made when the answer is there, or waits already for another owner's end."""
    tool: str
    key: str
    args_sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Audit:
    """What somebody did to the workflow by hand."""

    id: UUID
    actor: str
    action: str
    object: str
    data: Mapping[str, JSON]


@dataclass(slots=True, kw_only=True)
class Transition:
    """All that one decision changes; applied by `app/store/workflows.py::apply`, the only writer."""

    workflow: Workflow
    accepted: bool = False
    """The workflow's row is new."""
    steps: dict[str, StepRow] = field(default_factory=dict)
    new_steps: list[StepRow] = field(default_factory=list)
    calls: dict[UUID, Call] = field(default_factory=dict)
    new_calls: list[Call] = field(default_factory=list)
    attempts: dict[UUID, Attempt] = field(default_factory=dict)
    evidence: list[Evidence] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    approvals: dict[UUID, Approval] = field(default_factory=dict)
    new_approvals: list[Approval] = field(default_factory=list)
    dues: dict[tuple[DueKind, UUID], Due | None] = field(default_factory=dict)
    """None: the due goes."""
    events: list[Event] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    keys_wanted: list[KeyWanted] = field(default_factory=list)
    keys_released: list[UUID] = field(default_factory=list)
    """Workflow-owned business keys of these calls become free."""
    keys_passed: list[tuple[UUID, UUID]] = field(default_factory=list)
    """A business key goes from the first call to the second, which is the same wish with other arguments."""
    owners_ended: list[UUID] = field(default_factory=list)
    """Calls with a business key that came to their end: who is attached to them is told."""
    cancel_steps: str | None = None
    """`unstarted`: every step that has not begun is cancelled; `all`: every step that is not final."""
    cancel_items: list[str] = field(default_factory=list)
    """Every item of these steps that has not begun is cancelled."""
    reopen_items: list[str] = field(default_factory=list)
    """Items of these steps that were cancelled before they began wait again."""
    audits: list[Audit] = field(default_factory=list)
    end_dues: bool = False
    """The workflow is final: no due of it stays (deliveries keep their own)."""
    plan_body: JSON = None
    """The workflow goes on with another plan: the tools of an MCP server are known now."""
    accounts: dict[str, Account] = field(default_factory=dict)
    """Scope → its budget, as the decision left it."""
    new_accounts: list[Account] = field(default_factory=list)
    requests: list[Call] = field(default_factory=list)
    """Calls of which nothing was ever sent, with a request that was made smaller to fit a budget."""
    then: list[Fact] = field(default_factory=list)
    """Facts that need more rows; decided in the same transaction."""
