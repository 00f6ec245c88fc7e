"""The product decides what the model decides: so what was explored (`test_protocol_model.py`) is what is built.

For each class and each thing that can be observed, in every situation in which it can be: `app/domain/transitions.py`
gets the rows and the fact, `protocol_rules.py` the same situation in its own words.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from itertools import product
from typing import Final

import pytest

from app.domain.aggregate import Sender
from app.domain.facts import DoubtResolved, KeyExpired, ProbeEnded, WorkerLost
from tests.domain.fabricated_calls import (
    CALL,
    NOW,
    PROBE_DEADLINE,
    SETTLE,
    Case,
    Tried,
    attempt_id,
    decided,
    settled,
)
from tests.domain.protocol_rules import (
    AT_MOST_ONCE,
    CHECKABLE,
    CLASSES,
    EARLY,
    FINAL,
    IDEMPOTENT,
    KEYED,
    NOTHING,
    READ_ONLY,
    WAIT,
    Rules,
    after_answer,
    after_late_answer,
    after_loss,
    after_probe,
)
from tests.domain.protocol_world import Attempt, World, contradiction

OBSERVED: Final = ("succeeded", "failed", "not_sent", "unknown")
SECOND: Final = timedelta(seconds=1)
ANYWAY: Final = (True, False)
LOST: Final = Tried(lost=True)
STATES: Final = {
    READ_ONLY: ("due", "intended", "succeeded", "failed"),
    IDEMPOTENT: ("due", "intended", "in_doubt", *FINAL),
    KEYED: ("due", "intended", "in_doubt", *FINAL),
    CHECKABLE: ("due", "intended", "in_doubt", "probing", *FINAL),
    AT_MOST_ONCE: ("due", "intended", "in_doubt", *FINAL),
}
"""In which a late answer may find a call of that class."""


def unchanged(ruling: str) -> str:
    return "" if ruling in (WAIT, NOTHING) else ruling


# --- answers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("observed", OBSERVED)
@pytest.mark.parametrize("effect", CLASSES)
def test_product_decides_as_the_model_when_an_attempt_answers_in_time(effect: str, observed: str) -> None:
    decisions, expected = {}, {}

    for others, fresh, patience in product(_others(effect), ANYWAY, ANYWAY):
        earlier = LOST if others else Tried(outcome="not_sent")
        case = Case(effect=effect, tried=(earlier, Tried()), key_fresh=fresh, patience=patience)
        situation = f"others uncertain: {others}, key fresh: {fresh}, patience: {patience}"
        decisions[situation] = decided(case, settled(2, observed)).ruling
        expected[situation] = after_answer(
            Rules(), effect, observed=observed, others_uncertain=others, key_fresh=fresh, patience=patience
        )

    assert decisions == expected


@pytest.mark.parametrize("observed", OBSERVED)
@pytest.mark.parametrize("effect", [KEYED, CHECKABLE, AT_MOST_ONCE])
def test_product_counts_no_attempt_as_uncertain_when_somebody_vouched_for_it(effect: str, observed: str) -> None:
    denied = {"outcome": "did_not_happen", "attempts": 1, "by": "ada"}
    case = Case(effect=effect, tried=(LOST, Tried()), resolved=denied)

    ruling = decided(case, settled(2, observed)).ruling

    assert ruling == after_answer(
        Rules(), effect, observed=observed, others_uncertain=False, key_fresh=True, patience=True
    )


@pytest.mark.parametrize("observed", OBSERVED)
@pytest.mark.parametrize("effect", CLASSES)
def test_product_decides_as_the_model_when_an_attempt_that_was_given_up_answers(effect: str, observed: str) -> None:
    decisions, expected = {}, {}

    for state, others, fresh, patience in product(STATES[effect], _others(effect), ANYWAY, ANYWAY):
        if state == "intended":
            second, others = Tried(), True  # the attempt at the fence is open
        else:
            second = LOST if others else Tried(outcome="not_sent")
        case = Case(effect=effect, state=state, tried=(LOST, second), key_fresh=fresh, patience=patience)
        situation = f"{state}, others uncertain: {others}, key fresh: {fresh}, patience: {patience}"
        decisions[situation] = decided(case, settled(1, observed)).ruling
        expected[situation] = unchanged(
            after_late_answer(
                Rules(),
                effect,
                call=state,
                observed=observed,
                others_uncertain=others,
                key_fresh=fresh,
                patience=patience,
            )
        )

    assert decisions == expected


def _others(effect: str) -> tuple[bool, ...]:
    """Whether another attempt may be uncertain: only classes that are repeated before the last is settled have two."""
    return ANYWAY if effect in EARLY else (False,)


# --- lost workers, old keys ----------------------------------------------------------------------------------------


def _senders() -> Iterator[tuple[str, Sender, timedelta, bool]]:
    """How a worker is gone; when the attempt's send deadline is; whether it is known to be silent now."""
    over, later = NOW - SECOND, NOW + SECOND
    gone = Sender(lease_until=over, reaped_at=None, lost_at=NOW)
    yield "its lease and its send deadline are over", gone, -SECOND, True
    yield "its lease is over, its send deadline is not", gone, SECOND, False
    kept = Sender(lease_until=later, reaped_at=None, lost_at=NOW)
    yield "its send deadline is over, its lease is not", kept, -SECOND, False
    yield "its death was witnessed", Sender(lease_until=later, reaped_at=over, lost_at=NOW), SECOND, True


