"""The breaker's row: when it opens, for how long, what a canary does to it, and what its retry budget allows."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.domain import breakers, ids
from app.domain.breakers import Breaker, Told, Verdict
from app.domain.rules import Rules
from app.domain.states import BreakerState

NOW = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
RULES = Rules()
FAILED = Told(verdict=Verdict.FAILED, kind="timeout", message="It did not answer in time.")
CANARY_FAILED = replace(FAILED, canary=True)
CANARY_ANSWERED = Told(verdict=Verdict.ANSWERED, canary=True)
REFUSED = Told(verdict=Verdict.REFUSED, kind="auth", message="The key is not valid.")


def seconds(n: float) -> timedelta:
    return timedelta(seconds=n)


def row() -> Breaker:
    return breakers.fresh(ids.DEFAULT_TENANT, "tool:crm.search", now=NOW, rules=RULES)


def after(*outcomes: Told, every: float = 1.0, first: Breaker | None = None) -> Breaker:
    """The row after these, each `every` seconds."""
    found = first or row()
    for n, what in enumerate(outcomes):
        found, _ = breakers.told(found, what, now=NOW + seconds(n * every), rules=RULES)
    return found


def test_breaker_opens_with_the_fifth_failure_in_the_window() -> None:
    four, five = after(*[FAILED] * 4), after(*[FAILED] * 5)

    assert (four.state, five.state) == (BreakerState.CLOSED, BreakerState.OPEN)
    assert five.until == NOW + seconds(4) + seconds(RULES.breaker_open)
    assert five.opened_at == NOW + seconds(4)


def test_breaker_stays_closed_when_more_than_half_was_answered() -> None:
    seen = after(*[replace(FAILED, successes=2)] * 8)

    assert seen.state == BreakerState.CLOSED


def test_breaker_stays_closed_when_failures_are_too_far_apart() -> None:
    assert after(*[FAILED] * 20, every=RULES.breaker_window / 3).state == BreakerState.CLOSED


def test_breaker_never_opens_when_that_is_switched_off() -> None:
    off, found = replace(RULES, breaker_failures=0), row()

    for _ in range(50):
        found, _ = breakers.told(found, FAILED, now=NOW, rules=off)

    assert found.state == BreakerState.CLOSED


def test_failures_of_those_still_under_way_put_the_canary_off_no_further() -> None:
    opened = after(*[FAILED] * 5)

    late, _ = breakers.told(opened, FAILED, now=NOW + seconds(8), rules=RULES)

    assert (late.until, late.opened) == (opened.until, 1)


def opened_again(found: Breaker, *, at: float) -> Breaker:
    """Five failures in a row, the last one then."""
    for n in range(5):
        found, _ = breakers.told(found, FAILED, now=NOW + seconds(at - 4 + n), rules=RULES)
    return found


def test_trouble_that_comes_back_soon_does_not_begin_with_the_shortest_pause() -> None:
    long = after(*[FAILED] * 5, *[CANARY_FAILED] * 4)
    closed = breakers.closed(long, now=NOW + seconds(10))

    found = opened_again(closed, at=10 + RULES.breaker_window - 1)

    assert (found.state, found.opened) == (BreakerState.OPEN, long.opened + 1 - breakers.STEPS_BACK)


def test_pause_does_not_grow_while_every_other_canary_is_answered() -> None:
    found = after(*[FAILED] * 5)
    for n in range(1, 30):
        found, _ = breakers.told(found, CANARY_FAILED, now=NOW + seconds(n * 10), rules=RULES)
        found = breakers.closed(found, now=NOW + seconds(n * 10))
        found = opened_again(found, at=n * 10 + 5)

    assert found.opened == 1


def test_trouble_long_after_the_last_one_begins_with_the_shortest_pause() -> None:
    found, at = row(), 0.0
    for _ in range(8):  # a day of passing troubles, each over after some minutes
        at += 3600
        found = opened_again(found, at=at)
        assert found.opened == 1
        for n in range(6):
            found, _ = breakers.told(found, CANARY_FAILED, now=NOW + seconds(at + n), rules=RULES)
        found = breakers.closed(found, now=NOW + seconds(at + 60))


def test_row_of_troubles_ends_only_when_it_held_for_longer_than_it_would_be_shut() -> None:
    found = after(*[FAILED] * 5)
    while breakers.open_for(found.opened - breakers.STEPS_BACK, RULES).total_seconds() <= RULES.breaker_window:
        found, _ = breakers.told(found, CANARY_FAILED, now=NOW, rules=RULES)
    closed = breakers.closed(found, now=NOW)
    shut_for = breakers.open_for(closed.opened, RULES).total_seconds()

    soon, later = opened_again(closed, at=shut_for - 1), opened_again(closed, at=shut_for + 1)

    assert (soon.opened, later.opened) == (closed.opened + 1, 1)


def test_each_canary_that_fails_doubles_the_pause_up_to_the_longest() -> None:
    found, pauses = after(*[FAILED] * 5), []

    for n in range(9):
        at = NOW + seconds(1000 * (n + 1))
        found, _ = breakers.told(found, CANARY_FAILED, now=at, rules=RULES)
        pauses.append(found.until - at if found.until else None)

    assert pauses == [seconds(n) for n in (10, 20, 40, 80, 160, 300, 300, 300, 300)]


def test_canary_that_is_answered_closes_it_and_frees_its_place() -> None:
    half = replace(after(*[FAILED] * 5), state=BreakerState.HALF_OPEN, canary=ids.DEFAULT_TENANT, canary_until=NOW)

    closed, advice = breakers.told(half, CANARY_ANSWERED, now=NOW + seconds(9), rules=RULES)

    assert (closed.state, closed.failures, closed.until, closed.canary, closed.canary_until) == (
        BreakerState.CLOSED, 0, None, None, None,
    )  # fmt: skip
    assert advice.shut_until is None


def test_answer_of_a_call_that_left_before_it_opened_closes_nothing() -> None:
    opened = after(*[FAILED] * 5)

    late, _ = breakers.told(opened, Told(verdict=Verdict.ANSWERED), now=NOW + seconds(6), rules=RULES)

    assert late.state == BreakerState.OPEN


def test_canary_that_says_nothing_gives_its_place_up_and_the_next_comes_a_little_later() -> None:
    half = replace(after(*[FAILED] * 5), state=BreakerState.HALF_OPEN, canary=ids.DEFAULT_TENANT, canary_until=NOW)

    found, _ = breakers.told(half, Told(verdict=Verdict.NOTHING, canary=True), now=NOW + seconds(20), rules=RULES)

    assert (found.state, found.canary) == (BreakerState.HALF_OPEN, None)
    assert found.until == NOW + seconds(20) + breakers.UNCLEAR_FOR


def test_one_refusal_parks_a_credential_and_its_canaries_are_one_to_ten_minutes_apart() -> None:
    parked, advice = breakers.told(row(), REFUSED, now=NOW, rules=RULES)
    sibling, _ = breakers.told(parked, REFUSED, now=NOW + seconds(30), rules=RULES)
    found, pauses = parked, []
    for n in range(5):
        at = NOW + seconds(1000 * (n + 1))
        found, _ = breakers.told(found, replace(REFUSED, canary=True), now=at, rules=RULES)
        pauses.append(found.until - at if found.until else None)

    assert (parked.state, advice.shut_until) == (BreakerState.PARKED, NOW + seconds(60))
    assert sibling.until == parked.until
    assert pauses == [seconds(n) for n in (120, 240, 480, 600, 600)]


def test_network_failure_of_a_parked_canary_says_nothing_about_the_credential() -> None:
    parked, _ = breakers.told(row(), REFUSED, now=NOW, rules=RULES)

    found, _ = breakers.told(parked, CANARY_FAILED, now=NOW + seconds(60), rules=RULES)

    assert (found.state, found.opened) == (BreakerState.PARKED, 1)


def test_repeats_beyond_the_burst_queue_for_tokens_and_none_waits_longer_than_a_minute() -> None:
    rules = replace(RULES, retry_burst=3, retry_rate=2.0, breaker_failures=0)
    found, waits = breakers.fresh(ids.DEFAULT_TENANT, "tool:x", now=NOW, rules=rules), []

    for _ in range(300):
        found, advice = breakers.told(found, replace(FAILED, repeats=True), now=NOW, rules=rules)
        waits.append(advice.wait.total_seconds())

    assert waits[:6] == [0, 0, 0, 0.5, 1.0, 1.5]
    assert max(waits) == breakers.LONGEST_WAIT.total_seconds()


@pytest.mark.parametrize(("passed", "successes", "wait"), [(0.0, 0, 1.0), (3.0, 0, 0.0), (0.0, 10, 0.0)])
def test_tokens_come_back_with_time_and_with_successes(passed: float, successes: int, wait: float) -> None:
    rules = replace(RULES, retry_burst=1, breaker_failures=0)
    empty = breakers.fresh(ids.DEFAULT_TENANT, "tool:x", now=NOW, rules=rules)
    empty, _ = breakers.told(empty, replace(FAILED, repeats=True), now=NOW, rules=rules)

    _, advice = breakers.told(
        empty, replace(FAILED, repeats=True, successes=successes), now=NOW + seconds(passed), rules=rules
    )

    assert advice.wait == seconds(wait)


def test_failure_that_nobody_repeats_takes_no_token() -> None:
    found = after(*[replace(FAILED, successes=99)] * 3, every=0)

    assert found.tokens == RULES.retry_burst


def test_story_names_the_dependency_the_numbers_and_the_last_failure() -> None:
    opened = after(replace(FAILED, successes=1), *[FAILED] * 5)
    parked, _ = breakers.told(replace(row(), scope="model:1f2e3d4c/*"), REFUSED, now=NOW, rules=RULES)

    assert breakers.story(opened) == (
        "crm.search failed 6 of 7 times since 12:00:00. The last time: It did not answer in time."
    )
    assert breakers.story(parked) == "The model provider does not let us go on: The key is not valid."
    assert breakers.named("model:1f2e3d4c/claude-haiku-5-5") == "the model claude-haiku-5-5"
