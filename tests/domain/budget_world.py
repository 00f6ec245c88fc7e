"""A workflow with budgets in memory, and whatever may happen to its calls: what the search through the ledger drives.

Every decision is the real one (`transitions.Decision`); rows are kept between decisions in one snapshot, which stands
for the tables. After each step `breaches()` says which law of the ledger does not hold.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid5

from app.domain.accounts import ESTIMATED, MEASURES, Account, Limits
from app.domain.aggregate import Attempt, Call, Sender, Snapshot, StepRow, Workflow
from app.domain.budget_facts import BudgetLooked, BudgetRaised
from app.domain.definition.catalogue import Catalogue
from app.domain.definition.checking import check
from app.domain.definition.compiling import compile_plan
from app.domain.facts import (
    CallSettled,
    CancelRequested,
    Fact,
    PauseRequested,
    ResumeRequested,
    WorkerLost,
    WorkflowAccepted,
)
from app.domain.opening import open_accounts
from app.domain.outcomes import Evidence, Failure, Outcome, Usage
from app.domain.plan import Plan
from app.domain.rates import Rate, Tier
from app.domain.rules import Rules
from app.domain.states import AttemptOutcome, CallKind, CallState, FailureKind, StepState, WorkflowStatus
from app.domain.transitions import Decision

RATE: Final = Rate(version="test/1", tiers=(Tier(above=0, input=1_000_000, output=5_000_000),))
"""A micro-dollar for a token that is read, five for one that is written."""
NAMES: Final = UUID(int=7)
WORKER: Final = UUID(int=1)
GONE: Final = UUID(int=2)
"""A worker whose lease is over."""
OUTCOMES: Final = ("final", "tools", "not_sent", "unknown", "limited", "refused", "cut")


def plan(*, steps: int, limits: dict[str, Any], own: dict[str, Any] | None) -> Plan:
    tools = {"look": {"http": {"method": "GET", "url": "https://x.io/e"}}}
    one: dict[str, Any] = {
        "agent": {"model": "fast", "tools": ["look"], "max_tokens": 1000},
        "prompt": "Do it.",
        "on_error": "continue",
    }
    document = {
        "name": "x",
        "budget": limits,
        "tools": tools,
        "steps": {f"s{n}": {**one, **({"budget": own} if own and n == 0 else {})} for n in range(steps)},
    }
    catalogue = Catalogue(models={"fast": "claude-fast-1"}, rate_of=lambda model: RATE)
    checked = check(document, catalogue=catalogue)
    assert checked.plan_body is not None, checked.faults
    return compile_plan(checked.plan_body)


@dataclass(kw_only=True)
class BudgetWorld:
    plan: Plan
    snapshot: Snapshot = field(init=False)
    now: datetime = datetime(2026, 11, 22, 10, tzinfo=UTC)
    told: int = 0
    honest: bool = True
    """Answers never take more than the worst case of their call."""

    def __post_init__(self) -> None:
        workflow = Workflow(
            id=uuid5(NAMES, "wf"), tenant_id=NAMES, name="x", definition_digest="d", plan_digest=self.plan.digest,
            engine_version=1, status=WorkflowStatus.QUEUED, idempotency_key="k", input={}, labels={},
            steps_total=len(self.plan.steps), steps_open=len(self.plan.steps), budgeted=True,
            deadline_at=self.now + timedelta(days=9), created_at=self.now, updated_at=self.now,
        )  # fmt: skip
        self.snapshot = Snapshot(workflow=workflow, complete=True, top=True)
        self.snapshot.accounts = open_accounts(self.plan, None, workflow_id=workflow.id, tenant_id=NAMES)
        for position, step in enumerate(self.plan.steps.values()):
            self.snapshot.steps[step.id] = StepRow(
                workflow_id=workflow.id, path=step.id, tenant_id=NAMES, name=step.id, position=position,
                kind=step.kind, state=StepState.PENDING, unmet_needs=0,
            )  # fmt: skip
        lease = self.now + timedelta(days=1)
        self.snapshot.workers = {
            WORKER: Sender(lease_until=lease, reaped_at=None, lost_at=None),
            GONE: Sender(lease_until=self.now, reaped_at=None, lost_at=self.now),
        }
        self.tell(WorkflowAccepted())

    # --- what may happen -----------------------------------------------------------------------------------------

    def tell(self, *facts: Fact) -> None:
        self.now += timedelta(seconds=1)
        decision = Decision(self.snapshot, plan=self.plan, now=self.now, rules=Rules())
        left: Sequence[Fact] = facts
        for _ in range(500):
            left = decision.take(left)
            if not left:
                break
            self.snapshot.answered += left
        else:
            raise AssertionError("a decision does not come to an end")
        decision.close()
        self.snapshot.answered.clear()

    def claim(self, n: int, *, worker: UUID = WORKER) -> None:
        call = _pick(self.calls(CallState.DUE), n)
        if call is not None:
            self.told += 1
            call.state, call.attempts = CallState.INTENDED, call.attempts + 1
            call.attempt_id = uuid5(NAMES, f"attempt-{self.told}")
            attempt = Attempt(
                workflow_id=call.workflow_id, call_id=call.id, id=call.attempt_id, tenant_id=NAMES, n=call.attempts,
                worker=worker, intended_at=self.now, send_deadline=self.now + timedelta(seconds=30),
            )  # fmt: skip
            call.history.append(attempt)

    def settle(self, n: int, how: str, share: float) -> None:
        """An attempt in flight comes to its outcome; `share`: of its worst case."""
        call = _pick(self.calls(CallState.INTENDED), n)
        if call is not None and call.attempt_id is not None:
            self.tell(self._settled(call, call.attempt_id, how, share))

    def lose(self, n: int) -> None:
        call = _pick([c for c in self.calls(CallState.INTENDED) if c.history[-1].worker == GONE], n)
        if call is not None and call.attempt_id is not None:
            self.tell(WorkerLost(call_id=call.id, attempt_id=call.attempt_id, step=call.step))

    def late(self, n: int, how: str, share: float) -> None:
        """Evidence of an attempt that was lost."""
        lost = [(c, a) for c in self.every_call() for a in c.history if a.lost_at is not None and a.outcome is None]
        if lost:
            call, attempt = lost[n % len(lost)]
            self.tell(self._settled(call, attempt.id, how, share))

    def again(self, n: int) -> None:
        """An outcome is told twice."""
        known = [(c, a) for c in self.every_call() for a in c.history if a.outcome is not None]
        if known:
            call, attempt = known[n % len(known)]
            self.tell(self._settled(call, attempt.id, "final", 1.0))

    def together(self, n: int) -> None:
        """Two outcomes in one batch."""
        flying = self.calls(CallState.INTENDED)[:2]
        facts = [self._settled(c, c.attempt_id, OUTCOMES[n % 2], 0.5) for c in flying if c.attempt_id is not None]
        if facts:
            self.tell(*facts)

    def look(self, n: int) -> None:
        held = [c for c in self.calls(CallState.HELD) if c.held_reason == "budget"]
        call = _pick(held, n)
        if call is not None:
            self.tell(BudgetLooked(call_id=call.id, step=call.step))

    def top_up(self, amount: int) -> None:
        if WorkflowStatus(self.snapshot.workflow.status).ending or not self.snapshot.accounts:
            return
        for scope, account in self.snapshot.accounts.items():
            added = {measure: amount for measure in MEASURES if account.limit(measure) is not None}
            self.tell(BudgetRaised(scope=scope, added=Limits(**added), note=None, by="kim"))

    def pause(self) -> None:
        paused = self.snapshot.workflow.status == WorkflowStatus.PAUSED
        asked = {"reason": None, "by": "kim"}
        self.tell(ResumeRequested(**asked) if paused else PauseRequested(**asked))

    def cancel(self) -> None:
        self.tell(CancelRequested(reason=None, by="kim"))

    def run_out(self) -> None:
        """Whatever is due is made and answered, until the workflow rests."""
        for n in range(400):
            if not self.calls(CallState.DUE) and not self.calls(CallState.INTENDED):
                return
            self.claim(0)
            self.settle(0, "final" if n > 40 else OUTCOMES[n % 2], 0.4)
        raise AssertionError("it does not come to rest")

    # --- what is so ----------------------------------------------------------------------------------------------

    def every_call(self) -> list[Call]:
        return sorted(self.snapshot.calls.values(), key=lambda call: call.id)

    def calls(self, state: CallState) -> list[Call]:
        return [call for call in self.every_call() if call.state == state]

    def breaches(self) -> list[str]:
        return [breach for account in self.snapshot.accounts.values() for breach in self._of(account)]

    def _of(self, account: Account) -> list[str]:
        found = []
        mine = [call for call in self.every_call() if account.covers(call.step)]
        holding = [call for call in mine if (call.budget or {}).get("reserved")]
        for measure in MEASURES:
            limit, spent, reserved = account.limit(measure), account.spent(measure), account.reserved(measure)
            beyond = getattr(account, f"overrun_{measure}") if measure in ESTIMATED else 0
            if limit is not None and spent + reserved > limit + beyond:
                found.append(f"{account.scope}: {spent} + {reserved} of {limit} {measure}")
            if beyond and self.honest:
                found.append(f"{account.scope}: {measure} overran by {beyond} although every estimate was kept")
            if reserved != sum(call.budget.get(measure, 0) for call in holding):
                found.append(f"{account.scope}: {reserved} {measure} are reserved, and not by its calls")
            if reserved < 0 or spent < 0:
                found.append(f"{account.scope}: {measure} below nothing")
        truth = sum(_took(attempt) for call in mine for attempt in call.history)
        if account.spent_tokens != truth:
            found.append(f"{account.scope}: {account.spent_tokens} tokens are spent, and its attempts took {truth}")
        loose = [call for call in holding if call.state not in (CallState.DUE, CallState.INTENDED)]
        found += [f"{call.step}#{call.n} is {call.state} and still reserves" for call in loose]
        open_ones = [c for c in mine if c.state in (CallState.DUE, CallState.INTENDED, CallState.PROBING)]
        if account.open_calls != len(open_ones):
            found.append(f"{account.scope}: counts {account.open_calls} open calls of {len(open_ones)}")
        if (account.open_calls > 0) != (account.active_since is not None):
            found.append(f"{account.scope}: its clock does not follow its calls")
        if not reserved_anywhere(account) and self._forgotten(mine):
            found.append(f"{account.scope}: a call waits although nobody has reserved anything")
        return found

    def _forgotten(self, mine: list[Call]) -> bool:
        """Waits for others, of whom there are none."""
        running = not WorkflowStatus(self.snapshot.workflow.status).ending
        held = [c for c in mine if c.held_reason == "budget" and not (c.budget or {}).get("parked")]
        return running and bool(held) and not any((c.budget or {}).get("reserved") for c in self.every_call())

    def _settled(self, call: Call, attempt_id: UUID, how: str, share: float) -> CallSettled:
        return CallSettled(
            call_id=call.id, attempt_id=attempt_id, step=call.step, outcome=self._outcome(call, how, share)
        )

    def _outcome(self, call: Call, how: str, share: float) -> Outcome:
        words = {
            "not_sent": (AttemptOutcome.NOT_SENT, FailureKind.NETWORK),
            "unknown": (AttemptOutcome.UNKNOWN, FailureKind.TIMEOUT),
            "limited": (AttemptOutcome.FAILED, FailureKind.RATE_LIMITED),
            "refused": (AttemptOutcome.FAILED, FailureKind.INVALID_REQUEST),
            "cut": (AttemptOutcome.UNKNOWN, FailureKind.NETWORK),
        }
        if how in words:
            certainty, kind = words[how]
            partial = Usage(input_tokens=10, output_tokens=1) if how == "cut" and call.kind == CallKind.MODEL else None
            return Outcome(certainty=certainty, failure=Failure(kind=kind, message="no"), usage=partial)
        if call.kind != CallKind.MODEL:
            return _answered({"ok": True}, None)
        budget = call.budget or {"input": 1000}
        read = int(budget["input"] * min(share, 1.0)) if self.honest else int(budget["input"] * share * 2)
        wrote = int(call.request["max_tokens"] * min(share, 1.0))
        usage = Usage(input_tokens=read, output_tokens=wrote, model="claude-fast-1")
        return _answered(_message(how, call), usage)


def _took(attempt: Attempt) -> int:
    """Tokens, as the attempt's own row says."""
    if attempt.outcome is None:
        return attempt.reserved_tokens or 0  # lost, or still out when its call was settled otherwise
    if attempt.outcome == AttemptOutcome.UNKNOWN:
        return attempt.reserved_tokens or 0
    usage = attempt.usage or {}
    return int(sum(usage.get(name) or 0 for name in ("input_tokens", "output_tokens")))


def reserved_anywhere(account: Account) -> bool:
    return any(account.reserved(measure) for measure in MEASURES)


def _message(how: str, call: Call) -> dict[str, Any]:
    if how == "tools":
        names = [f"toolu_{call.id.hex[:8]}_{n}" for n in range(2)]
        uses = [{"type": "tool_use", "id": name, "name": "look", "input": {"of": name}} for name in names]
        return {"type": "message", "role": "assistant", "content": uses, "stop_reason": "tool_use"}
    text = [{"type": "text", "text": "done"}]
    return {"type": "message", "role": "assistant", "content": text, "stop_reason": "end_turn"}


def _answered(value: Any, usage: Usage | None) -> Outcome:
    body = Evidence(body=json.dumps(value).encode(), media_type="application/json")
    return Outcome(certainty=AttemptOutcome.SUCCEEDED, evidence=body, status_code=200, usage=usage)


def _pick(calls: list[Call], n: int) -> Call | None:
    return calls[n % len(calls)] if calls else None
