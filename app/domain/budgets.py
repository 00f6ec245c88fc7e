"""The ledger of budgets in a decision: a call is admitted before it becomes due, and settled once when it was made.

    admit(draft, call)                      reserve its worst case, or say that it is held; asked by `Draft` whenever a
                                            model or tool call is to become due
    leave(draft, call, to)                  a call goes on without an outcome: what it had reserved is let go, or counts
    settle(draft, call, attempt, outcome)   an attempt's outcome is written: what it really took is spent
    count, close                            the time in which a scope has calls open, and its timer
    left, recovery_left                     for who wants to know before it decides

All decisions about a workflow are made one after the other under its row's lock, so the account in the snapshot *is*
the account: what is reserved here cannot be reserved again by a parallel branch. Workflows without a budget have no
accounts, and every function here returns at its first line.

What a call wants stands in `Call.budget`: the amounts, and `reserved`: whether they are set aside now. They are while
it is due or intended, and never else. So a crash anywhere leaves either both (row and reservation) or neither; an
outcome that is told twice finds nothing reserved; and an attempt that was lost counts at its estimate
(`attempts.reserved_*`) until its late evidence says what was true.

An attempt's cost: not sent nothing; answered what the provider counted; lost or unknown its whole reservation, because
whoever sent it may be billed for all of it. Probes, compensations and discoveries are exempt: they must never be what
a budget forbids. So is a call of a workflow that is on its way to its end: it settles what may have happened.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from app.domain import amounts, canonical, estimating, ids
from app.domain.accounts import ESTIMATED, MEASURES, WHOLE, Account, Amounts
from app.domain.aggregate import Attempt, Call, StepRow
from app.domain.budget_facts import BudgetExceeded, BudgetFreed
from app.domain.budget_words import DURATION, PRICE
from app.domain.changes import Due
from app.domain.outcomes import JSON, Outcome
from app.domain.states import AttemptOutcome, CallKind, CallState, DueKind, HeldReason, WorkflowStatus

if TYPE_CHECKING:
    from app.domain.transition import Draft

LEAST_ANSWER: Final = 256
"""Tokens: an answer shorter than that is none, so `max_tokens` is never made smaller to fit."""
LOOK_AGAIN: Final = timedelta(minutes=1)
"""Every end of another call tells who waits for room; this is for an end that nobody told."""
WAITS: Final = "reserved"
PARKED: Final = "exceeded"
"""Notes of the due of a held call: others hold what it needs, or a person must top up."""

_KINDS: Final = (CallKind.MODEL, CallKind.TOOL)


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What a call's budgets say about it."""

    exceeded: tuple[Account, str] | None = None
    """Whose limit on which measure cannot be kept whatever becomes of the other calls."""
    waits: tuple[Account, str] | None = None
    """Where only what other calls have reserved stands in the way."""
    max_tokens: int | None = None
    """It fits with an answer of so many tokens at most; None: as it is."""

    @property
    def fits(self) -> bool:
        return self.exceeded is None and self.waits is None


def covering(draft: Draft, path: str) -> list[Account]:
    """The accounts of a step, the workflow's first."""
    accounts = draft.snapshot.accounts
    return [accounts[scope] for scope in sorted(accounts) if accounts[scope].covers(path)]


def governs(draft: Draft, call: Call) -> bool:
    """Whether the call needs room in a budget."""
    if not draft.snapshot.accounts or call.kind not in _KINDS or WorkflowStatus(draft.workflow.status).ending:
        return False
    return bool(covering(draft, call.step))


# --- admission -----------------------------------------------------------------------------------------------------


def admit(draft: Draft, call: Call) -> bool:
    """Whether the call may become due: then its worst case is reserved. Else it is to be held(budget), and what
    follows from that is left behind as a fact. What is reserved already stays so."""
    if not governs(draft, call) or is_reserved(call):
        return True
    wanted = _wanted(draft, call)
    verdict = judge(draft, call)
    if not verdict.fits:
        parked = bool((call.budget or {}).get("parked")) and verdict.exceeded is not None
        since = (call.budget or {}).get("since") or draft.now.isoformat()
        call.budget = {**wanted, "reserved": False, "since": since, "parked": parked}
        if verdict.exceeded is not None and not parked:  # else it was told, and waits for a top-up
            draft.then(BudgetExceeded(call_id=call.id, step=call.step))
        return False
    if verdict.max_tokens is not None:
        wanted = _shorten(draft, call, verdict.max_tokens)
    for account in covering(draft, call.step):
        account.reserve(wanted)
        touch(draft, account)
    call.budget = {**wanted, "reserved": True}
    return True


