"""The recovery table is whole, and what is derived from it says the same."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest

from app.domain import recovery
from app.domain.definition.retrying import defaults_body, merge
from app.domain.failure_words import CHANGES as WORDS
from app.domain.outcomes import Failure
from app.domain.plan import RetryPolicy
from app.domain.recovery_defaults import RECOVERY_DEFAULTS, RETRYABLE, rules_for
from app.domain.recovery_table import CHANGES, GROUPS, TABLE, UNTIL_DEADLINE, Action
from app.domain.states import FailureKind
from app.domain.trace_lines import CHANGED, REPLACED
from tests.domain.definition_cases import plan_of

ATTEMPT = UUID(int=7)


def test_table_has_a_row_for_every_failure_kind() -> None:
    assert set(TABLE) == set(FailureKind)


def test_every_row_says_how_it_is_seen_and_what_is_done() -> None:
    for row in TABLE.values():
        assert row.seen
        assert row.done.endswith(".")
        assert row.actions


def test_budgets_are_those_that_were_promised() -> None:
    budgets = {kind.value: row.budget for kind, row in TABLE.items() if row.written}

    assert budgets == {
        "rate_limited": UNTIL_DEADLINE, "overloaded": 8, "server_error": 5, "timeout": 5, "network": 5,
        "worker_lost": 5, "context_too_long": 2, "output_truncated": 3, "malformed_output": 2, "wrong_shape": 2,
        "tool_arguments_invalid": 3, "tool_unknown": 3, "tool_error": 2, "tool_broken": 1, "refused": 1,
        "paused_turn": 10, "no_progress": 2,
    }  # fmt: skip


def test_what_a_definition_may_not_speak_of_is_never_tried_again() -> None:
    assert all(row.budget == 0 for row in TABLE.values() if not row.written)
    assert {row.kind for row in TABLE.values() if row.written} == RETRYABLE == GROUPS["any"]


def test_every_change_that_a_call_may_name_has_words_for_people() -> None:
    for change in CHANGES.values():
        assert change in WORDS
        assert change in CHANGED or change in REPLACED


def test_policies_say_what_the_table_says() -> None:
    for kind, policy in RECOVERY_DEFAULTS.items():
        assert (policy.max_retries, policy.after) == (TABLE[kind].budget, TABLE[kind].after)
        assert (policy.repair is not None) == (Action.REMIND in TABLE[kind].actions)


@pytest.mark.parametrize(
    ("kind", "rules"),
    [
        (FailureKind.OVERLOADED, ("overloaded", "transient", "any")),
        (FailureKind.WRONG_SHAPE, ("wrong_shape", "malformed_output", "any")),
        (FailureKind.NO_PROGRESS, ("no_progress", "any")),
        (FailureKind.AUTH, ("auth",)),
    ],
)
def test_most_specific_key_speaks_first(kind: FailureKind, rules: tuple[str, ...]) -> None:
    assert rules_for(kind) == rules


def test_words_under_any_reach_only_the_kinds_that_know_them() -> None:
    written = {"any": {"max_retries": 4, "after": 6, "switch_model": "m-2", "switch_alias": "smart"}}

    merged = merge(defaults_body(), written)

    assert merged[FailureKind.TOOL_BROKEN].after == merged[FailureKind.NO_PROGRESS].after == 6
    assert merged[FailureKind.TIMEOUT].after is None
    assert merged[FailureKind.OVERLOADED].switch_model == merged[FailureKind.REFUSED].switch_model == "m-2"
    assert merged[FailureKind.TOOL_ERROR].switch_model is None
    assert {merged[kind].max_retries for kind in RETRYABLE} == {4}
    assert merged[FailureKind.AUTH].max_retries == 0


def test_plan_that_was_pinned_before_these_words_were_known_still_merges() -> None:
    old = {name: {k: v for k, v in policy.items() if k != "after"} for name, policy in defaults_body().items()}

    merged = merge(old, {})

    assert merged[FailureKind.NO_PROGRESS].after is None
    step = plan_of({"a": {"agent": {"model": "fast"}, "prompt": "x"}}).steps["a"]
    assert recovery.in_a_row(step, FailureKind.NO_PROGRESS) == 3


@pytest.mark.parametrize("tries", range(12))
def test_backoff_is_below_a_ceiling_that_doubles_up_to_a_minute(tries: int) -> None:
    step = plan_of({"a": {"agent": {"model": "fast"}, "prompt": "x"}}).steps["a"]
    failure = Failure(kind=FailureKind.RATE_LIMITED, message="429")

    retry = recovery.next_try(step, failure, tries=tries, attempt_id=ATTEMPT)

    assert retry is not None
    assert timedelta(0) <= retry.delay <= timedelta(seconds=min(2**tries, 60))


def test_retry_after_is_believed_and_jitter_only_adds() -> None:
    step = plan_of({"a": {"agent": {"model": "fast"}, "prompt": "x"}}).steps["a"]
    failure = Failure(kind=FailureKind.RATE_LIMITED, message="429", retry_after=timedelta(seconds=30))

    retry = recovery.next_try(step, failure, tries=3, attempt_id=ATTEMPT)

    assert retry is not None
    assert timedelta(seconds=30) <= retry.delay <= timedelta(seconds=31)


def test_record_names_the_tool_only_if_it_is_not_the_calls_own() -> None:
    policy = RetryPolicy(max_retries=1, rule="tool_broken")

    plain = recovery.record(FailureKind.TIMEOUT, policy, change=None, used=1)
    about = recovery.record(FailureKind.TOOL_BROKEN, policy, change="disable_tool", used=1, tool="look")

    assert "tool" not in plain
    assert about["tool"] == "look"
