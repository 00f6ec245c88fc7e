"""One tool call in the middle of its life, made by hand, and what the product decides about it.

`Case` says in the words of the protocol (`protocol_rules.py`) how the call stands; `decided(…)` gives the product the
rows and a fact, and says in the same words what it decided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final
from uuid import UUID

from app.domain.aggregate import Attempt, Call, Sender, Snapshot, StepRow, Workflow
from app.domain.definition.checking import check
from app.domain.definition.compiling import compile_plan
from app.domain.facts import CallSettled, Fact
from app.domain.outcomes import Evidence, Failure, Outcome
from app.domain.plan import Plan
from app.domain.rules import Rules
from app.domain.states import AttemptOutcome, FailureKind
from app.domain.transitions import Decision
from tests.domain.definition_cases import CATALOGUE
from tests.domain.protocol_rules import CHECKABLE, DOUBT, FAIL, KEYED, NEXT_KEY, PROBE, REPEAT, SUCCEED

NOW: Final = datetime(2026, 11, 24, 12, tzinfo=UTC)
TIMEOUT: Final = timedelta(seconds=10)
SETTLE: Final = timedelta(seconds=20)
PROBE_DEADLINE: Final = timedelta(minutes=1)
CALL: Final = UUID(int=10)
RULINGS: Final = {"succeeded": SUCCEED, "failed": FAIL, "in_doubt": DOUBT, "probing": PROBE}
FAILURES: Final = {
    "failed": (AttemptOutcome.FAILED, FailureKind.TOOL_ERROR, 409),
    "not_sent": (AttemptOutcome.NOT_SENT, FailureKind.NETWORK, None),
    "unknown": (AttemptOutcome.UNKNOWN, FailureKind.TIMEOUT, None),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Tried:
    """An attempt: its outcome on record (None: none), and whether it was given up."""

    outcome: str | None = None
    lost: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    effect: str
    state: str = "intended"
    tried: Sequence[Tried] = (Tried(),)
    patience: bool = True
    key_fresh: bool = True
    resolved: dict[str, Any] | None = None
    sender: Sender | None = None
    """What is known of the worker of the last attempt."""
    send_deadline: datetime = NOW
    not_before: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Decided:
    ruling: str
    """Empty: the call stands as it stood."""
    told: tuple[str, ...]
    """Types of the events."""
    call: Call
    snapshot: Snapshot = field(repr=False)


def attempt_id(n: int) -> UUID:
    return UUID(int=100 + n)


def answer(observed: str) -> Outcome:
    """A tool's answer, or why there is none, in the protocol's word."""
    if observed == "succeeded":
        evidence = Evidence(body=b'{"id": 7}', media_type="application/json")
        return Outcome(certainty=AttemptOutcome.SUCCEEDED, evidence=evidence, status_code=200)
    certainty, kind, status = FAILURES[observed]
    return Outcome(certainty=certainty, failure=Failure(kind=kind, message="So it was.", status_code=status))


def settled(n: int, observed: str) -> CallSettled:
    return CallSettled(call_id=CALL, attempt_id=attempt_id(n), step="s", outcome=answer(observed))


def decided(case: Case, *facts: Fact, now: datetime = NOW) -> Decided:
    """What the product makes of the facts, one after the other: the last ruling, and all that was told."""
    snapshot = rows(case)
    call, told, ruling = snapshot.calls[CALL], list[str](), ""
    for fact in facts:
        state, generation = call.state, call.generation
        decision = Decision(snapshot, plan=plan(case.effect, case.patience), now=now, rules=Rules())
        decision.take([fact])
        events = [event.type for event in decision.draft.transition.events]
        told += events
        if call.state == "due" and (state != "due" or "agent.step.retried" in events):
            ruling = REPEAT if call.generation == generation else NEXT_KEY
        else:
            ruling = "" if call.state == state else RULINGS[call.state]
    return Decided(ruling=ruling, told=tuple(told), call=call, snapshot=snapshot)


@cache
def plan(effect: str, patience: bool) -> Plan:
    tool: dict[str, Any] = {"http": {"method": "POST", "url": "https://x.io/e"}, "effect": effect, "timeout": "10s"}
    tools = {"do": tool}
    if effect == KEYED:
        tool |= {"key_header": "Idempotency-Key", "key_ttl": "24h"}
    if effect == CHECKABLE:
        tool["probe"] = {
            "tool": "look",
            "with": {"id": "${{ arguments.id }}"},
            "found": "output.there",
            "deadline": "1m",
        }
        tools["look"] = {"http": {"method": "GET", "url": "https://x.io/e"}, "effect": "read_only"}
    step = {"tool": "do", "with": {"id": 7}, "retry": {"any": {"max_retries": 1 if patience else 0}}}
    checked = check({"name": "x", "tools": tools, "steps": {"s": step}}, catalogue=CATALOGUE)
    assert checked.faults == ()
    assert checked.plan_body is not None
    return compile_plan(checked.plan_body)


def rows(case: Case) -> Snapshot:
    workflow = Workflow(
        id=UUID(int=1),
        tenant_id=UUID(int=2),
        name="x",
        definition_digest="sha256:d",
        plan_digest="sha256:p",
        engine_version=1,
        status="running",
        idempotency_key="k",
        input={},
        labels={},
        steps_total=1,
        steps_open=1,
        open_calls=1,
        deadline_at=NOW + timedelta(days=1),
        created_at=NOW,
        updated_at=NOW,
    )
    step = StepRow(
        workflow_id=workflow.id,
        path="s",
        tenant_id=workflow.tenant_id,
        name="s",
        position=0,
        kind="tool",
        state="succeeded" if case.state == "succeeded" else "running",
        unmet_needs=0,
        calls=1,
    )
    call = _call(case, workflow)
    senders = {} if case.sender is None else {_worker(call.attempts): case.sender}
    return Snapshot(workflow=workflow, steps={"s": step}, calls={CALL: call}, workers=senders)


def _call(case: Case, workflow: Workflow) -> Call:
    history = [
        Attempt(
            workflow_id=workflow.id,
            call_id=CALL,
            id=attempt_id(n),
            tenant_id=workflow.tenant_id,
            n=n,
            worker=_worker(n),
            intended_at=NOW - timedelta(minutes=1),
            send_deadline=case.send_deadline,
            outcome=tried.outcome,
            lost_at=NOW if tried.lost else None,
        )
        for n, tried in enumerate(case.tried, start=1)
    ]
    keyed = case.effect == KEYED
    needed = TIMEOUT if case.key_fresh else TIMEOUT - timedelta(seconds=1)
    return Call(
        workflow_id=workflow.id,
        id=CALL,
        tenant_id=workflow.tenant_id,
        step="s",
        n=1,
        kind="tool",
        tool="do",
        args_sha256="0" * 64,
        effect=case.effect,
        state=case.state,
        attempt_id=history[-1].id,
        attempts=len(history),
        request={"tool": "do", "arguments": {"id": 7}, "business_key": None},
        key="k" if keyed else None,
        key_deadline=NOW + needed if keyed else None,
        timeout_ms=TIMEOUT // timedelta(milliseconds=1),
        settle_ms=SETTLE // timedelta(milliseconds=1),
        resolved=case.resolved,
        not_before=case.not_before,
        engine_version=1,
        created_at=NOW,
        history=history,
    )


def _worker(n: int) -> UUID:
    return UUID(int=200 + n)
