"""What happened, as values; and what a decision about it needs to have read.

Facts of the world come from `engine` (an attempt's outcome, a lost worker, a person's answer, a clock). Facts that a
decision leaves behind because it needs more rows (`StepEnded` of a step whose dependents are not loaded) are decided
in the same transaction after another read: so the cost of a transition does not depend on the size of the workflow.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from app.domain.breakers import Advice
from app.domain.budget_facts import BudgetFact
from app.domain.conversation_facts import ContextSummarised, ModelSwitched
from app.domain.dependency_facts import DependencyFact
from app.domain.outcomes import JSON, Outcome


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
    advice: Advice | None = None
    """What is known of the tool or model since this outcome was counted; None: nothing is wrong with it."""


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
    """happened | did_not_happen | abandon | probe (ask the tool's probe again)"""
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
class ResultTimedOut:
    """A tool accepted a request (202), and its result did not come in time."""

    call_id: UUID
    attempt_id: UUID
    step: str


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnerLooked:
    """What became of the call that owns the business key another call is attached to."""

    call_id: UUID
    step: str
    owner: UUID | None
    """None: the key is free."""
    state: str | None
    undo: str
    result: JSON


@dataclass(frozen=True, kw_only=True, slots=True)
class SwitchedOff:
    """A call became due, but an operator has switched off its tool, model or tenant."""

    call_id: UUID
    step: str
    scope: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SwitchReleased:
    """The switch that held a call was released (or is looked at again)."""

    call_id: UUID
    step: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DatabaseRestored:
    """The database was set back to an earlier instant; what this workflow did after it is not known here."""

    to: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class MayHaveHappened:
    """A call is to be made that may have been made already, in the time that a restore has lost."""

    call_id: UUID
    step: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PauseRequested:
    reason: str | None
    by: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ResumeRequested:
    reason: str | None
    by: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryRequested:
    """Reopen: go on with what failed or was cancelled."""

    note: str | None
    by: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SagaDecided:
    """An operator decided about a failure that was held: undo the effects, or keep them."""

    mode: str
    """undo | keep"""
    note: str
    by: str


@dataclass(frozen=True, kw_only=True, slots=True)
class UndoSettled:
    """An operator's word about a compensation that failed."""

    call_id: UUID
    """Of the effect."""
    step: str
    action: str
    """retry | done | skip"""
    note: str
    by: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StepOperated:
    """An operator ends a step by hand, or does not wait for its next try."""

    step: str
    action: str
    """skip | complete | fail | retry-now"""
    output: JSON
    note: str | None
    by: str


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
    started: int = 0
    """How many were started before: tells one round from the next, where items end as soon as they begin."""


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
    same_arguments: bool = True
    """Whether the owner does the same thing: then this call attaches to it."""
    owner_state: str | None = None
    """As committed; None if the owner's call is being made in this very transaction."""
    owner_undo: str = "none"
    owner_result: JSON = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolsAsked:
    """A model asked for effects: earlier calls with the same arguments must be read first (the repeat guard)."""

    step: str
    answer: JSON
    """The model's message."""
    turn: int
    repeats: tuple[tuple[str, str], ...]
    """(tool, sha256 of the arguments)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeEnded:
    """A probe of this call was answered, or came to nothing."""

    call_id: UUID
    """Of the call it asked about."""
    step: str
    output: JSON
    failure: str | None
    """Why there is no answer."""
    asked_at: datetime | None
    """When the question that was answered left, at the earliest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CompensationEnded:
    """The compensation of this effect succeeded, or failed for good."""

    call_id: UUID
    """Of the effect."""
    step: str
    failure: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class UndoBegan:
    """The drain is over (or a step is undone): which effects are undone next depends on every step."""

    left: int
    """Effects still to be undone: tells one round from the next."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UndosWanted:
    """Effects of this step (and its items) are to be undone next."""

    step: str
    left: int


@dataclass(frozen=True, kw_only=True, slots=True)
class StepReopened:
    """A step that had begun before its workflow failed goes on where it stopped."""

    step: str
    repeats: tuple[tuple[str, str], ...] = ()
    """(tool, sha256 of the arguments) of what an agent had asked for and what was not sent: for the repeat guard."""


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
    | ContextSummarised
    | ModelSwitched
    | ResultTimedOut
    | OwnerLooked
    | SwitchedOff
    | SwitchReleased
    | PauseRequested
    | ResumeRequested
    | RetryRequested
    | SagaDecided
    | UndoSettled
    | StepOperated
    | ProbeEnded
    | CompensationEnded
    | UndoBegan
    | UndosWanted
    | StepReopened
    | DatabaseRestored
    | MayHaveHappened
    | BudgetFact
    | DependencyFact
)


def parent_of(step: str) -> str | None:
    """`availability.3` → `availability`; None for a step that is no item."""
    head, dot, _ = step.partition(".")
    return head if dot else None


def name_of(step: str) -> str:
    return step.partition(".")[0]
