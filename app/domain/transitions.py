"""The one door: facts of one workflow in, one transition out. Pure; the same facts on the same rows decide the same.

    Decision(snapshot, plan, now, rules).take(facts) -> facts that need more rows (read them, take again)
                                         .close()    -> Transition, for the one writer

Handlers leave facts behind (`draft.then`): a step ended, a step became ready. Those whose rows are loaded are decided
at once, in order; the others come back from `take`, and the engine reads what `facts.read_for` says and takes them
again, in the same transaction. Which fact may move which state where is the table in `app/domain/legal.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from app.domain import (
    attaching,
    budgets,
    compacting,
    dependencies,
    ending,
    ids,
    items,
    kinds,
    losing,
    overspending,
    pausing,
    probing,
    reopening,
    resolving,
    restoring,
    saga,
    settling,
    starting,
    stepping,
    switching,
    turns,
)
from app.domain.aggregate import Snapshot, StepRow
from app.domain.budget_facts import (
    BudgetExceeded,
    BudgetFact,
    BudgetFreed,
    BudgetLooked,
    BudgetRaised,
    DurationPassed,
)
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
)
from app.domain.legal import Row, table
from app.domain.plan import Plan
from app.domain.reads import Reads, read_for
from app.domain.rules import Rules
from app.domain.states import DueKind, StepState, WorkflowStatus
from app.domain.transition import Draft, Due, KeyWanted, Transition

__all__ = ["Decision", "Row", "Rules", "decide", "table"]


class Decision:
    def __init__(self, snapshot: Snapshot, *, plan: Plan, now: datetime, rules: Rules) -> None:
        self.draft = Draft(snapshot, plan=plan, now=now, rules=rules)
        self.before = WorkflowStatus(snapshot.workflow.status)

    @property
    def snapshot(self) -> Snapshot:
        return self.draft.snapshot

    def take(self, facts: Sequence[Fact]) -> list[Fact]:
        """Decide the facts, and those they leave behind, as far as the rows reach."""
        self.draft.agenda.extend(facts)
        self._come_to_rest()
        if not self.draft.transition.then:  # at rest: a drain that is over ends, or begins to undo
            last, self.draft.fact = self.draft.fact, DrainBegan.__name__
            ending.end_drained(self.draft)
            self.draft.fact = last
            self._come_to_rest()
        left, self.draft.transition.then = self.draft.transition.then, []
        return left

    def _come_to_rest(self) -> None:
        while self.draft.agenda:
            fact = self.draft.agenda.popleft()
            if _needs_more(fact, self.draft):
                self.draft.transition.then.append(fact)
                continue
            self.draft.fact = type(fact).__name__
            _handle(self.draft, fact)

    def keys_wanted(self) -> list[KeyWanted]:
        """None once the workflow or the step ends or drains: a key without a call would never be free again."""
        wanted, self.draft.transition.keys_wanted = self.draft.transition.keys_wanted, []
        status = WorkflowStatus(self.draft.workflow.status)
        if status.final or status.ending:
            return []
        return [wish for wish in wanted if self._goes_on(self.draft.step(wish.step))]

    def _goes_on(self, row: StepRow) -> bool:
        return not StepState(row.state).final and not row.counters.get("timed_out")

    def close(self) -> Transition:
        """The transition as it stands, with the workflow's status derived from its counters."""
        draft, workflow = self.draft, self.draft.workflow
        budgets.close(draft)
        draft.tell_moves()
        status = WorkflowStatus(workflow.status)
        if not status.final and not status.ending and status is not WorkflowStatus.PAUSED:
            waits = workflow.open_calls == 0
            to = WorkflowStatus.WAITING if waits else WorkflowStatus.RUNNING
            if to is WorkflowStatus.WAITING and self.before is not WorkflowStatus.WAITING:
                draft.event("workflow.waiting", moved=(status, to), data={"for": _waits_for(draft)})
            elif status is WorkflowStatus.WAITING and to is WorkflowStatus.RUNNING:
                draft.event("workflow.resumed", moved=(status, to))
            draft.move_workflow(to)
        workflow.revision += 1
        workflow.updated_at = draft.now
        return draft.transition


def decide(
    snapshot: Snapshot, facts: Sequence[Fact], *, plan: Plan, now: datetime, rules: Rules
) -> tuple[Transition, list[Fact]]:
    """The whole door in one call, for a snapshot that holds every row the facts need; else what was left over."""
    decision = Decision(snapshot, plan=plan, now=now, rules=rules)
    left = decision.take(facts)
    return decision.close(), left


def _waits_for(draft: Draft) -> str:
    workflow = draft.workflow
    if workflow.doubts:
        return "doubt"
    return "approval" if workflow.waits else "held" if workflow.held else "timer"