def is_reserved(call: Call) -> bool:
    return bool((call.budget or {}).get("reserved"))


def _wanted(draft: Draft, call: Call) -> dict[str, int]:
    """As it was found out when the call was made: attempts send the same bytes, so their worst case is the same."""
    if call.budget is None:
        call.budget = {**estimating.worst(draft, call), "reserved": False}
    return {name: call.budget[name] for name in (*MEASURES, "input") if name in call.budget}


def judge(draft: Draft, call: Call) -> Verdict:
    """What its budgets say now. Shortened is only what was never sent; waited is only for others' reservations."""
    wanted = _wanted(draft, call)
    least = _least(draft, call, wanted)
    waits, shorten = None, False
    for account in covering(draft, call.step):
        if account.limit_microusd is not None and _unpriced(draft, call):
            return Verdict(exceeded=(account, PRICE))
        if account.out_of_time(draft.now) and not call.maybe_done:
            return Verdict(exceeded=(account, DURATION))
        for measure in MEASURES:
            limit, room = account.limit(measure), account.room(measure)
            if limit is None or room is None or wanted.get(measure, 0) <= room or not wanted.get(measure, 0):
                continue
            if account.spent(measure) + least.get(measure, 0) > limit:
                return Verdict(exceeded=(account, measure))
            if account.reserved(measure):
                waits = waits or (account, measure)
            else:
                shorten = True
    if waits is not None or not shorten:
        return Verdict(waits=waits)
    return Verdict(max_tokens=_fitting(draft, call, wanted["input"]))


def _unpriced(draft: Draft, call: Call) -> bool:
    return call.kind == CallKind.MODEL and call.request["model"] not in draft.plan.rates


def _least(draft: Draft, call: Call, wanted: Amounts) -> Amounts:
    """The least that a call can be made with."""
    if call.kind != CallKind.MODEL or call.attempts or call.history:
        return wanted
    output = min(LEAST_ANSWER, int(call.request["max_tokens"]))
    return {**wanted, **estimating.spent_by(draft, call, input=wanted["input"], output=output)}


def _fitting(draft: Draft, call: Call, read: int) -> int:
    """The longest answer that there is room for; at least `LEAST_ANSWER`, for which there was found to be."""
    found = int(call.request["max_tokens"])
    rate = draft.plan.rates.get(call.request["model"])
    for account in covering(draft, call.step):
        tokens, money = account.room("tokens"), account.room("microusd")
        if tokens is not None:
            found = min(found, tokens - read)
        if money is not None and rate is not None:
            found = min(found, rate.affordable(input=read, microusd=money))
    return found


def _shorten(draft: Draft, call: Call, max_tokens: int) -> dict[str, int]:
    """The request with a shorter answer, before it was ever sent; told on the call."""
    asked = int(call.request["max_tokens"])
    call.request = {**call.request, "max_tokens": max_tokens, "clamped_from": asked}
    call.args_sha256 = canonical.sha256_hex(canonical.canonical_json(call.request))
    call.recovery = [*call.recovery, _shortened(asked, max_tokens)]
    draft.rewrite(call)
    kept = {name: call.budget[name] for name in ("turns", "input") if call.budget and name in call.budget}
    return {**kept, **estimating.spent_by(draft, call, input=kept["input"], output=max_tokens)}


def _shortened(asked: int, max_tokens: int) -> dict[str, JSON]:
    return {
        "kind": "budget_exceeded",
        "rule": "budget",
        "source": "definition",
        "line": None,
        "used": 0,
        "allowed": 0,
        "message": f"What is left of the budget allows an answer of {max_tokens:,} tokens.",
        "change": "clamp_max_tokens",
        "diff": [f"- max_tokens {asked}", f"+ max_tokens {max_tokens}"],
        "waited_ms": 0,
        "result": None,
    }


