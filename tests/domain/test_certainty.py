"""The certainty table, against the table of effects.md written out a second time."""

from __future__ import annotations

import pytest

from app.domain.certainty import SUCCESS, TABLE, UNSENT, Observation, judge, row_for
from app.domain.states import EARLY_CLASSES, AttemptOutcome, EffectClass, FailureKind

CLASSES = list(EffectClass)


def expected_by_status(status: int, effect: EffectClass) -> tuple[AttemptOutcome, FailureKind | None]:
    if 200 <= status < 300 or status == 303:
        return AttemptOutcome.SUCCEEDED, None
    if status in (425, 429):
        return AttemptOutcome.FAILED, FailureKind.RATE_LIMITED
    if status in (401, 403, 407):
        return AttemptOutcome.FAILED, FailureKind.AUTH
    if status == 408:
        return AttemptOutcome.UNKNOWN, FailureKind.TIMEOUT
    if status == 409 and effect is EffectClass.KEYED:
        return AttemptOutcome.UNKNOWN, FailureKind.SERVER_ERROR
    if 400 <= status < 500:
        return AttemptOutcome.FAILED, FailureKind.TOOL_ERROR
    if 300 <= status < 400 and status != 304:
        return AttemptOutcome.UNKNOWN, FailureKind.TOOL_ERROR
    return AttemptOutcome.UNKNOWN, FailureKind.SERVER_ERROR


@pytest.mark.parametrize("effect", CLASSES)
def test_table_says_what_effects_md_says_for_every_status(effect: EffectClass) -> None:
    for status in range(100, 1000):
        verdict = judge(Observation.ANSWERED, status=status, effect=effect, tool="x")

        kind = None if verdict.failure is None else verdict.failure.kind
        assert (verdict.outcome, kind) == expected_by_status(status, effect), status


@pytest.mark.parametrize("effect", CLASSES)
@pytest.mark.parametrize("observation", sorted(UNSENT))
def test_table_says_not_sent_for_what_is_seen_before_the_first_byte(
    observation: Observation, effect: EffectClass
) -> None:
    assert judge(observation, effect=effect, tool="x").outcome is AttemptOutcome.NOT_SENT


@pytest.mark.parametrize("effect", CLASSES)
@pytest.mark.parametrize(
    "observation",
    [
        Observation.WRITE_ERROR,
        Observation.READ_ERROR,
        Observation.PROTOCOL_ERROR,
        Observation.DEADLINE,
        Observation.DEFECT,
    ],
)
def test_table_says_unknown_when_no_answer_came(observation: Observation, effect: EffectClass) -> None:
    assert judge(observation, effect=effect, tool="x").outcome is AttemptOutcome.UNKNOWN


@pytest.mark.parametrize("effect", CLASSES)
@pytest.mark.parametrize("status", SUCCESS)
def test_cut_success_is_asked_again_only_where_repeating_is_safe(status: int, effect: EffectClass) -> None:
    verdict = judge(Observation.ANSWER_CUT, status=status, effect=effect, tool="x")

    repeatable = effect in EARLY_CLASSES
    assert verdict.outcome is (AttemptOutcome.UNKNOWN if repeatable else AttemptOutcome.SUCCEEDED)


@pytest.mark.parametrize("effect", CLASSES)
def test_cut_refusal_is_judged_by_its_status(effect: EffectClass) -> None:
    for status in (302, 404, 429, 500):
        cut = judge(Observation.ANSWER_CUT, status=status, effect=effect, tool="x")

        assert cut.outcome is expected_by_status(status, effect)[0]


def test_table_has_no_row_that_is_never_reached() -> None:
    reached = set()
    for observation in Observation:
        for status in range(1000):
            for effect in CLASSES:
                reached.add(id(row_for(observation, status=status, effect=effect)))

    assert [row for row in TABLE if id(row) not in reached] == []


def test_every_row_names_its_source_and_fits_its_outcome() -> None:
    for row in TABLE:
        assert row.source
        assert (row.kind is None) == (row.outcome is AttemptOutcome.SUCCEEDED)
        assert row.kind is None or "{tool}" in row.message


def test_failure_carries_status_and_observation() -> None:
    verdict = judge(Observation.ANSWERED, status=503, effect=EffectClass.AT_MOST_ONCE, tool="email.send")

    assert verdict.failure is not None
    assert verdict.failure.status_code == 503
    assert verdict.failure.detail == {"seen": "answered"}
    assert verdict.failure.message == "email.send answered 503; whether it acted is not known."
