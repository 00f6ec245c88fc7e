"""What follows when a budget does not allow a call, when room in it becomes free, and when it is topped up.

    exceed        no end of other calls can make room: the call fails unsent, or is parked until a person tops up
    free, look    a reservation was taken back, or a minute has gone: who waits for room becomes due, in order
    pass_time     the calls of a scope have taken as long as they may
    top_up        a person gives more: what was parked goes on

A call that is parked (`on_exceeded: pause`) stands in nobody's way: the workflow goes on wherever its budgets allow. A
failed one was never sent; the workflow can be topped up after its end, too, and then retried.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from app.domain import bindings, budget_words, budgets, concluding, ending
from app.domain.accounts import FAIL, PAUSE, WHOLE, Account, Limits, milliseconds
from app.domain.aggregate import Call
from app.domain.budget_facts import BudgetExceeded, BudgetFreed, BudgetLooked, BudgetRaised, DurationPassed
from app.domain.facts import StepTimedOut
from app.domain.outcomes import JSON, Failure
from app.domain.states import CallKind, CallState, FailureKind, HeldReason, StepState, WorkflowStatus
from app.domain.transition import Draft

EXCEEDED: Final = "budget_exceeded"
"""What needs a person's attention."""
NEARLY: Final = "budget_80"

MOST_ROUNDS: Final = 200
"""Of reading who waits, in one decision: more of them are found by their own dues."""


def exceed(draft: Draft, fact: BudgetExceeded) -> None:
    call = draft.call(fact.call_id)
    if not budgets.is_held(call) or budgets.is_parked(call):
        return
    verdict = budgets.judge(draft, call)
    if verdict.exceeded is None:
        if verdict.fits:
            draft.move_call(call, CallState.DUE)
        return
    account, measure = verdict.exceeded
    wanted = int((call.budget or {}).get(measure, 0))
    failure = budget_words.over(account, measure, workflow=ending.shown_id(draft), now=draft.now, wanted=wanted)
    _announce(draft, account, measure, failure, call=call)
    if account.on_exceeded == FAIL:
        concluding.fail(draft, call, failure)
    else:
        _park(draft, call, failure)


def _park(draft: Draft, call: Call, failure: Failure) -> None:
    call.budget = {**(call.budget or {}), "parked": True, "since": bindings.instant(draft.now)}
    call.failure = failure.to_json()
    draft.touch_call(call)
    draft.set_due(budgets.held_due(draft, call))
    if EXCEEDED not in draft.workflow.attention:
        draft.attend(EXCEEDED, tool=call.tool)


def _announce(draft: Draft, account: Account, measure: str, failure: Failure, *, call: Call | None = None) -> None:
    """Once, until it is topped up: many calls may want what is not there."""
    if account.exceeded:
        return
    account.exceeded = True
    budgets.touch(draft, account)
    draft.event(
        "workflow.budget.exceeded",
        call=call,
        data={
            "scope": budgets.shown(account.scope),
            "measure": measure,
            "message": failure.message,
            "on_exceeded": account.on_exceeded,
        },
    )


# --- room ----------------------------------------------------------------------------------------------------------


def free(draft: Draft, fact: BudgetFreed) -> None:
    """Those who waited longest first. What still has no room stays as it is, unwritten."""
    draft.freed += 1
    decided = [_try(draft, call) for call in _waiting(draft)]
    if any(decided) and fact.freed < MOST_ROUNDS:  # perhaps there were more of them than were read
        budgets.freed(draft)


def look(draft: Draft, fact: BudgetLooked) -> None:
    call = draft.call(fact.call_id)
    if not budgets.is_held(call):
        return
    _try(draft, call)
    if budgets.is_held(call):
        draft.set_due(budgets.held_due(draft, call))


def _waiting(draft: Draft) -> list[Call]:
    held = [call for call in draft.snapshot.calls.values() if budgets.is_held(call) and not budgets.is_parked(call)]
    return sorted(held, key=lambda call: call.id)


def _try(draft: Draft, call: Call) -> bool:
    """Whether its waiting is over: it became due, or nothing can make room for it."""
    verdict = budgets.judge(draft, call)
    if verdict.waits is not None:
        return False
    if verdict.fits:
        _release(draft, call)
    elif not budgets.is_parked(call):
        draft.then(BudgetExceeded(call_id=call.id, step=call.step))
    return True


