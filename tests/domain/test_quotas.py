"""Rate limits as arithmetic: when a limit is near, what a 429 blocks, and how many calls may go."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from app.domain import quotas
from app.domain.quotas import Allowances, Heard, Limits, Window

NOW = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
SCOPE = "model:1f2e3d4c/claude-haiku-5-5"


def seconds(n: float) -> timedelta:
    return timedelta(seconds=n)


def heard(
    requests: tuple[int, int] | None = None,
    inputs: tuple[int, int] | None = None,
    *,
    retry_after: float | None = None,
    per_call: float = 0.0,
) -> Heard:
    """(limit, remaining)."""
    windows = [None if told is None else Window(limit=told[0], remaining=told[1]) for told in (requests, inputs)]
    return Heard(
        allowances=None if windows == [None, None] else Allowances(requests=windows[0], input_tokens=windows[1]),
        rate_limited=retry_after is not None,
        retry_after=None if retry_after is None else seconds(retry_after),
        input_per_call=per_call,
        output_per_call=0.0,
    )


def row(*words: Heard) -> Limits:
    found = quotas.fresh(SCOPE, now=NOW)
    for word in words:
        found = quotas.learned(found, word, now=NOW)
    return found


def test_limit_is_near_below_a_tenth_of_any_kind() -> None:
    plenty = Allowances(requests=Window(limit=50, remaining=49), input_tokens=Window(limit=1000, remaining=100))
    near = Allowances(requests=Window(limit=50, remaining=49), input_tokens=Window(limit=1000, remaining=99))

    assert (plenty.near, near.near, Allowances().near) == (False, True, False)


def test_429_blocks_everybody_until_what_the_provider_asked_for() -> None:
    blocked = row(heard(retry_after=7))

    assert blocked.blocked_until == NOW + seconds(7)
    assert quotas.admitted(blocked, wanted=5, now=NOW + seconds(6.9))[0] == 0
    assert quotas.admitted(blocked, wanted=5, now=NOW + seconds(7))[0] == 5


def test_shorter_retry_after_of_another_worker_takes_nothing_back() -> None:
    assert row(heard(retry_after=7), heard(retry_after=1)).blocked_until == NOW + seconds(7)


def test_retry_after_of_a_day_is_believed_for_an_hour() -> None:
    assert row(heard(retry_after=86_400)).blocked_until == NOW + quotas.BLOCKED_AT_MOST


def test_first_calls_after_a_block_are_few_if_nobody_said_how_many_there_may_be() -> None:
    n, _ = quotas.admitted(row(heard(retry_after=7)), wanted=400, now=NOW + seconds(8))

    assert n == quotas.RAMP


def test_armed_row_lets_go_what_is_left_and_then_what_comes_with_time() -> None:
    armed = row(heard((60, 4)))

    first, armed = quotas.admitted(armed, wanted=100, now=NOW)
    at_once, armed = quotas.admitted(armed, wanted=100, now=NOW)
    after_3_s, armed = quotas.admitted(armed, wanted=100, now=NOW + seconds(3))

    assert (first, at_once, after_3_s) == (4, 0, 3)


def test_tokens_are_counted_by_what_a_call_takes_on_average() -> None:
    n, left = quotas.admitted(row(heard((60, 5), (60_000, 4_000), per_call=1_500)), wanted=9, now=NOW)

    assert (n, left.requests_left, left.input_left) == (2, 3.0, 1_000.0)


def test_call_that_takes_more_than_the_whole_limit_goes_when_the_bucket_is_full() -> None:
    armed = row(heard(None, (1_000, 50), per_call=5_000))

    early, _ = quotas.admitted(armed, wanted=3, now=NOW + seconds(30))
    late, _ = quotas.admitted(replace(armed, armed_until=NOW + seconds(90)), wanted=3, now=NOW + seconds(58))

    assert (early, late) == (0, 1)


def test_word_about_a_full_bucket_disarms_and_one_in_between_changes_nothing() -> None:
    armed = row(heard((60, 1)))

    between = quotas.learned(armed, heard((60, 20)), now=NOW)
    full = quotas.learned(armed, heard((60, 40)), now=NOW)

    assert (between.armed(NOW), full.armed(NOW)) == (True, False)


def test_calls_under_way_that_the_provider_has_not_counted_yet_stay_counted() -> None:
    _, taken = quotas.admitted(row(heard((60, 5))), wanted=4, now=NOW)

    told = quotas.learned(taken, heard((60, 5)), now=NOW)

    assert told.requests_left == 1.0


def test_row_says_nothing_any_more_once_its_minute_is_over() -> None:
    armed = row(heard((60, 1)))

    n, _ = quotas.admitted(armed, wanted=40, now=NOW + quotas.ARMED_FOR)

    assert n == 40
