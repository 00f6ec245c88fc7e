"""`budget:`, of a definition and of a step: judged, put into the plan's form, and the prices pinned that it needs.

    check_budget(…)     what was written → the plan's form, in whole micro-dollars and milliseconds
    check_rates(…)      the price of every model that a budget in money may meet; a model without one is refused

A budget in money cannot be kept for a model whose price nobody knows: that is said before a token is spent. Prices come
from the catalogue (the engine hands one in); nothing here reads a table or asks anybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final

from app.domain.accounts import ON_EXCEEDED, Limits
from app.domain.amounts import MICRO
from app.domain.definition import vocabulary
from app.domain.definition.catalogue import Catalogue
from app.domain.definition.findings import Findings, shown
from app.domain.outcomes import JSON
from app.domain.rates import Rate

if TYPE_CHECKING:
    from app.domain.definition.steps import Judged

MOST_USD: Final = 1_000_000
"""Dollars: beyond it a budget is a slip of the keyboard."""
MOST: Final = 10**12
"""Of tokens, turns and tool calls: what the account's columns hold many times over."""


def check_budget(value: JSON, pointer: str, findings: Findings, *, whole: bool) -> dict[str, Any] | None:
    """`whole`: of the workflow; a step's has no `recovery_usd`, because retries are counted for the workflow."""
    if value is None:
        return None
    written = findings.keys(value, vocabulary.BUDGET, pointer)
    if not whole and written.get("recovery_usd") is not None:
        detail = "`recovery_usd` is counted for the whole workflow."
        findings.fault("misplaced_key", f"{pointer}/recovery_usd", detail, "Write it under the definition's `budget`.")
    said = {
        "microusd": usd(written, "usd", pointer, findings),
        "tokens": findings.whole(written, "tokens", pointer, most=MOST),
        "turns": findings.whole(written, "turns", pointer, most=MOST),
        "tool_calls": findings.whole(written, "tool_calls", pointer, most=MOST),
        "duration_ms": findings.duration(written, "duration", pointer),
        "recovery_microusd": usd(written, "recovery_usd", pointer, findings),
        "on_exceeded": findings.choice(written, "on_exceeded", pointer, ON_EXCEEDED),
    }
    if isinstance(value, dict) and all(limit is None for name, limit in said.items() if name != "on_exceeded"):
        findings.fault("missing_key", pointer, "The budget limits nothing.", "Write budget: {usd: 0.10}")
    return said


def usd(owner: Mapping[str, JSON], key: str, pointer: str, findings: Findings) -> int | None:
    """Dollars, as a number or as decimal text, in whole micro-dollars."""
    value = owner.get(key)
    if value is None:
        return None
    where = f"{pointer}/{key}"
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise InvalidOperation
        amount = Decimal(str(value)) * MICRO
    except InvalidOperation:
        detail = f"`{key}` is an amount of dollars, not {shown(value)}."
        findings.fault("wrong_type", where, detail, f"Write {key}: 0.10")
        return None
    if not amount.is_finite() or not 1 <= amount <= MOST_USD * MICRO or amount != amount.to_integral_value():
        detail = f"`{key}` is from 0.000001 to {MOST_USD:,} dollars, with six decimals at most."
        findings.fault("out_of_range", where, detail, f"Write {key}: 0.10")
        return None
    return int(amount)


def limits_of(body: Mapping[str, JSON] | None) -> Limits | None:
    """Of the plan's form."""
    return None if body is None else Limits.from_json(body)


def check_rates(
    budget: dict[str, Any] | None,
    judged: Iterable[Judged],
    defaults: Mapping[str, Mapping[str, Any]],
    findings: Findings,
    catalogue: Catalogue,
) -> dict[str, Any]:
    """Model id → its price, of every model that a budget in money may meet."""
    rates: dict[str, Any] = {}
    everywhere = catalogue.priced or _in_money(budget)
    for step in judged:
        if not (everywhere or _in_money(step.body.get("budget"))):
            continue
        for model, pointer in _models(step, defaults):
            rate = _rate(model, catalogue)
            if rate is not None:
                rates[model] = rate.to_json()
                continue
            findings.fault(
                "price_unknown",
                pointer,
                f"Nobody knows the price of `{shown(model)}`, so a budget in dollars could not be kept.",
                "Use a model with a known price, or budget `tokens` and `turns` instead of usd.",
            )
    return rates


def _in_money(budget: Mapping[str, JSON] | None) -> bool:
    return budget is not None and (budget["microusd"] is not None or budget["recovery_microusd"] is not None)


def _models(step: Judged, defaults: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """(id, pointer) of the agent's model and of every model that a retry may switch to."""
    agent = step.body.get("agent")
    if not isinstance(agent, dict) or not isinstance(agent.get("model"), str):
        return []
    policies = {**defaults, **(step.body.get("retry") or {})}
    switched = [
        (policy["switch_model"], f"{step.pointer}/retry/{kind}/switch_model")
        for kind, policy in policies.items()
        if policy.get("switch_model")
    ]
    return [(agent["model"], f"{step.pointer}/agent"), *switched]


def _rate(model: str, catalogue: Catalogue) -> Rate | None:
    return None if catalogue.rate_of is None else catalogue.rate_of(model)
