"""Why a call is held for its budget: what it waits for, or what was used up and how to top it up.

`held(situation, call)` for a call that is held(budget). Pure.
"""

from __future__ import annotations

from datetime import datetime

from app.domain import budget_words, ids, why_commands
from app.domain.accounts import MEASURES, Account
from app.domain.amounts import counted
from app.domain.plain import clipped
from app.domain.situation import OPERATOR, TIME, TITLE_LIMIT, Reason, Row, Situation
from app.domain.states import HeldReason
from app.domain.why_commands import Command


def held(situation: Situation, call: Row, *, what: str) -> Reason:
    budget = call.get("budget") or {}
    accounts = [Account(**row) for row in situation.budgets]
    covering = [account for account in accounts if account.covers(call["step"])]
    if budget.get("parked"):
        return _parked(situation, call, covering, what=what)
    return _waits(situation, call, covering, what=what)


def _since(call: Row) -> datetime:
    since = (call.get("budget") or {}).get("since")
    found: datetime = call["created_at"] if since is None else datetime.fromisoformat(since)
    return found


def _parked(situation: Situation, call: Row, covering: list[Account], *, what: str) -> Reason:
    workflow = ids.encode("wf", situation.workflow["id"])
    told = (call["failure"] or {}).get("message") or "Its budget is used up."
    budget = call.get("budget") or {}
    exceeded = next((account for account in covering if account.exceeded), None)
    measure = None if exceeded is None else _measure(exceeded, call, situation.now)
    more = () if exceeded is None or measure is None else (_top_up(workflow, exceeded, measure, budget),)
    return Reason(
        kind="held",
        headline=f"{what} is held: {clipped(told, 2 * TITLE_LIMIT)}",
        reason=HeldReason.BUDGET,
        since=_since(call),
        who=OPERATOR,
        commands=(*more, why_commands.operate(workflow, call["step"], action="fail"), why_commands.cancel(workflow)),
    )


def _measure(account: Account, call: Row, now: datetime) -> str | None:
    """Of which more is needed."""
    wanted = call.get("budget") or {}
    for measure in MEASURES:
        limit = account.limit(measure)
        if limit is not None and account.spent(measure) + wanted.get(measure, 0) > limit:
            return measure
    return budget_words.DURATION if account.out_of_time(now) else None


def _waits(situation: Situation, call: Row, covering: list[Account], *, what: str) -> Reason:
    """For what other calls have set aside: the first that ends below its worst case makes room."""
    workflow, wanted = ids.encode("wf", situation.workflow["id"]), call.get("budget") or {}
    short = ((a, m) for a in covering for m in MEASURES if _short(a, m, wanted))
    account, measure = next(short, (None, None))
    if account is None or measure is None:
        text = f"{what} waits for its budget; there is room for it now, and it goes on within a minute."
    else:
        reserved = [one for one in situation.calls if _reserves(one, account)]
        others = f"{'at least ' if situation.more else ''}{counted(len(reserved), 'other call')}"
        text = (
            f"{what} waits for {budget_words.amount(measure, wanted[measure])} of the budget: "
            f"{budget_words.amount(measure, account.reserved(measure))} are reserved by {others}."
        )
    return Reason(
        kind="held",
        headline=text,
        reason=HeldReason.BUDGET,
        since=_since(call),
        who=TIME,
        commands=() if account is None or measure is None else (_top_up(workflow, account, measure, wanted),),
    )


def _top_up(workflow: str, account: Account, measure: str, wanted: Row) -> Command:
    return why_commands.top_up(workflow, account, measure, wanted=int(wanted.get(measure, 0)))


def _short(account: Account, measure: str, wanted: Row) -> bool:
    room = account.room(measure)
    return room is not None and wanted.get(measure, 0) > room


def _reserves(call: Row, account: Account) -> bool:
    return bool((call.get("budget") or {}).get("reserved")) and account.covers(call["step"])
