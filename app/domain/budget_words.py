"""Budgets in sentences: what is used up, what is waited for, and the command that tops it up.

over(account, measure, …)     the failure of a call that the budget does not allow
status(account, …)            `$0.042 of $0.10, 3 of 9 turns`: a line for people
top_up(account, measure, …)   the options of `surefoot budget` that give as much again
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from app.domain.accounts import FAIL, MEASURES, WHOLE, Account
from app.domain.amounts import counted, dollars, took, usd
from app.domain.outcomes import Failure
from app.domain.states import FailureKind

DURATION: Final = "duration"
PRICE: Final = "price"
"""What is exceeded if a model has no price that the plan pins: nobody knows what it would cost."""
_NAMES: Final = {"microusd": "usd", "tokens": "tokens", "turns": "turns", "tool_calls": "tool-calls"}


def over(account: Account, measure: str, *, workflow: str, now: datetime, wanted: int = 0) -> Failure:
    which = "The budget" if account.scope == WHOLE else f"The budget of {account.scope}"
    if measure == PRICE:
        return Failure(
            kind=FailureKind.BUDGET_EXCEEDED,
            message=f"{which} is in money, and the plan knows no price of the model that was to be asked.",
            fix="Use a model with a known price, or budget tokens and turns instead of usd.",
        )
    options = " ".join(top_up(account, measure, wanted=wanted))
    then = " Then retry it." if account.on_exceeded == FAIL else ""
    return Failure(
        kind=FailureKind.BUDGET_EXCEEDED,
        message=f"{which} of {limit_of(account, measure)} is used up: {_used(account, measure, now)}.",
        fix=f"Top it up: surefoot budget {workflow} {options}.{then}",
    )


def top_up(account: Account, measure: str, *, wanted: int = 0) -> list[str]:
    """As much again as there was, and enough for a call that wants so much."""
    step = [] if account.scope == WHOLE else ["--step", account.scope]
    if measure == DURATION:
        return [*step, "--duration", f"{max((account.limit_ms or 0) // 1000, 1)}s"]
    limit = account.limit(measure) or 0
    limit = max(limit, account.spent(measure) + account.reserved(measure) + wanted - limit)
    return [*step, f"--{_NAMES[measure]}", (usd(limit) or "") if measure == "microusd" else str(limit)]


def limit_of(account: Account, measure: str) -> str:
    """`$0.10`, `50,000 tokens`, `15 m 00 s`."""
    if measure == DURATION:
        return took(timedelta(milliseconds=account.limit_ms or 0))
    return amount(measure, account.limit(measure) or 0)


def amount(measure: str, number: int) -> str:
    """`$0.02`, `1 turn`, `3 tool calls`."""
    if measure == "microusd":
        return dollars(number)
    return counted(number, measure.replace("_", " ").removesuffix("s"))


def _used(account: Account, measure: str, now: datetime) -> str:
    if measure == DURATION:
        return f"its calls took {took(timedelta(milliseconds=account.active_ms(now)))}"
    spent = amount(measure, account.spent(measure))
    if measure in ("turns", "tool_calls"):
        return f"{spent} {'was' if account.spent(measure) == 1 else 'were'} made"
    return f"{spent} spent, and the next call may take more than what is left"


def status(account: Account, *, now: datetime) -> str:
    """What is spent of what is limited, and what is set aside."""
    parts = [
        f"{amount(measure, account.spent(measure))} of {amount(measure, limit)}"
        + (f" ({amount(measure, account.reserved(measure))} reserved)" if account.reserved(measure) else "")
        for measure in MEASURES
        if (limit := account.limit(measure)) is not None
    ]
    if account.limit_ms is not None:
        parts.append(f"{took(timedelta(milliseconds=account.active_ms(now)))} of {limit_of(account, DURATION)}")
    return ", ".join(parts)