def _needs_more(fact: Fact, draft: Draft) -> bool:
    """Whether a fact left behind needs rows that are not loaded. What the engine brings was read for."""
    snapshot = draft.snapshot
    match fact:
        case StepEnded() | StepReady() | StepsDone() | MayHaveHappened():
            reads = Reads()
            read_for(fact, plan=draft.plan, reads=reads)
            return not reads.steps <= snapshot.steps.keys()
        case ItemsEnded():
            return fact.step not in snapshot.children
        case DrainBegan():
            return not snapshot.complete
        case ItemsWanted() | ToolsAsked() | ContextSummarised() | ModelSwitched() | UndosWanted() | StepReopened():
            return fact not in snapshot.answered
        case BudgetExceeded() | BudgetFreed():
            return fact not in snapshot.answered
        case UndoBegan():
            return not snapshot.top
        case CompensationEnded():  # of one that a probe has found: only the compensation was read with it
            return fact.call_id not in snapshot.calls
        case _:
            return False


def _handle(draft: Draft, fact: Fact) -> None:
    match fact:
        case WorkflowAccepted():
            accept(draft)
        case CallSettled():
            settling.settle(draft, fact)
        case WorkerLost():
            losing.lose(draft, fact)
        case KeyExpired():
            losing.expire_key(draft, fact)
        case DoubtResolved():
            resolving.resolve_doubt(draft, fact)
        case ApprovalDecided():
            resolving.decide_approval(draft, fact)
        case ApprovalExpired():
            resolving.expire_approval(draft, fact)
        case CancelRequested():
            ending.cancel(draft, fact)
        case DeadlinePassed():
            ending.pass_deadline(draft, fact)
        case StepTimedOut():
            ending.time_out(draft, fact)
        case StepEnded():
            starting.count_down(draft, fact)
        case StepReady():
            starting.begin(draft, fact)
        case ItemEnded():
            items.next_item(draft, fact)
        case ItemsWanted():
            items.want_items(draft, fact)
        case ItemsEnded():
            ending.items_ended(draft, fact)
        case DrainBegan():
            ending.drain(draft, fact)
        case StepsDone():
            ending.build_output(draft, fact)
        case KeyAnswered():
            kinds.key_answered(draft, fact)
        case ToolsAsked():
            turns.call_tools(draft, fact)
        case ContextSummarised():
            compacting.go_on(draft, fact)
        case ModelSwitched():
            switching.carried(draft, fact)
        case BudgetExceeded() | BudgetFreed() | BudgetLooked() | BudgetRaised() | DurationPassed():
            _handle_budgets(draft, fact)
        case _:
            _handle_operations(draft, fact)


def _handle_budgets(draft: Draft, fact: BudgetFact) -> None:
    match fact:
        case BudgetExceeded():
            overspending.exceed(draft, fact)
        case BudgetFreed():
            overspending.free(draft, fact)
        case BudgetLooked():
            overspending.look(draft, fact)
        case BudgetRaised():
            overspending.top_up(draft, fact)
        case DurationPassed():
            overspending.pass_time(draft, fact)


def _handle_operations(draft: Draft, fact: Fact) -> None:
    """The effect ledger's own facts, and what operators ask for."""
    match fact:
        case DatabaseRestored():
            restoring.restore(draft, fact)
        case MayHaveHappened():
            restoring.may_have_happened(draft, fact)
        case ProbeEnded():
            probing.probe_ended(draft, fact)
        case ResultTimedOut():
            settling.time_out_result(draft, fact)
        case OwnerLooked():
            attaching.owner_looked(draft, fact)
        case DependencyDown():
            dependencies.down(draft, fact)
        case DependencyLooked():
            dependencies.looked(draft, fact)
        case SwitchedOff():
            pausing.switch_off(draft, fact)
        case SwitchReleased():
            pausing.switch_on(draft, fact)
        case PauseRequested():
            pausing.pause(draft, fact)
        case ResumeRequested():
            pausing.resume(draft, fact)
        case RetryRequested():
            reopening.reopen(draft, fact)
        case StepReopened():
            reopening.reopen_begun(draft, fact)
        case StepOperated():
            stepping.operate(draft, fact)
        case SagaDecided():
            saga.decide(draft, fact)
        case UndoBegan():
            saga.begin(draft, fact)
        case UndosWanted():
            saga.undo_next(draft, fact)
        case CompensationEnded():
            saga.compensation_ended(draft, fact)
        case UndoSettled():
            saga.settle_undo(draft, fact)


def accept(draft: Draft) -> None:
    """The first decision of a workflow: told, and its roots begin."""
    workflow = draft.workflow
    draft.transition.accepted = True
    draft.transition.new_accounts = list(draft.snapshot.accounts.values())
    draft.transition.new_steps = [draft.snapshot.steps[name] for name in draft.plan.steps]
    workflow.started_at = draft.now
    draft.event(
        "workflow.accepted",
        moved=(None, WorkflowStatus.QUEUED),
        data={"name": workflow.name, "definition": workflow.definition_digest, "id": ids.encode("wf", workflow.id)},
    )
    draft.move_workflow(WorkflowStatus.RUNNING)
    draft.event("workflow.started", moved=(WorkflowStatus.QUEUED, WorkflowStatus.RUNNING))
    at = workflow.deadline_at
    draft.set_due(Due(kind=DueKind.DEADLINE, ref=workflow.id, due_at=at, ring_at=at))
    for name in draft.plan.steps:
        row = draft.step(name)
        if row.unmet_needs == 0 and row.state == StepState.PENDING:
            draft.then(StepReady(step=name))
