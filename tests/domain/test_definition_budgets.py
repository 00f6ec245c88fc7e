"""`budget:` in a definition: what is read, what is refused and how, and the prices that are pinned."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from app.domain.accounts import Limits
from app.domain.definition.checking import check
from app.domain.definition.compiling import compile_plan
from app.domain.rates import Rate, Tier
from tests.domain.definition_cases import CATALOGUE, TOOL, found

KNOWN = Rate(version="prices/1", tiers=(Tier(above=0, input=1_000, output=5_000),))
PRICED = replace(CATALOGUE, rate_of={"claude-fast-1": KNOWN}.get)
AGENT: dict[str, Any] = {"agent": {"model": "fast"}, "prompt": "x"}


def checked(steps: Any, *, priced: bool = False, **top: Any) -> Any:
    return check({"name": "x", "steps": steps, **top}, catalogue=replace(PRICED, priced=priced))


def test_plan_holds_the_budgets_in_whole_units_with_the_price_of_every_model() -> None:
    result = checked(
        {"a": {**AGENT, "budget": {"turns": 3, "on_exceeded": "pause"}}},
        budget={"usd": 0.10, "tokens": 5000, "tool_calls": 7, "duration": "15m", "recovery_usd": "0.05"},
    )

    plan = compile_plan(result.plan_body)
    assert plan.budget == Limits(
        microusd=100_000, tokens=5000, tool_calls=7, duration=timedelta(minutes=15), recovery_microusd=50_000
    )
    assert plan.steps["a"].budget == Limits(turns=3, on_exceeded="pause")
    assert plan.rates == {"claude-fast-1": KNOWN}


@pytest.mark.parametrize(
    ("budget", "code", "pointer"),
    [
        (7, "wrong_type", ""),
        ({}, "missing_key", ""),
        ({"on_exceeded": "pause"}, "missing_key", ""),
        ({"usd": 0}, "out_of_range", "/usd"),
        ({"usd": -1}, "out_of_range", "/usd"),
        ({"usd": 0.0000001}, "out_of_range", "/usd"),
        ({"usd": "lots"}, "wrong_type", "/usd"),
        ({"usd": True}, "wrong_type", "/usd"),
        ({"usd": 10_000_000}, "out_of_range", "/usd"),
        ({"tokens": 0}, "out_of_range", "/tokens"),
        ({"turns": 1.5}, "wrong_type", "/turns"),
        ({"tool_calls": "3"}, "wrong_type", "/tool_calls"),
        ({"duration": 15}, "bad_duration", "/duration"),
        ({"turns": 1, "on_exceeded": "stop"}, "unknown_value", "/on_exceeded"),
        ({"turns": 1, "max_cost": 3}, "unknown_key", "/max_cost"),
    ],
    ids=str,
)
def test_check_points_at_what_is_wrong_with_a_budget(budget: Any, code: str, pointer: str) -> None:
    result = checked({"a": AGENT}, budget=budget)

    assert (code, f"/budget{pointer}") in found(result)
    assert all(fault.fix for fault in result.faults)


def test_words_that_people_bring_along_are_answered() -> None:
    [fault] = checked({"a": AGENT}, budget={"turns": 1, "max_cost": 3}).faults

    assert fault.fix == "Write `usd`."


def test_step_has_no_recovery_budget_of_its_own_and_a_set_step_has_none_at_all() -> None:
    recovery = checked({"a": {**AGENT, "budget": {"recovery_usd": 1}}})
    nothing = checked({"a": {"set": {}, "budget": {"turns": 1}}})

    assert found(recovery) == [("misplaced_key", "/steps/a/budget/recovery_usd")]
    assert found(nothing) == [("misplaced_key", "/steps/a/budget")]


def test_model_without_a_price_is_refused_when_a_budget_in_money_may_meet_it() -> None:
    smart = {"agent": {"model": "smart"}, "prompt": "x"}
    switched = {**AGENT, "retry": {"overloaded": {"switch_model": "smart"}}}

    assert found(checked({"a": smart}, budget={"usd": 1})) == [("price_unknown", "/steps/a/agent")]
    assert found(checked({"a": smart}, budget={"recovery_usd": 1})) == [("price_unknown", "/steps/a/agent")]
    assert found(checked({"a": smart}, priced=True)) == [("price_unknown", "/steps/a/agent")]
    assert found(checked({"a": {**smart, "budget": {"usd": 1}}, "b": smart})) == [("price_unknown", "/steps/a/agent")]
    assert found(checked({"a": switched}, budget={"usd": 1})) == [
        ("price_unknown", "/steps/a/retry/overloaded/switch_model")
    ]


def test_no_price_is_asked_for_when_no_budget_is_in_money() -> None:
    result = checked({"a": {"agent": {"model": "smart"}, "prompt": "x"}}, budget={"tokens": 10, "turns": 3})

    assert result.faults == ()
    assert compile_plan(result.plan_body).rates == {}


def test_tool_step_may_have_a_budget() -> None:
    result = checked({"a": {"tool": "t", "budget": {"tool_calls": 3}}}, tools={"t": TOOL})

    assert result.faults == ()
