"""From facts to rows: lock, read, decide, write, in one transaction over several workflows. Every verb ends here.

    advance(services, connection, facts, …) -> Advanced       inside a transaction
    advance_one(services, workflow_id, make_facts)             its own transaction, for verbs that people call

A decision that needs more rows says which; they are read under the same lock and it goes on. Doorbells are returned,
not rung: they belong after the commit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

from app.domain.aggregate import Snapshot, Workflow
from app.domain.budget_facts import BudgetExceeded, BudgetFreed
from app.domain.conversation_facts import ContextSummarised, ModelSwitched
from app.domain.facts import (
    DrainBegan,
    Fact,
    ItemsWanted,
    KeyAnswered,
    StepReopened,
    ToolsAsked,
    UndosWanted,
)
from app.domain.plan import Plan
from app.domain.reads import Reads, read_for
from app.domain.states import DueKind, Lane, settled
from app.domain.transition import Transition
from app.domain.transitions import Decision
from app.engine import transactions
from app.engine.services import Services
from app.store import effect_keys, loading, locking, workflows

MOST_READS: Final = 5_000
"""Reads in one transaction: a chain of 1,000 `set` steps needs about as many; more is a defect of ours."""

_READ_FOR: Final = (
    ItemsWanted
    | ToolsAsked
    | ContextSummarised
    | ModelSwitched
    | DrainBegan
    | UndosWanted
    | StepReopened
    | BudgetExceeded
    | BudgetFreed
)
"""Facts whose reads are made for each of them, and not told by what a snapshot holds (`transitions._needs_more`)."""

Connection = transactions.Connection


@dataclass(kw_only=True, slots=True)
class Advanced:
    transitions: list[Transition] = field(default_factory=list)
    skipped: list[UUID] = field(default_factory=list)
    """Workflows that somebody else held."""
    missing: list[UUID] = field(default_factory=list)


def ring(services: Services, advanced: Advanced, *, going_on: Set[UUID] = frozenset()) -> None:
    """After the commit: tell somebody what is due now. One call of each workflow may go to this process's own pool;
    what a workflow has beside it goes through the bell, so that branches spread over the workers.

    `going_on`: workflows of which the first call was claimed by the commit, and runs here."""
    calls: list[UUID] = []
    deliveries: list[UUID] = []
    for transition in advanced.transitions:
        due = due_now(transition, DueKind.CALL)
        if due and (transition.workflow.id in going_on or _offered(services, transition, due[0])):
            due = due[1:]
        calls += due
        deliveries += due_now(transition, DueKind.DELIVERY)
    if calls:
        services.bell.ring(Lane.CALLS, calls)
    if deliveries:
        services.bell.ring(Lane.DELIVERIES, deliveries)
    told = [t.workflow.id for t in advanced.transitions if _settled(t.workflow)]
    if told and services.tell_settled is not None:
        services.tell_settled(told)


def _offered(services: Services, transition: Transition, call_id: UUID) -> bool:
    ended = [attempt.call_id for attempt in transition.attempts.values()]
    return services.feed is not None and services.feed.offer(call_id, ended)


def _settled(workflow: Workflow) -> bool:
    return settled(
        status=workflow.status,
        saga=workflow.saga,
        undos_failed=workflow.undos_failed,
        open_calls=workflow.open_calls,
    )


def due_now(transition: Transition, kind: DueKind) -> list[UUID]:
    if transition.end_dues and kind is not DueKind.DELIVERY:
        return []
    now = transition.workflow.updated_at
    return [ref for (its, ref), due in transition.dues.items() if its is kind and due is not None and due.due_at <= now]


MakeFacts = Callable[[Snapshot, Plan], Sequence[Fact]]
"""Facts of a workflow, made under its lock: where people ask for something, what is possible is judged here."""


async def advance(
    services: Services,
    connection: Connection,
    facts: Mapping[UUID, Sequence[Fact]],
    *,
    skip_locked: bool = False,
    ahead: Mapping[UUID, Reads] | None = None,
    make: MakeFacts | None = None,
) -> Advanced:
    """Decide and write. `ahead`: what will surely be read, if that is known before the workflows are locked. `make`
    turns the facts (of one workflow) into others once its rows are read; it may raise."""
    locked, now = await locking.snapshots(connection, list(facts), skip_locked=skip_locked, ahead=ahead or {})
    absent = [workflow for workflow in facts if workflow not in locked]
    result = Advanced(skipped=absent if skip_locked else [], missing=[] if skip_locked else absent)
    if now is None:
        return result
    pending: dict[UUID, tuple[Decision, Plan, list[Fact]]] = {}
    for workflow_id, snapshot in locked.items():
        plan = await services.plans.get(snapshot.workflow.tenant_id, snapshot.workflow.plan_digest)
        decision = Decision(snapshot, plan=plan, now=now, rules=services.rules)
        pending[workflow_id] = (decision, plan, list(facts[workflow_id]))
    await _read(connection, {w: (d, p, f) for w, (d, p, f) in pending.items()})
    if make is not None:
        for decision, plan, given in pending.values():
            given[:] = make(decision.snapshot, plan)
        pending = {w: waiting for w, waiting in pending.items() if waiting[2]}  # what asks for nothing changes nothing
    result.transitions = await decide(connection, pending)
    await workflows.apply(connection, result.transitions)
    return result


async def decide(connection: Connection, pending: Mapping[UUID, tuple[Decision, Plan, list[Fact]]]) -> list[Transition]:
    """Take the facts; read what they leave wanting, and take again, until nothing is left."""
    open_ = dict(pending)
    for _ in range(MOST_READS):
        left: dict[UUID, tuple[Decision, Plan, list[Fact]]] = {}
        for workflow_id, (decision, plan, given) in open_.items():
            rest = decision.take(given)
            if rest:
                left[workflow_id] = (decision, plan, rest)
        for workflow_id, answers in (await _keys(connection, open_)).items():
            decision, plan, rest = left.get(workflow_id, (*open_[workflow_id][:2], []))
            left[workflow_id] = (decision, plan, rest + answers)
        if not left:
            break
        await _read(connection, left)
        open_ = left
    else:
        raise RuntimeError("a decision does not come to an end")
    return [decision.close() for decision, _, _ in pending.values()]


async def _read(connection: Connection, pending: Mapping[UUID, tuple[Decision, Plan, list[Fact]]]) -> None:
    wanted = {}
    for workflow_id, (decision, plan, given) in pending.items():
        reads = Reads()
        for fact in given:
            read_for(fact, plan=plan, reads=reads)
            if isinstance(fact, _READ_FOR):
                decision.snapshot.answered.append(fact)
        wanted[workflow_id] = (decision.snapshot, reads)
    await loading.load(connection, wanted)


async def _keys(
    connection: Connection, pending: Mapping[UUID, tuple[Decision, Plan, list[Fact]]]
) -> dict[UUID, list[Fact]]:
    """Business keys that steps want: made ours, or found to belong to another call. In one order over all workflows:
    two batches that want the same keys wait for each other, and not both ways."""
    wishes = [(wanted, workflow_id) for workflow_id, (d, _, _) in pending.items() for wanted in d.keys_wanted()]
    answers: dict[UUID, list[Fact]] = {}
    for wanted, workflow_id in sorted(wishes, key=lambda wish: (wish[0].tool, wish[0].key, str(wish[1]), wish[0].step)):
        workflow = pending[workflow_id][0].snapshot.workflow
        answer = await effect_keys.acquire(
            connection, tenant_id=workflow.tenant_id, workflow_id=workflow_id, wanted=wanted
        )
        answers.setdefault(workflow_id, []).append(
            KeyAnswered(
                step=wanted.step,
                tool=wanted.tool,
                key=wanted.key,
                owner=answer.owner,
                generation=answer.generation,
                same_arguments=answer.same_arguments,
                owner_state=answer.owner_state,
                owner_undo=answer.owner_undo,
                owner_result=answer.owner_result,
            )
        )
    return answers


async def advance_one(
    services: Services,
    workflow_id: UUID,
    facts: Sequence[Fact],
    *,
    purpose: str = "operate",
    make: MakeFacts | None = None,
) -> bool:
    """One workflow in its own transaction, waiting for its lock; rings after the commit. False: there is none."""

    async def work(connection: Connection) -> Advanced:
        return await advance(services, connection, {workflow_id: facts}, make=make)

    advanced = await transactions.run(services.database, purpose, work, size=services.settings.pool_size)
    ring(services, advanced)
    return workflow_id not in advanced.missing


def instant(value: datetime) -> str:
    return value.isoformat().replace("+00:00", "Z")
