"""The certainty table, against the table of effects.md written out a second time."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from app.domain.certainty import SUCCESS, TABLE, UNSENT, Declaration, Observation, declarations, judge, row_for
from app.domain.outcomes import Failure, Outcome
from app.domain.plan import HttpTool, Tool
from app.domain.states import EARLY_CLASSES, AttemptOutcome, EffectClass, FailureKind
from app.domain.templates import compile_template

CLASSES = list(EffectClass)
NOTHING: frozenset[Declaration] = frozenset()
EVERYTHING = frozenset(Declaration)


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
                for declared in (NOTHING, EVERYTHING):
                    reached.add(id(row_for(observation, status=status, effect=effect, declared=declared)))

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


# --- what the tool declares ----------------------------------------------------------------------------------------

NOT_EXECUTED = {
    Declaration.SERVER_ERROR_NOT_EXECUTED: (set(range(500, 600)), FailureKind.SERVER_ERROR),
    Declaration.REDIRECT_NOT_EXECUTED: (set(range(300, 400)) - {303, 304}, FailureKind.TOOL_ERROR),
    Declaration.TIMEOUT_NOT_EXECUTED: ({408}, FailureKind.TIMEOUT),
}


@pytest.mark.parametrize("effect", CLASSES)
@pytest.mark.parametrize("declaration", NOT_EXECUTED)
def test_declaration_makes_its_own_statuses_definite_and_no_other(
    declaration: Declaration, effect: EffectClass
) -> None:
    statuses, kind = NOT_EXECUTED[declaration]

    for status in range(100, 1000):
        verdict = judge(Observation.ANSWERED, status=status, effect=effect, tool="x", declared=frozenset({declaration}))

        if status in statuses:
            assert verdict.failure is not None
            assert (verdict.outcome, verdict.failure.kind) == (AttemptOutcome.FAILED, kind), status
            assert verdict.failure.detail == {"seen": "answered", "not_executed": True}
            assert declaration.value in verdict.failure.message
        else:
            assert verdict == judge(Observation.ANSWERED, status=status, effect=effect, tool="x"), status


@pytest.mark.parametrize("effect", CLASSES)
@pytest.mark.parametrize("observation", sorted(set(Observation) - {Observation.ANSWERED, Observation.ANSWER_CUT}))
def test_declarations_say_nothing_about_what_is_no_answer(observation: Observation, effect: EffectClass) -> None:
    declared = judge(observation, effect=effect, tool="x", declared=EVERYTHING)

    assert declared == judge(observation, effect=effect, tool="x")


@pytest.mark.parametrize("effect", CLASSES)
@pytest.mark.parametrize("status", [425, 429])
def test_tool_that_is_busy_says_that_it_did_not_act(status: int, effect: EffectClass) -> None:
    failure = judge(Observation.ANSWERED, status=status, effect=effect, tool="x").failure

    assert failure is not None
    assert failure.detail["not_executed"] is True


@pytest.mark.parametrize("effect", CLASSES)
@pytest.mark.parametrize("observation", [Observation.ANSWERED, Observation.ANSWER_CUT])
def test_accepted_is_pending_only_where_that_is_declared(observation: Observation, effect: EffectClass) -> None:
    declared = frozenset({Declaration.ACCEPTED_IS_PENDING})

    waited = judge(observation, status=202, effect=effect, tool="x", declared=declared)
    done = judge(observation, status=201, effect=effect, tool="x", declared=declared)
    undeclared = judge(observation, status=202, effect=effect, tool="x", declared=EVERYTHING - declared)

    assert waited.pending
    assert waited.outcome is AttemptOutcome.UNKNOWN
    assert waited.failure is not None
    assert waited.failure.kind is FailureKind.TIMEOUT
    assert waited.failure.detail["pending"] is True
    assert (done.pending, undeclared.pending) == (False, False)


TOOL = Tool(
    name="x",
    description="",
    input_schema=None,
    http=HttpTool(
        method="POST", url=compile_template("http://x", names=frozenset()), headers={}, path=None, query=None, body=None
    ),
    effect=EffectClass.AT_MOST_ONCE,
    key_header=None,
    key_argument=None,
    key_ttl=None,
    timeout=timedelta(seconds=5),
    settle_time=timedelta(seconds=10),
    on_repeat="ask",
)


def test_declarations_are_read_from_the_tool() -> None:
    assert declarations(TOOL) == NOTHING
    assert declarations(replace(TOOL, on_5xx="not_executed")) == {Declaration.SERVER_ERROR_NOT_EXECUTED}
    assert declarations(replace(TOOL, on_3xx="not_executed")) == {Declaration.REDIRECT_NOT_EXECUTED}
    assert declarations(replace(TOOL, on_408="not_executed")) == {Declaration.TIMEOUT_NOT_EXECUTED}
    assert declarations(replace(TOOL, on_202="wait")) == {Declaration.ACCEPTED_IS_PENDING}


@pytest.mark.parametrize("certainty", [AttemptOutcome.SUCCEEDED, AttemptOutcome.FAILED, AttemptOutcome.NOT_SENT])
def test_outcome_that_is_waited_for_is_unknown(certainty: AttemptOutcome) -> None:
    failure = None if certainty is AttemptOutcome.SUCCEEDED else Failure(kind=FailureKind.TIMEOUT, message="x")

    with pytest.raises(ValueError, match="waited for"):
        Outcome(certainty=certainty, failure=failure, pending=True)