def _release(draft: Draft, call: Call) -> None:
    since = datetime.fromisoformat((call.budget or {})["since"])
    if budgets.is_parked(call):
        call.failure = None
    record = {
        "kind": FailureKind.BUDGET_EXCEEDED.value,
        "rule": "budget",
        "source": "definition",
        "line": None,
        "used": 0,
        "allowed": 0,
        "message": "It waited until its budget had room for it.",
        "change": None,
        "diff": None,
        "waited_ms": milliseconds(draft.now - since),
        "result": None,
    }
    call.recovery = [*call.recovery, record]
    draft.move_call(call, CallState.DUE)
    draft.event(
        "effect.call.changed",
        call=call,
        moved=(CallState.HELD, call.state),
        data={"reason": "its budget has room for it"},
    )


# --- time ----------------------------------------------------------------------------------------------------------


def pass_time(draft: Draft, fact: DurationPassed) -> None:
    """Every call of the scope together has taken as long as it may: fail now, or send nothing more."""
    account = draft.snapshot.accounts.get(fact.scope)
    status = WorkflowStatus(draft.workflow.status)
    if account is None or status.final or status.ending:
        return
    if not account.out_of_time(draft.now):
        budgets.set_timer(draft, account, running=account.active_since is not None)
        return
    failure = budget_words.over(account, budget_words.DURATION, workflow=ending.shown_id(draft), now=draft.now)
    _announce(draft, account, budget_words.DURATION, failure)
    budgets.set_timer(draft, account, running=False)
    if account.on_exceeded == PAUSE:
        _stop_sending(draft, account, failure)
    elif account.scope == WHOLE:
        told = {"kind": failure.kind, "message": failure.message, "fix": failure.fix, "step": None}
        ending.fail_workflow(draft, told)
    else:
        _end_step(draft, account.scope)


def _end_step(draft: Draft, path: str) -> None:
    row = draft.step(path)
    if not StepState(row.state).final:
        row.counters = {**row.counters, ending.OUT_OF_BUDGET: 1}
        ending.time_out(draft, StepTimedOut(step=path))


def _stop_sending(draft: Draft, account: Account, failure: Failure) -> None:
    """What is due is parked; what is in flight ends, and what would follow finds the budget used up."""
    for call in list(draft.snapshot.calls.values()):
        due = call.state == CallState.DUE and not call.maybe_done
        if due and call.kind in (CallKind.MODEL, CallKind.TOOL) and account.covers(call.step):
            draft.move_call(call, CallState.HELD, held=HeldReason.BUDGET)
            draft.event(
                "effect.call.changed",
                call=call,
                moved=(CallState.DUE, CallState.HELD),
                data={"reason": "the budget is used up"},
            )
            _park(draft, call, failure)


# --- more ----------------------------------------------------------------------------------------------------------


def top_up(draft: Draft, fact: BudgetRaised) -> None:
    """Whoever asks was told before what there is to raise (`app/engine/top_up.py`)."""
    account = draft.snapshot.accounts[fact.scope]
    account.raise_limits(fact.added)
    account.warned = account.nearly_spent(draft.now) is not None
    budgets.touch(draft, account)
    data = {"scope": budgets.shown(account.scope), "added": added_json(fact.added), "by": fact.by, "note": fact.note}
    draft.event("workflow.budget.changed", data=data)
    draft.audit("workflow.budget", by=fact.by, object=ending.shown_id(draft), data=data)
    if WorkflowStatus(draft.workflow.status).final:
        return
    budgets.set_timer(draft, account, running=account.active_since is not None)
    held = [call for call in draft.snapshot.calls.values() if budgets.is_held(call)]
    for call in sorted(held, key=lambda each: each.id):
        _try(draft, call)
    _attend_no_more(draft)


def _attend_no_more(draft: Draft) -> None:
    accounts = draft.snapshot.accounts.values()
    if not any(budgets.is_held(call) and budgets.is_parked(call) for call in draft.snapshot.calls.values()):
        draft.unattend(EXCEEDED)
    if not any(account.warned for account in accounts):
        draft.unattend(NEARLY)


def added_json(added: Limits) -> dict[str, JSON]:
    """What was given, without what was not."""
    return {name: value for name, value in added.to_json().items() if value is not None}
