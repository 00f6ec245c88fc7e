"""The engine, in memory: the real decisions (`app/domain`) over rows that are dicts, one verb a transaction.

    submit, claim, settle, keep, report        what clients, workers and tools do
    fire                                       what the sweep does about one due
    ask                                        what people do, as `machine_verbs.py` judges it
    lose, hold, release, pass_time             what befalls workers, switches and the clock

`now` is the clock of every transaction. Never decides anything itself.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from app.domain import canonical, ids, settling
from app.domain.aggregate import Attempt, Call, Sender, Snapshot, StepRow, Workflow
from app.domain.conversation_facts import ContextSummarised, ModelSwitched
from app.domain.dependency_facts import DependencyDown, DependencyLooked
from app.domain.facts import (
    ApprovalExpired,
    CallSettled,
    DeadlinePassed,
    DrainBegan,
    Fact,
    ItemsWanted,
    KeyAnswered,
    KeyExpired,
    MayHaveHappened,
    OwnerLooked,
    ResultTimedOut,
    StepReopened,
    StepTimedOut,
    SwitchedOff,
    SwitchReleased,
    ToolsAsked,
    UndosWanted,
    WorkerLost,
    WorkflowAccepted,
)
from app.domain.outcomes import Evidence, Failure, Outcome
from app.domain.plan import Plan
from app.domain.reads import Reads, read_for
from app.domain.rules import Rules
from app.domain.states import AttemptOutcome, CallKind, CallState, DueKind, FailureKind, Lane, StepState, WorkflowStatus
from app.domain.transition import Draft, Due, Transition
from app.domain.transitions import Decision
from tests.domain import machine_verbs
from tests.domain.machine_store import Store, attempt_of

BEGAN: Final = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
LEASE: Final = timedelta(seconds=600)
KEY_MARGIN: Final = timedelta(seconds=60)
MOST_READS: Final = 200
"""A decision over these small plans that reads more often does not come to an end."""

SHUT_FOR: Final = timedelta(seconds=5)
"""How long a breaker that is open keeps a call from being looked at."""

_ONCE_READ: Final = (
    ItemsWanted | ToolsAsked | ContextSummarised | ModelSwitched | DrainBegan | UndosWanted | StepReopened
)


@dataclass(frozen=True, kw_only=True)
class Flight:
    """One claimed attempt, as its worker has it."""

    workflow_id: UUID
    call_id: UUID
    attempt_id: UUID
    worker: UUID
    step: str
    kind: str
    tool: str | None
    effect: str
    key: str | None
    n: int


@dataclass(kw_only=True)
class Memory:
    store: Store = field(default_factory=Store)
    now: datetime = BEGAN
    rules: Rules = field(default_factory=Rules)
    payloads: dict[tuple[UUID, str], bytes] = field(default_factory=dict)
    kept: dict[UUID, list[UUID]] = field(default_factory=dict)
    """Call → attempts whose evidence is kept without a decision."""

    # --- the door ------------------------------------------------------------------------------------------------

    def advance(
        self, workflow_id: UUID, facts: Sequence[Fact], *, judge: machine_verbs.Judge | None = None
    ) -> Transition | None:
        """One transaction; None if nothing is asked for (any more)."""
        plan, snapshot = self.store.plans[workflow_id], self.store.lock(workflow_id)
        decision = Decision(snapshot, plan=plan, now=self.now, rules=self.rules)
        self._read(decision, facts)
        if judge is not None:
            facts = judge(snapshot, plan)
            if not facts:
                return None
        return self._decide(decision, facts)

    def _decide(self, decision: Decision, facts: Sequence[Fact]) -> Transition:
        workflow_id = decision.snapshot.workflow.id
        for _ in range(MOST_READS):
            facts = decision.take(facts) + self._answers(workflow_id, decision)
            if not facts:
                break
            self._read(decision, facts)
        else:
            raise AssertionError("a decision does not come to an end")
        transition = decision.close()
        self.store.apply(transition)
        for evidence in transition.evidence:
            self.payloads[(workflow_id, canonical.sha256_hex(evidence.body))] = evidence.body
        return transition

    def _read(self, decision: Decision, facts: Sequence[Fact]) -> None:
        reads = Reads()
        for fact in facts:
            read_for(fact, plan=decision.draft.plan, reads=reads)
            if isinstance(fact, _ONCE_READ):
                decision.snapshot.answered.append(fact)
        self.store.load(decision.snapshot, reads)

    def _answers(self, workflow_id: UUID, decision: Decision) -> list[Fact]:
        answers: list[Fact] = []
        for wanted in sorted(decision.keys_wanted(), key=lambda wish: (wish.tool, wish.key, wish.step)):
            got = self.store.acquire(workflow_id, wanted)
            answers.append(
                KeyAnswered(
                    step=wanted.step, tool=wanted.tool, key=wanted.key, owner=got.owner, generation=got.generation,
                    same_arguments=got.same_arguments, owner_state=got.state, owner_undo=got.undo,
                    owner_result=got.result,
                )
            )  # fmt: skip
        return answers

    # --- clients and workers -------------------------------------------------------------------------------------

    def submit(self, workflow_id: UUID, plan: Plan, given: Any, *, definition_digest: str, key: str) -> Transition:
        tenant, names = ids.DEFAULT_TENANT, list(plan.steps)
        workflow = Workflow(
            id=workflow_id, tenant_id=tenant, name=plan.name, definition_digest=definition_digest,
            plan_digest=plan.digest, engine_version=1, status=WorkflowStatus.QUEUED, idempotency_key=key,
            submitted_by="sam", input=given, labels={}, steps_total=len(names), steps_open=len(names),
            deadline_at=self.now + plan.deadline, created_at=self.now, updated_at=self.now,
        )  # fmt: skip
        snapshot = Snapshot(workflow=workflow, complete=True)
        for position, step in enumerate(plan.steps.values()):
            snapshot.steps[step.id] = StepRow(
                workflow_id=workflow_id, path=step.id, tenant_id=tenant, name=step.id, position=position,
                kind=step.kind, state=StepState.PENDING, unmet_needs=len(step.needs),
            )  # fmt: skip
        self.store.plans[workflow_id] = plan
        decision = Decision(snapshot, plan=plan, now=self.now, rules=self.rules)
        return self._decide(decision, [WorkflowAccepted()])

    def claim(self, call_id: UUID, *, worker: UUID, attempt_id: UUID) -> Flight | Fact | None:
        """In flight now; or the fact that stands against it; or nothing: it was not due."""
        call, due = self.store.call(call_id), self.store.dues.get((DueKind.CALL, call_id))
        alive = self.store.workers[worker].lost_at is None
        if call.state != CallState.DUE or due is None or due[1].due_at > self.now or not alive:
            return None
        refused = self._refused(call)
        if refused is not None:
            return refused
        timeout, settle = timedelta(milliseconds=call.timeout_ms), timedelta(milliseconds=call.settle_ms)
        call.state, call.attempt_id, call.attempts = CallState.INTENDED, attempt_id, call.attempts + 1
        if call.key_ttl_ms is not None and call.key_deadline is None:
            call.key_deadline = self.now + timedelta(milliseconds=call.key_ttl_ms) - max(KEY_MARGIN, settle)
        attempt = Attempt(
            workflow_id=call.workflow_id, call_id=call_id, id=attempt_id, tenant_id=call.tenant_id, n=call.attempts,
            worker=worker, intended_at=self.now, send_deadline=self.now + timeout,
        )  # fmt: skip
        call.history.append(attempt)
        return Flight(
            workflow_id=call.workflow_id, call_id=call_id, attempt_id=attempt_id, worker=worker, step=call.step,
            kind=call.kind, tool=call.tool, effect=call.effect, key=call.key, n=call.attempts,
        )  # fmt: skip

    def _refused(self, call: Call) -> Fact | None:
        needed = self.now + timedelta(milliseconds=call.timeout_ms)
        if call.key_deadline is not None and call.key_deadline < needed:
            return KeyExpired(call_id=call.id, step=call.step)
        said = (call.resolved or {}).get("outcome")
        if call.tries.get("restored", 0) == 2 and said != "did_not_happen":
            return MayHaveHappened(call_id=call.id, step=call.step)
        models = (f"model:{call.request.get('model')}", f"model:{call.request.get('alias')}")
        named = models if call.kind == CallKind.MODEL else (f"tool:{call.tool}",)
        scope = next((each for each in ("tenant", *named) if each in self.store.switches), None)
        if scope is not None:
            return SwitchedOff(call_id=call.id, step=call.step, scope=scope)
        scope = next((each for each in named if each in self.store.shut), None)
        if scope is None:
            return None
        return DependencyDown(
            call_id=call.id, step=call.step, scope=scope, quota=scope.startswith("model:"), kind="network",
            reason="It does not answer.", until=self.now + SHUT_FOR,
        )  # fmt: skip

    def settle(self, flight: Flight, outcome: Outcome, *, kept: bool = False) -> Transition | None:
        return self.advance(flight.workflow_id, [settled(flight, outcome, kept=kept)])

    def keep(self, flight: Flight, outcome: Outcome) -> Transition:
        """Its evidence is committed without a decision; a due brings it to the door again."""
        fact, snapshot, reads = settled(flight, outcome), self.store.lock(flight.workflow_id), Reads()
        read_for(fact, plan=self.store.plans[flight.workflow_id], reads=reads)
        self.store.load(snapshot, reads)
        draft = Draft(snapshot, plan=self.store.plans[flight.workflow_id], now=self.now, rules=self.rules)
        undecided = settling.keep(draft, fact)
        draft.workflow.updated_at, draft.workflow.revision = self.now, draft.workflow.revision + 1
        self.store.apply(draft.transition)
        for evidence in draft.transition.evidence:
            self.payloads[(flight.workflow_id, canonical.sha256_hex(evidence.body))] = evidence.body
        if undecided:
            self.kept.setdefault(flight.call_id, []).append(flight.attempt_id)
            due = Due(kind=DueKind.APPLY, ref=flight.call_id, due_at=self.now, ring_at=self.now, lane=Lane.CALLS)
            self.store.dues.setdefault((DueKind.APPLY, flight.call_id), (flight.workflow_id, due))
        return draft.transition

    def report(self, flight: Flight, *, succeeded: bool, result: Any) -> Transition | None:
        """What the tool itself says about a call that it accepted (202)."""
        body = json.dumps(result, ensure_ascii=False).encode()
        evidence, failure = Evidence(body=body, media_type="application/json"), None
        if not succeeded:
            failure = Failure(
                kind=FailureKind.TOOL_ERROR,
                message="The tool reported that it failed.",
                fix="Read the result the tool reported on this call.",
            )
        certainty = AttemptOutcome.SUCCEEDED if succeeded else AttemptOutcome.FAILED
        fact = settled(flight, Outcome(certainty=certainty, failure=failure, evidence=evidence))

        def judge(snapshot: Snapshot, plan: Plan) -> Sequence[Fact]:
            call = snapshot.calls[flight.call_id]
            attempt = attempt_of(call, flight.attempt_id)
            if attempt.outcome is None:
                return [fact]
            if attempt.outcome == certainty:
                return []
            if attempt.outcome == AttemptOutcome.UNKNOWN and succeeded:
                told = call.state == CallState.SUCCEEDED or attempt.evidence == canonical.sha256_hex(body)
                return [] if told else [fact]
            raise machine_verbs.Refused(attempt.outcome)

        return self.advance(flight.workflow_id, [fact], judge=judge)

    # --- time, people, misfortune --------------------------------------------------------------------------------

    def fire(self, kind: str, ref: UUID) -> Transition | None:
        """The sweep finds that due."""
        workflow_id, _ = self.store.dues[(kind, ref)]
        facts = self.facts_of(kind, ref)
        if kind == DueKind.APPLY:
            self.kept.pop(ref, None)
        return self.advance(workflow_id, facts)

    def in_flight(self, call_id: UUID) -> None:
        """A call that is still open when it would be rung: its due becomes that of its attempt."""
        call = self.store.call(call_id)
        assert call.state == CallState.INTENDED, f"{call.step}#{call.n} is {call.state}, not in flight"
        assert call.attempt_id is not None
        attempt = attempt_of(call, call.attempt_id)
        workflow_id, due = self.store.dues.pop((DueKind.CALL, call_id))
        at = attempt.send_deadline + LEASE
        moved = dataclasses.replace(due, kind=DueKind.ATTEMPT, due_at=at, ring_at=at, worker=attempt.worker)
        self.store.dues[(DueKind.ATTEMPT, call_id)] = (workflow_id, moved)

    def facts_of(self, kind: str, ref: UUID) -> list[Fact]:
        """What that due means."""
        workflow_id, due = self.store.dues[(kind, ref)]
        calls = self.store.calls[workflow_id]
        match kind:
            case DueKind.DEADLINE:
                fact: Fact = DeadlinePassed()
            case DueKind.STEP_TIMEOUT:
                fact = StepTimedOut(step=due.note or "")
            case DueKind.EXPIRY:
                approval = self.store.approvals[workflow_id][ref]
                fact = ApprovalExpired(approval_id=ref, step=approval.step, call_id=approval.call_id)
            case DueKind.ATTEMPT | DueKind.RESULT:
                call, attempt = calls[ref], calls[ref].attempt_id
                assert attempt is not None
                kind_of = WorkerLost if kind == DueKind.ATTEMPT else ResultTimedOut
                fact = kind_of(call_id=ref, attempt_id=attempt, step=call.step)
            case DueKind.SWITCH:
                fact = SwitchReleased(call_id=ref, step=calls[ref].step)
            case DueKind.DEPENDENCY:
                fact = DependencyLooked(call_id=ref, step=calls[ref].step)
            case DueKind.ATTACHED:
                fact = self._look(calls[ref])
            case _:
                return self._told_again(calls[ref])
        return [fact]

    def _look(self, call: Call) -> OwnerLooked:
        owner = self.store.attached_to(call)
        state, undo, result = (None, "none", None) if owner is None else self.store.owner(owner)
        return OwnerLooked(call_id=call.id, step=call.step, owner=owner, state=state, undo=undo, result=result)

    def _told_again(self, call: Call) -> list[Fact]:
        found: list[Fact] = []
        for attempt in (attempt_of(call, each) for each in self.kept.get(call.id, [])):
            body = None if attempt.evidence is None else self.payloads[(call.workflow_id, attempt.evidence)]
            outcome = Outcome(
                certainty=AttemptOutcome(attempt.outcome or ""),
                failure=None if attempt.failure is None else Failure.from_json(attempt.failure),
                evidence=None if body is None else Evidence(body=body, media_type=attempt.media_type),
                status_code=attempt.status_code,
            )
            found.append(
                CallSettled(call_id=call.id, attempt_id=attempt.id, step=call.step, kept=True, outcome=outcome)
            )
        return found

    def judged(self, asked: machine_verbs.Asked) -> tuple[machine_verbs.Judge, Fact]:
        if asked.verb == "decide":
            approval = self.store.approvals[asked.workflow_id][asked.ref or asked.workflow_id]
            return machine_verbs.judged_approval(approval, asked, now=self.now)
        return machine_verbs.judged(asked, now=self.now)

    def ask(self, asked: machine_verbs.Asked) -> Transition | None:
        """Raises `Refused`."""
        judge, reads_for = self.judged(asked)
        return self.advance(asked.workflow_id, [reads_for], judge=judge)

    def lose(self, worker: UUID, *, proof: bool) -> None:
        self.store.workers[worker] = Sender(
            lease_until=self.now, reaped_at=self.now if proof else None, lost_at=self.now
        )

    def shut(self, scope: str) -> None:
        self.store.shut.add(scope)

    def reopen(self, scope: str) -> None:
        self.store.shut.discard(scope)
        for (kind, ref), (_, due) in list(self.store.dues.items()):
            if kind == DueKind.DEPENDENCY and due.note == scope:
                self.store.wake(kind, ref, at=self.now)

    def hold(self, scope: str) -> None:
        self.store.switches.setdefault(scope, self.now)

    def release(self, scope: str) -> None:
        self.store.switches.pop(scope, None)
        for (kind, ref), (_, due) in list(self.store.dues.items()):
            if kind == DueKind.SWITCH and due.note == scope:
                self.store.wake(kind, ref, at=self.now)


def settled(flight: Flight, outcome: Outcome, *, kept: bool = False) -> CallSettled:
    return CallSettled(
        call_id=flight.call_id, attempt_id=flight.attempt_id, step=flight.step, outcome=outcome, kept=kept
    )
