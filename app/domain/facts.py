"""What happened, as values; and what a decision about it needs to have read.

Facts of the world come from `engine` (an attempt's outcome, a lost worker, a person's answer, a clock). Facts that a
decision leaves behind because it needs more rows (`StepEnded` of a step whose dependents are not loaded) are decided
in the same transaction after another read: so the cost of a transition does not depend on the size of the workflow.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from app.domain.outcomes import JSON, Outcome
from app.domain.plan import Plan


class IllegalTransition(Exception):
    """The state machine does not list this fact for this state: a defect, never input."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkflowAccepted:
    """A submission was stored; its root steps are loaded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CallSettled:
    """An attempt came to an outcome, however late."""

    call_id: UUID
    attempt_id: UUID
    step: str
    outcome: Outcome
    kept: bool = False
    """Its evidence was committed before, without a decision: told again, so that it is decided."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerLost:
    """The worker of an attempt is gone, or the attempt is long past its send deadline without an outcome."""

    call_id: UUID
    attempt_id: UUID
    step: str


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyExpired:
    """A keyed call became due, but the tool may have forgotten its key."""

    call_id: UUID
    step: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DoubtResolved:
    call_id: UUID
    step: str
    verdict: str
    """happened | did_not_happen | abandon"""
    result: JSON
    note: str
    by: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ApprovalDecided:
    approval_id: UUID
    step: str
    call_id: UUID | None
    decision: str
    values: JSON
    comment: str | None
    by: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ApprovalExpired:
    approval_id: UUID
    step: str
    call_id: UUID | None


@dataclass(frozen=True, kw_only=True, slots=True)
class CancelRequested:
    reason: str | None
    by: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadlinePassed:
    pass


@dataclass(frozen=True, kw_only=True, slots=True)
class StepTimedOut:
    step: str


# --- left behind by a decision -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class StepEnded:
    """A step is final; its dependents count their unmet needs down."""

    step: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StepReady:
    """No need of this step is unmet; what its needs came to must be read."""

    step: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemEnded:
    """An item of this for_each is final: another may start."""

    step: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemsWanted:
    """Items of a for_each are to be started that are not loaded, or (`window`) not inserted yet."""

    step: str
    window: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemsEnded:
    """Every item of a for_each is final."""

    step: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DrainBegan:
    """The workflow fails or is cancelled: whatever is open must be read and ended, or waited for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepsDone:
    """No step is open: the output can be built."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyAnswered:
    """The owner of a business key is known."""

    step: str
    tool: str
    key: str
    owner: UUID | None
    """The call that owns the key, None if this step may have it."""
    generation: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolsAsked:
    """A model asked for effects: earlier calls with the same arguments must be read first (the repeat guard)."""

    step: str
    answer: JSON
    """The model's message."""
    turn: int
    repeats: tuple[tuple[str, str], ...]
    """(tool, sha256 of the arguments)."""


Fact = (
    WorkflowAccepted
    | CallSettled
    | WorkerLost
    | KeyExpired
    | DoubtResolved
    | ApprovalDecided
    | ApprovalExpired
    | CancelRequested
    | DeadlinePassed
    | StepTimedOut
    | StepEnded
    | StepReady
    | ItemEnded
    | ItemsWanted
    | ItemsEnded
    | DrainBegan
    | StepsDone
    | KeyAnswered
    | ToolsAsked
)

NEEDS_READ_AHEAD = 8
"""A dependent with at most this many needs has them read together with the step that ended; a wide join is read once,
when its last need is met, so that a step's end costs the same whatever joins on it."""


@dataclass(slots=True, kw_only=True)
class Reads:
    """What to load for one workflow."""

    steps: set[str] = field(default_factory=set)
    calls: set[UUID] = field(default_factory=set)
    turns: set[str] = field(default_factory=set)
    """Agent steps, all of whose calls of the current turn are read."""
    open_calls_of: set[str] = field(default_factory=set)
    """Steps, all of whose calls and approvals that are not final are read."""
    next_items: dict[str, int] = field(default_factory=dict)
    """Parent → how many of its not yet started items."""
    lists: set[str] = field(default_factory=set)
    """Parents whose list of items is read: it may be large, and is needed once a window."""
    items_of: set[str] = field(default_factory=set)
    """Parents, all of whose items are read."""
    repeats: set[tuple[str, str]] = field(default_factory=set)
    approvals: set[UUID] = field(default_factory=set)
    everything_open: bool = False


def parent_of(step: str) -> str | None:
    """`availability.3` → `availability`; None for a step that is no item."""
    head, dot, _ = step.partition(".")
    return head if dot else None


def name_of(step: str) -> str:
    return step.partition(".")[0]


def read_for(fact: Fact, *, plan: Plan, reads: Reads) -> None:
    """Add to `reads` what deciding `fact` needs."""
    match fact:
        case CallSettled() | WorkerLost() | KeyExpired() | DoubtResolved():
            reads.calls.add(fact.call_id)
            _step(fact.step, plan, reads)
        case ApprovalDecided() | ApprovalExpired():
            reads.approvals.add(fact.approval_id)
            if fact.call_id is not None:
                reads.calls.add(fact.call_id)
            _step(fact.step, plan, reads)
        case StepTimedOut():
            reads.open_calls_of.add(fact.step)
            _step(fact.step, plan, reads)
        case KeyAnswered():
            reads.steps |= plan.steps[name_of(fact.step)].needs
            _step(fact.step, plan, reads)
        case StepEnded() | ItemEnded() | ItemsEnded():
            _step(fact.step, plan, reads)
            if isinstance(fact, ItemsEnded):
                reads.items_of.add(fact.step)
        case StepReady() | ItemsWanted():
            reads.steps.add(fact.step)
            reads.steps |= plan.steps[fact.step].needs
            if isinstance(fact, ItemsWanted):
                reads.next_items[fact.step] = plan.steps[fact.step].max_parallel
                if fact.window:
                    reads.lists.add(fact.step)
        case ToolsAsked():
            reads.repeats |= set(fact.repeats)
            _step(fact.step, plan, reads)
        case StepsDone():
            if plan.output is not None:
                reads.steps |= plan.output.steps
        case DrainBegan() | CancelRequested() | DeadlinePassed():
            reads.everything_open = True
        case WorkflowAccepted():
            pass


def _step(path: str, plan: Plan, reads: Reads) -> None:
    """The step, for an item its parent and the next item; those who wait for it, and what they read."""
    name = name_of(path)
    step = plan.steps[name]
    reads.steps |= {path, name}
    if path != name:
        reads.next_items[name] = reads.next_items.get(name, 0) + 1
        reads.steps |= step.needs
    if step.agent is not None:
        reads.turns.add(path)
    for dependent in step.dependents:
        reads.steps.add(dependent)
        needs = plan.steps[dependent].needs
        if len(needs) <= NEEDS_READ_AHEAD:
            reads.steps |= needs