@pytest.mark.parametrize("effect", CLASSES)
def test_product_decides_as_the_model_when_a_worker_is_lost(effect: str) -> None:
    decisions, expected = {}, {}

    for (how, sender, deadline, silent), fresh in product(_senders(), ANYWAY):
        case = Case(effect=effect, key_fresh=fresh, sender=sender, send_deadline=NOW + deadline)
        lost = WorkerLost(call_id=CALL, attempt_id=attempt_id(1), step="s")
        situation = f"{how}, key fresh: {fresh}"
        decisions[situation] = decided(case, lost).ruling
        expected[situation] = unchanged(after_loss(Rules(), effect, silent=silent, key_fresh=fresh, patience=True))

    assert decisions == expected


@pytest.mark.parametrize("effect", CLASSES)
def test_product_waits_like_the_model_when_a_living_worker_may_still_send(effect: str) -> None:
    alive = Sender(lease_until=NOW + SECOND, reaped_at=None, lost_at=None)
    lost = WorkerLost(call_id=CALL, attempt_id=attempt_id(1), step="s")

    before = decided(Case(effect=effect, sender=alive, send_deadline=NOW + SECOND), lost).ruling
    after = decided(Case(effect=effect, sender=alive, send_deadline=NOW - SECOND), lost).ruling

    assert before == ""
    assert after == after_loss(Rules(), effect, silent=True, key_fresh=True, patience=True)


@pytest.mark.parametrize(
    ("tried", "ruling"), [(LOST, "doubt"), (Tried(outcome="unknown"), "doubt"), (Tried(outcome="not_sent"), "")]
)
def test_product_doubts_like_the_model_when_a_key_is_too_old_and_an_attempt_uncertain(
    tried: Tried, ruling: str
) -> None:
    case = Case(effect=KEYED, state="due", tried=(tried,), key_fresh=False)

    found = decided(case, KeyExpired(call_id=CALL, step="s"))

    assert found.ruling == ruling
    assert (found.call.key_deadline is None) == (ruling == "")  # nothing was executed under it: its time starts anew


# --- quarantine and probes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("effect", [CHECKABLE, AT_MOST_ONCE])
def test_quarantine_of_the_product_begins_when_the_sender_is_silent_and_lasts_the_settle_time(effect: str) -> None:
    lost = WorkerLost(call_id=CALL, attempt_id=attempt_id(1), step="s")
    reaped = Sender(lease_until=NOW + SECOND, reaped_at=NOW - 5 * SECOND, lost_at=NOW)
    lapsed = Sender(lease_until=NOW - 2 * SECOND, reaped_at=None, lost_at=NOW)

    told = decided(Case(effect=effect), settled(1, "unknown")).call
    died = decided(Case(effect=effect, sender=reaped, send_deadline=NOW + SECOND), lost).call
    gone = decided(Case(effect=effect, sender=lapsed, send_deadline=NOW - 3 * SECOND), lost).call

    assert told.not_before == NOW + SETTLE
    assert died.not_before == NOW - 5 * SECOND + SETTLE
    assert gone.not_before == NOW - 2 * SECOND + SETTLE


