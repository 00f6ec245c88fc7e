"""What a decision about each fact needs to have read: `read_for` says it, `app/store/loading.py` reads it.

Reads are as small as the fact is: the cost of a transition does not depend on how large the workflow is. Only a drain,
a saga's next step and a reopening look at more.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from app.domain.accounts import WHOLE
from app.domain.budget_facts import BudgetExceeded, BudgetFreed, BudgetLooked, BudgetRaised, DurationPassed
from app.domain.conversation_facts import ContextSummarised, ModelSwitched
from app.domain.dependency_facts import DependencyDown, DependencyLooked
from app.domain.facts import (
    ApprovalDecided,
    ApprovalExpired,
    CallSettled,
    CancelRequested,
    CompensationEnded,
    DatabaseRestored,
    DeadlinePassed,
    DoubtResolved,
    DrainBegan,
    Fact,
    ItemEnded,
    ItemsEnded,
    ItemsWanted,
    KeyAnswered,
    KeyExpired,
    MayHaveHappened,
    OwnerLooked,
    PauseRequested,
    ProbeEnded,
    ResultTimedOut,
    ResumeRequested,
    RetryRequested,
    SagaDecided,
    StepEnded,
    StepOperated,
    StepReady,
    StepReopened,
    StepsDone,
    StepTimedOut,
    SwitchedOff,
    SwitchReleased,
    ToolsAsked,
    UndoBegan,
    UndoSettled,
    UndosWanted,
    WorkerLost,
    WorkflowAccepted,
    name_of,
)
from app.domain.plan import Plan

WAITING_AT_ONCE = 16
"""Calls that wait for room in a budget, read at once: an end of one call makes room for few others."""

UNDOS_AT_ONCE = 8
"""Compensations of one step's items under way at once."""

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
    histories: set[str] = field(default_factory=set)
    """Agent steps whose task, effects and latest input are read (`app/domain/histories.py`)."""
    conversations: set[str] = field(default_factory=set)
    """Agent steps, all messages of whose current conversation are read."""
    repeats: set[tuple[str, str]] = field(default_factory=set)
    approvals: set[UUID] = field(default_factory=set)
    everything_open: bool = False
    top_steps: bool = False
    """Every step that is no item."""
    begun_items: bool = False
    """Items that had begun and failed or were cancelled."""
    undos: set[str] = field(default_factory=set)
    """Steps, the next effects of which are to be undone."""
    waiting: bool = False
    """Calls that wait for room in a budget, those that waited longest first."""


def read_for(fact: Fact, *, plan: Plan, reads: Reads) -> None:
    """Add to `reads` what deciding `fact` needs."""
    match fact:
        case (
            CallSettled()
            | WorkerLost()
            | KeyExpired()
            | DoubtResolved()
            | ResultTimedOut()
            | OwnerLooked()
            | SwitchedOff()
            | SwitchReleased()
            | UndoSettled()
            | ProbeEnded()
            | CompensationEnded()
            | MayHaveHappened()
            | BudgetExceeded()
            | BudgetLooked()
            | DependencyDown()
            | DependencyLooked()
        ):
            reads.calls.add(fact.call_id)
            _step(fact.step, plan, reads)
        case ApprovalDecided() | ApprovalExpired():
            reads.approvals.add(fact.approval_id)
            if fact.call_id is not None:
                reads.calls.add(fact.call_id)
            _step(fact.step, plan, reads)
        case BudgetFreed():
            reads.waiting = True
        case DurationPassed() if fact.scope != WHOLE:
            reads.open_calls_of.add(fact.scope)
            _step(fact.scope, plan, reads)
        case StepTimedOut() | StepOperated():
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
        case ModelSwitched():
            reads.conversations.add(fact.step)
            reads.calls.add(fact.call_id)
            _step(fact.step, plan, reads)
        case ContextSummarised():
            reads.histories.add(fact.step)
            reads.calls.add(fact.call_id)
            _step(fact.step, plan, reads)
        case StepsDone():
            if plan.output is not None:
                reads.steps |= plan.output.steps
        case (
            DrainBegan()
            | CancelRequested()
            | DeadlinePassed()
            | PauseRequested()
            | ResumeRequested()
            | DatabaseRestored()
            | BudgetRaised()
            | DurationPassed()
        ):
            reads.everything_open = True
        case RetryRequested():
            reads.top_steps, reads.begun_items = True, True
        case StepReopened():
            reads.turns.add(fact.step)
            reads.lists.add(fact.step)
            reads.repeats |= set(fact.repeats)
            reads.steps |= plan.steps[name_of(fact.step)].needs
            _step(fact.step, plan, reads)
        case UndoBegan():
            reads.top_steps = True
        case UndosWanted():
            reads.undos.add(fact.step)
            _step(fact.step, plan, reads)
        case WorkflowAccepted() | SagaDecided():
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
