"""The rate-limit headers of a model's answer: read where they are numbers, ignored where they are not."""

from __future__ import annotations

import httpx2
import pytest

from app.domain.outcomes import Failure, Outcome
from app.domain.quotas import Allowances, Window
from app.domain.states import AttemptOutcome, FailureKind
from app.ports import model_limits

HEADERS = {
    "anthropic-ratelimit-requests-limit": "50",
    "anthropic-ratelimit-requests-remaining": "49",
    "anthropic-ratelimit-requests-reset": "2026-01-02T12:00:01Z",
    "anthropic-ratelimit-input-tokens-limit": "30000",
    "anthropic-ratelimit-input-tokens-remaining": "0",
}


def test_limits_are_read_kind_by_kind_whatever_the_case_of_the_headers() -> None:
    upper = httpx2.Headers({name.title(): value for name, value in HEADERS.items()})

    read = model_limits.read(upper)

    assert read == Allowances(
        requests=Window(limit=50, remaining=49), input_tokens=Window(limit=30_000, remaining=0), output_tokens=None
    )
    assert read.near


@pytest.mark.parametrize("text", ["", "-1", "1.5", "many", "²", "1" * 40])
def test_header_that_is_no_number_says_nothing_and_breaks_nothing(text: str) -> None:
    headers = {**HEADERS, "anthropic-ratelimit-requests-limit": text}

    read = model_limits.read(headers)

    assert read is not None
    assert read.requests is None
    assert read.input_tokens is not None


def test_limit_of_nothing_and_more_left_than_there_is_are_no_windows_to_divide_by() -> None:
    nothing = {"anthropic-ratelimit-requests-limit": "0", "anthropic-ratelimit-requests-remaining": "0"}
    more = {"anthropic-ratelimit-requests-limit": "5", "anthropic-ratelimit-requests-remaining": "9"}

    assert model_limits.read(nothing) is None
    assert model_limits.read(more) == Allowances(requests=Window(limit=5, remaining=5))


def test_outcome_carries_what_was_read_and_stays_itself_without_it() -> None:
    failure = Failure(kind=FailureKind.RATE_LIMITED, message="429")
    outcome = Outcome(certainty=AttemptOutcome.FAILED, failure=failure)

    assert model_limits.attached(outcome, None) is outcome
    assert model_limits.attached(outcome, model_limits.read(HEADERS)).limits == model_limits.read(HEADERS)
