"""The ledger of budgets, searched by Hypothesis: whatever happens in whatever order, nothing overshoots and nothing
leaks. And its arithmetic by itself."""

from __future__ import annotations

import os
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.accounts import Account, Limits
from app.domain.rates import Rate, Tier
from app.domain.states import CallState
from tests.domain.budget_world import GONE, OUTCOMES, BudgetWorld, plan

EXAMPLES = int(os.environ.get("SUREFOOT_HYPOTHESIS_EXAMPLES", "100"))

number = st.integers(min_value=0, max_value=9)
share = st.floats(min_value=0, max_value=1.0)
how = st.sampled_from(OUTCOMES)
action = st.one_of(
    st.tuples(st.just("claim"), number),
    st.tuples(st.just("claim"), number),
    st.tuples(st.just("claim_by_the_lost"), number),
    st.tuples(st.just("claim_and_be_lost"), number),
    st.tuples(st.just("be_lost_and_answer_late"), number, how, share),
    st.tuples(st.just("settle"), number, how, share),
    st.tuples(st.just("settle"), number, how, share),
    st.tuples(st.just("lose"), number),
    st.tuples(st.just("late"), number, how, share),
    st.tuples(st.just("again"), number),
    st.tuples(st.just("together"), number),
    st.tuples(st.just("look"), number),
    st.tuples(st.just("top_up"), st.integers(min_value=1, max_value=5_000)),
    st.tuples(st.just("pause")),
)
limits = st.fixed_dictionaries(
    {"on_exceeded": st.sampled_from(["fail", "pause"])},
    optional={
        "usd": st.integers(min_value=1, max_value=40_000).map(lambda micro: f"{micro / 1_000_000:.6f}"),
        "tokens": st.integers(min_value=1, max_value=12_000),
        "turns": st.integers(min_value=1, max_value=12),
        "tool_calls": st.integers(min_value=1, max_value=9),
    },
).filter(lambda said: len(said) > 1)


def act(world: BudgetWorld, step: tuple[Any, ...]) -> None:
    name, *given_ = step
    if name == "claim_by_the_lost":
        world.claim(given_[0], worker=GONE)
    elif name == "claim_and_be_lost":
        world.claim(given_[0], worker=GONE)
        world.lose(0)
    elif name == "be_lost_and_answer_late":
        world.claim(given_[0], worker=GONE)
        world.lose(0)
        world.late(*given_)
    else:
        getattr(world, name)(*given_)


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    limits=limits, own=st.none() | limits, steps=st.integers(1, 4), actions=st.lists(action, min_size=5, max_size=40)
)
def test_ledger_never_overshoots_and_never_leaks_whatever_happens(
    limits: dict[str, Any], own: dict[str, Any] | None, steps: int, actions: list[tuple[Any, ...]]
) -> None:
    world = BudgetWorld(plan=plan(steps=steps, limits=limits, own=own))
    assert world.breaches() == []

    for step in actions:
        act(world, step)
        assert world.breaches() == [], step

    if world.snapshot.workflow.status == "paused":
        world.pause()
    world.run_out()
    assert world.breaches() == []
    for account in world.snapshot.accounts.values():
        assert (account.reserved_microusd, account.reserved_tokens, account.reserved_turns) == (0, 0, 0)
        assert account.reserved_tool_calls == account.open_calls == 0


def test_repeat_that_is_out_when_late_evidence_settles_its_call_is_counted_once_and_corrected_when_it_answers() -> None:
    world = BudgetWorld(plan=plan(steps=1, limits={"on_exceeded": "fail", "turns": 1}, own=None))
    for step in [("claim_and_be_lost", 0), ("claim", 0), ("late", 0, "final", 0.0)]:
        act(world, step)
        assert world.breaches() == [], step
    [call] = world.every_call()
    _, repeat = call.history
    [account] = world.snapshot.accounts.values()
    counted_in_full = account.spent_tokens

    world.tell(world._settled(call, repeat.id, "final", 0.5))

    assert world.breaches() == []
    assert 0 < account.spent_tokens < counted_in_full


