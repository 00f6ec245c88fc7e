"""The demo's claims are false when what they claim did not happen: a demo that cannot fail shows nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from app.cli import demo_claims
from app.cli.demo_claims import Claim
from app.domain.spans import Trace
from app.domain.trace import build_trace
from tests.domain.fabricated_rows import at, attempt, sample

ID = "wf_2"


def entry(tool: str, *, executed: bool = True, key: str | None = "meeting:7731", **arguments: Any) -> dict[str, Any]:
    return {"tool": tool, "key": key, "arguments": arguments, "executed": executed, "workflow": ID}


def books() -> list[dict[str, Any]]:
    return [
        entry("calendar.create_event"),
        entry("calendar.create_event", executed=False),
        entry("email.send", key=None, to="ana@x.io"),
        entry("email.send", key=None, to="bo@x.io"),
    ]


def killed() -> Trace:
    row, steps, calls, attempts = sample()
    calls[5]["attempts"] = 2
    attempts[5].update(outcome=None, received_at=None, lost_at=at(5.1))
    return build_trace(row, steps, calls, [*attempts, attempt(9, calls[5], n=2, began=5.2, ended=5.4)])


def held(claims: Sequence[Claim]) -> list[bool]:
    return [claim.true for claim in claims]


def test_every_claim_holds_when_the_story_went_as_told() -> None:
    trace = build_trace(*sample())

    assert held(demo_claims.recovered_from_malformed_answer(trace)) == [True, True, True]
    assert held(demo_claims.done_once(books(), ID, attendees=2, which="it")) == [True, True]
    assert held(demo_claims.survived_the_kill(killed(), books(), ID)) == [True, True]
    assert demo_claims.one_workflow("wf_1", "wf_1", replayed=True).true
    assert demo_claims.one_entry_per_meeting([{}, {}], meetings=2).true


def test_no_recovery_is_claimed_when_the_first_answer_was_valid() -> None:
    row, steps, calls, attempts = sample()
    calls[1]["recovery"] = []

    assert held(demo_claims.recovered_from_malformed_answer(build_trace(row, steps, calls, attempts)))[:2] == [
        False,
        False,
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        [*books(), entry("calendar.create_event", key="other")],
        [*books(), entry("email.send", key=None, to="bo@x.io")],
        books()[:3],
        books()[1:],
    ],
    ids=["two events", "two mails to one", "a mail missing", "no event"],
)
def test_done_once_is_false_when_the_books_say_otherwise(wrong: list[dict[str, Any]]) -> None:
    assert not all(held(demo_claims.done_once(wrong, ID, attendees=2, which="it")))


@pytest.mark.parametrize(
    "wrong",
    [
        books()[:1],
        [entry("calendar.create_event"), entry("calendar.create_event", key="fresh")],
        [entry("calendar.create_event"), entry("calendar.create_event")],
    ],
    ids=["never repeated", "another key", "executed twice"],
)
def test_survival_is_false_when_the_repeat_was_not_absorbed(wrong: list[dict[str, Any]]) -> None:
    assert held(demo_claims.survived_the_kill(killed(), wrong, ID)) == [True, False]


def test_survival_is_false_when_no_attempt_was_lost() -> None:
    assert held(demo_claims.survived_the_kill(build_trace(*sample()), books(), ID)) == [False, True]


def test_a_repeated_post_is_no_replay_when_it_started_another_workflow() -> None:
    assert not demo_claims.one_workflow("wf_1", "wf_2", replayed=False).true
    assert not demo_claims.one_workflow("wf_1", "wf_1", replayed=False).true