# --- settlement ----------------------------------------------------------------------------------------------------


def settle(draft: Draft, call: Call, attempt: Attempt, outcome: Outcome) -> None:
    """An attempt's outcome is written: once. On time it ends its reservation; late it corrects the estimate at which
    the attempt was counted when it was lost, or when its call went on without it."""
    if not draft.snapshot.accounts or call.budget is None:
        return
    if call.kind == CallKind.MODEL and outcome.certainty is AttemptOutcome.SUCCEEDED and outcome.usage is not None:
        estimating.learn(draft.step(call.step), call, outcome.usage)
        draft.touch(draft.step(call.step))
    reserved = _amounts(call)
    if is_reserved(call) and call.attempt_id == attempt.id and call.state == CallState.INTENDED:
        taken = _taken(draft, call, outcome, reserved)
        _note(draft, attempt, reserved)
        sent = outcome.certainty is not AttemptOutcome.NOT_SENT
        _spend(draft, call, reserved=reserved, taken=taken, counted=sent)
    elif attempt.reserved_tokens is not None:
        before = {"microusd": attempt.reserved_microusd or 0, "tokens": attempt.reserved_tokens}
        taken = _taken(draft, call, outcome, {**reserved, **before})
        _book(draft, call, reserved={}, taken={name: taken.get(name, 0) - before[name] for name in ESTIMATED})
        _note(draft, attempt, taken)


def leave(draft: Draft, call: Call, to: CallState) -> None:
    """The call moves on with a reservation: before it was sent that is let go; after, without an outcome, all of it
    counts, because all of it may have been taken."""
    if not is_reserved(call) or (call.state == CallState.DUE and to is CallState.DUE):
        return
    reserved = _amounts(call)
    if call.state != CallState.INTENDED:
        _spend(draft, call, reserved=reserved, taken={}, counted=False)
        return
    # The one in flight: late evidence that settles the call has made another attempt the call's own.
    attempt = next((one for one in reversed(call.history) if one.outcome is None), None)
    if attempt is not None:
        _note(draft, attempt, reserved)
    _spend(draft, call, reserved=reserved, taken=reserved, counted=True)


def _amounts(call: Call) -> dict[str, int]:
    return {measure: int((call.budget or {}).get(measure, 0)) for measure in MEASURES}


def _taken(draft: Draft, call: Call, outcome: Outcome, reserved: Amounts) -> dict[str, int]:
    """What the attempt took."""
    if outcome.certainty is AttemptOutcome.NOT_SENT:
        return {}
    taken = {"turns": reserved.get("turns", 0), "tool_calls": reserved.get("tool_calls", 0)}
    usage = outcome.usage
    if outcome.certainty is AttemptOutcome.UNKNOWN or (usage is None and outcome.failure is None):
        # Half an answer was seen, or none: what was not seen may be billed all the same.
        return {**taken, "tokens": reserved.get("tokens", 0), "microusd": reserved.get("microusd", 0)}
    if usage is None:
        return taken  # refused before anything was read: not billed
    read = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
    if call.kind != CallKind.MODEL:
        return taken
    guessed = estimating.spent_by(draft, call, input=read, output=usage.output_tokens)
    cost = guessed["microusd"] if usage.cost_microusd is None else usage.cost_microusd
    return {**taken, "tokens": estimating.counted(usage), "microusd": cost}


def _note(draft: Draft, attempt: Attempt, counted: Amounts) -> None:
    attempt.reserved_microusd = counted.get("microusd", 0)
    attempt.reserved_tokens = counted.get("tokens", 0)
    draft.touch_attempt(attempt)


def _spend(draft: Draft, call: Call, *, reserved: Amounts, taken: Amounts, counted: bool) -> None:
    """The reservation ends. A turn or a tool call counts once, however often it is sent."""
    budget = {**(call.budget or {}), "reserved": False}
    if counted:
        budget = {**budget, **{name: 0 for name in ("turns", "tool_calls") if name in budget}}
    call.budget = budget
    draft.touch_call(call)
    _book(draft, call, reserved=reserved, taken=taken)


def _book(draft: Draft, call: Call, *, reserved: Amounts, taken: Amounts) -> None:
    for account in covering(draft, call.step):
        if account.settle(reserved, taken):
            _tell_overrun(draft, account, call)
        touch(draft, account)
        _warn(draft, account)
    freed(draft)