@settings(max_examples=EXAMPLES, deadline=None)
@given(limits=limits, actions=st.lists(action, max_size=20))
def test_cancelled_workflow_holds_no_reservation(limits: dict[str, Any], actions: list[tuple[Any, ...]]) -> None:
    world = BudgetWorld(plan=plan(steps=3, limits=limits, own=None))
    for step in actions:
        act(world, step)

    world.cancel()
    world.run_out()

    assert world.breaches() == []
    assert not world.calls(CallState.HELD)
    for account in world.snapshot.accounts.values():
        assert account.reserved_tokens == account.open_calls == 0


@settings(max_examples=EXAMPLES // 2, deadline=None)
@given(limits=limits, actions=st.lists(action, max_size=20))
def test_answers_beyond_their_worst_case_are_written_down_and_overshoot_nothing_else(
    limits: dict[str, Any], actions: list[tuple[Any, ...]]
) -> None:
    world = BudgetWorld(plan=plan(steps=2, limits=limits, own=None), honest=False)

    for step in actions:
        act(world, step)
        assert world.breaches() == [], step


# --- arithmetic ----------------------------------------------------------------------------------------------------


def account(**more: Any) -> Account:
    return Account(workflow_id=UUID(int=1), scope="", tenant_id=UUID(int=2), **more)


def test_account_refuses_a_reservation_that_does_not_fit() -> None:
    full = account(limit_tokens=100, spent_tokens=60, reserved_tokens=20)

    full.reserve({"tokens": 20})
    with pytest.raises(ValueError, match="1 do not fit into 0"):
        full.reserve({"tokens": 1})


def test_account_of_a_step_covers_its_items_and_no_step_of_a_like_name() -> None:
    step = Account(workflow_id=UUID(int=1), scope="plan", tenant_id=UUID(int=2))

    assert [step.covers(path) for path in ("plan", "plan.3", "planning", "other.plan")] == [True, True, False, False]
    assert account().covers("anything.9")


def test_top_up_raises_only_limits_that_there_are_and_forgets_an_overrun_that_it_pays_for() -> None:
    over = account(limit_tokens=100, spent_tokens=130, overrun_tokens=30, exceeded=True)

    over.raise_limits(Limits(tokens=20, turns=5))

    assert (over.limit_tokens, over.limit_turns, over.overrun_tokens, over.exceeded) == (120, None, 10, False)


def test_limits_of_a_submission_stand_for_the_definitions_key_by_key() -> None:
    declared = Limits(microusd=100, turns=3, on_exceeded="fail")

    assert declared.under(Limits(microusd=50, tokens=9)) == Limits(microusd=50, turns=3, tokens=9, on_exceeded="fail")
    assert declared.under(None) == declared
    assert Limits.from_json(declared.to_json()) == declared


TIERED = Rate(version="t/1", tiers=(Tier(above=0, input=100, output=500), Tier(above=1_000, input=500, output=2_500)))


@given(read=st.integers(0, 5_000), wrote=st.integers(0, 5_000), more=st.integers(0, 500))
def test_price_never_falls_when_more_is_read_or_written(read: int, wrote: int, more: int) -> None:
    cost = TIERED.cost(input=read, output=wrote)

    assert cost <= TIERED.cost(input=read + more, output=wrote)
    assert cost <= TIERED.cost(input=read, output=wrote + more)


@given(read=st.integers(0, 5_000), money=st.integers(0, 10_000))
def test_what_can_be_afforded_costs_no_more_than_there_is(read: int, money: int) -> None:
    tokens = TIERED.affordable(input=read, microusd=money)

    assert tokens == 0 or TIERED.cost(input=read, output=tokens) <= money


def test_rate_survives_its_json() -> None:
    assert Rate.from_json(TIERED.to_json()) == TIERED