def test_quarantine_of_the_product_counts_every_attempt_that_may_still_be_sent() -> None:
    case = Case(effect=IDEMPOTENT, tried=(LOST, Tried()), send_deadline=NOW + 30 * SECOND, patience=False)

    call = decided(case, settled(2, "not_sent")).call

    assert call.state == "in_doubt"
    assert call.not_before == NOW + 30 * SECOND + SETTLE


@pytest.mark.parametrize("seen", ["found", "absent", "unclear"])
@pytest.mark.parametrize(("asked", "heard"), [(-2, -1), (-1, 1), (1, 2)])
def test_product_believes_a_probe_when_the_model_does(seen: str, asked: int, heard: int) -> None:
    """`asked`, `heard`: seconds after the end of the quarantine; an unclear answer counts from the probe's deadline."""
    over = NOW if seen != "unclear" else NOW + PROBE_DEADLINE
    output = {"found": {"there": True}, "absent": {"there": False}, "unclear": {"there": "perhaps"}}[seen]
    case = Case(effect=CHECKABLE, state="probing", tried=(LOST,), not_before=NOW)
    ended = ProbeEnded(call_id=CALL, step="s", output=output, failure=None, asked_at=over + asked * SECOND)

    ruling = decided(case, ended, now=over + heard * SECOND).ruling

    assert ruling == unchanged(
        after_probe(Rules(), seen=seen, asked_after_quarantine=asked > 0, quarantine_over=heard > 0, patience=True)
    )


# --- contradictions ------------------------------------------------------------------------------------------------

ENDS: Final = {
    "a person said happened": ("succeeded", "happened", 0),
    "a person said did_not_happen, the repeat succeeded": ("succeeded", "did_not_happen", 1),
    "a person said did_not_happen, the workflow was stopped": ("cancelled", "did_not_happen", 2),
    "a person abandoned it": ("abandoned", "abandon", 0),
}


@pytest.mark.parametrize("end", ENDS)
def test_product_tells_a_contradiction_exactly_when_the_model_sees_one(end: str) -> None:
    state, verdict, vouched = ENDS[end]
    resolved = {"outcome": verdict, "attempts": vouched or 2, "by": "ada"}
    told, expected = {}, {}

    for n, observed, other in product((1, 2), OBSERVED, (*OBSERVED, "")):
        outcomes = [other, observed] if n == 2 else [observed, other]
        before = [other, ""] if n == 2 else ["", other]
        if contradiction(_world(state, verdict, vouched, before)):
            continue  # told already
        tried = [Tried(outcome=outcome or None, lost=True) for outcome in before]
        case = Case(effect=KEYED, state=state, tried=tried, resolved=resolved)
        situation = f"attempt {n} {observed}, the other {other or 'lost'}"
        told[situation] = "effect.contradicted" in decided(case, settled(n, observed)).told
        expected[situation] = contradiction(_world(state, verdict, vouched, outcomes))

    assert told == expected


def test_product_tells_that_an_attempt_happened_that_was_denied_before_a_later_word() -> None:
    """A person is mistaken about the first attempt, then right about the second: it happened twice."""
    case = Case(effect=AT_MOST_ONCE, state="in_doubt", tried=(LOST,))
    denied = decided(case, _said("did_not_happen")).call
    again = Case(effect=AT_MOST_ONCE, state="in_doubt", tried=(LOST, LOST), resolved=denied.resolved)

    found = decided(again, _said("happened"), settled(1, "succeeded"))

    assert found.call.state == "succeeded"
    assert ("effect.contradicted" in found.told) == contradiction(_world("succeeded", "happened", 1, ["succeeded", ""]))


def _said(verdict: str) -> DoubtResolved:
    return DoubtResolved(call_id=CALL, step="s", verdict=verdict, result=None, note="", by="ada")


def _world(state: str, verdict: str, vouched: int, outcomes: list[str]) -> World:
    attempts = tuple(Attempt(worker="done", outcome=outcome, lost=True) for outcome in outcomes)
    return World(call=state, verdict=verdict, vouched=vouched, attempts=attempts)