def _tell_overrun(draft: Draft, account: Account, call: Call) -> None:
    draft.event(
        "workflow.budget.overrun",
        call=call,
        data={
            "scope": shown(account.scope),
            "usd": amounts.usd(account.overrun_microusd),
            "tokens": account.overrun_tokens,
        },
    )


def _warn(draft: Draft, account: Account) -> None:
    """Once for each scope, when four fifths of a limit are spent."""
    measure = None if account.warned else account.nearly_spent(draft.now)
    if measure is None:
        return
    account.warned = True
    draft.event("workflow.budget.nearly_spent", data={"scope": shown(account.scope), "measure": measure})
    if not WorkflowStatus(draft.workflow.status).final:
        draft.attend("budget_80")


def freed(draft: Draft) -> None:
    """Calls that wait for room are looked at, if any call is held at all."""
    if draft.workflow.held and not WorkflowStatus(draft.workflow.status).ending:
        draft.then(BudgetFreed(freed=draft.freed))


# --- time ----------------------------------------------------------------------------------------------------------


def count(draft: Draft, call: Call, by: int) -> None:
    """A call of these scopes is open, or is no more."""
    for account in covering(draft, call.step) if draft.snapshot.accounts else ():
        account.open_calls += by
        touch(draft, account)


def close(draft: Draft) -> None:
    """At the end of a decision: the clock of each scope runs exactly while one of its calls is open."""
    if not draft.snapshot.accounts:
        return
    estimating.weigh(draft)
    over = WorkflowStatus(draft.workflow.status).ending or WorkflowStatus(draft.workflow.status).final
    for account in draft.snapshot.accounts.values():
        runs = account.open_calls > 0
        if runs == (account.active_since is not None) and not over:
            continue
        account.spent_ms, account.active_since = account.active_ms(draft.now), draft.now if runs else None
        touch(draft, account)
        if account.limit_ms is not None:
            set_timer(draft, account, running=runs and not over)
            _warn(draft, account)


def set_timer(draft: Draft, account: Account, *, running: bool) -> None:
    ref = ids.derived("budget_duration", str(account.workflow_id), account.scope)
    left = 0 if account.limit_ms is None else account.limit_ms - account.active_ms(draft.now)
    if not running or left <= 0:
        draft.clear_due(DueKind.DURATION, ref)
        return
    at = draft.now + timedelta(milliseconds=left)
    draft.set_due(Due(kind=DueKind.DURATION, ref=ref, due_at=at, ring_at=at, note=account.scope))


# --- asked by others -----------------------------------------------------------------------------------------------


def left(draft: Draft, row: StepRow, *, what: str) -> int | None:
    """What is neither spent nor reserved of `turns`, `tool_calls`, `tokens` or `microusd` for that step; None: no
    limit."""
    rooms = [room for account in covering(draft, row.path) if (room := account.room(what)) is not None]
    return max(min(rooms), 0) if rooms else None


def recovery_left(draft: Draft) -> int | None:
    """Micro-dollars that may still be spent on making good what failed; None: no limit."""
    account = draft.snapshot.accounts.get(WHOLE)
    if account is None or account.limit_recovery_microusd is None:
        return None
    return max(account.limit_recovery_microusd - draft.workflow.recovery_microusd, 0)


def held_due(draft: Draft, call: Call) -> Due:
    """What wakes a call that is held for its budget, should nobody."""
    at = draft.now + LOOK_AGAIN
    note = PARKED if is_parked(call) else WAITS
    return Due(kind=DueKind.BUDGET, ref=call.id, due_at=at, ring_at=at, note=note)


def is_parked(call: Call) -> bool:
    """Whether only a top-up lets it go on."""
    return bool((call.budget or {}).get("parked"))


def is_held(call: Call) -> bool:
    return call.state == CallState.HELD and call.held_reason == HeldReason.BUDGET


def touch(draft: Draft, account: Account) -> None:
    draft.transition.accounts[account.scope] = account


def shown(scope: str) -> str:
    """As people and programs read it."""
    return "workflow" if scope == WHOLE else f"step:{scope}"
