"""The protocol of effects, walked through completely: it keeps its promises, and settles whatever happens.

Read `protocol_rules.py` (what is decided), `protocol_world.py` (where, and what is promised), `protocol_model.py` (what
may happen). That each of its protections is needed is `test_protocol_protections.py`, that the product decides as the
model does `test_protocol_decisions.py`.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.domain.protocol_explorer import Exploration, cannot_reach, final, findings, guesses
from tests.domain.protocol_rules import AT_MOST_ONCE, CHECKABLE, CLASSES, IDEMPOTENT, KEYED, READ_ONLY, Rules
from tests.domain.protocol_world import World

FEWEST_WORLDS = 5_000
"""Less would mean that the model lost something that may happen."""

# --- the protocol as it is -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("effect", CLASSES)
def test_protocol_keeps_its_promises_in_every_world_that_can_be_reached(effect: str) -> None:
    found = findings(effect)

    assert found.harm == "", found.told
    assert found.worlds > FEWEST_WORLDS


@pytest.mark.parametrize("effect", CLASSES)
def test_ledger_settles_by_itself_though_no_worker_answers_and_no_tool_is_heard(effect: str) -> None:
    found = findings(effect)

    assert found.stuck == ""


@pytest.mark.parametrize("effect", CLASSES)
def test_person_can_end_whatever_the_ledger_cannot(effect: str) -> None:
    found = findings(effect)

    assert found.endless == ""


@pytest.mark.parametrize("effect", CLASSES)
def test_ledger_says_what_can_be_known_and_doubts_only_what_cannot(effect: str) -> None:
    found = findings(effect)

    assert found.guesses == {}


def test_protocol_keeps_its_promises_where_requests_settle_slower_than_attempts_end() -> None:
    found = findings(KEYED, replace(Rules(), settle=2))

    assert found.harm == "", found.told
    assert (found.stuck, found.endless, found.guesses) == ("", "", {})


@pytest.mark.parametrize("effect", [CHECKABLE, AT_MOST_ONCE])
def test_effect_that_must_not_be_repeated_never_is_on_a_loss_or_an_unknown_outcome(effect: str) -> None:
    repeats = {name for name in findings(effect).happenings if name.endswith(": repeat")}

    assert repeats
    assert [name for name in repeats if "unknown" in name or "lost" in name or "death" in name] == []


# --- and the explorations saw what they are about ------------------------------------------------------------------

ALWAYS = {
    "worker 1 sends",
    "worker 1 sends nothing",
    "worker 1 loses its link",
    "worker 1 dies",
    "worker 1 loses the answer",
    "tool, asked by 1, acts",
    "tool, asked by 1, refuses",
    "tool, asked by 2, acts",
    "worker 1 records succeeded on time: succeed",
    "worker 1 records not_sent on time: repeat",
    "worker 1 records failed on time: repeat with the next key",
    "worker 1 records succeeded late to succeeded: nothing",
    "worker 1 records succeeded late to intended: succeed",
    "worker 2 records not_sent on time: fail",
}
DOUBTED = {
    "person says happened",
    "person says did_not_happen",
    "person abandons",
    "worker 1 records succeeded late to in_doubt: succeed",
    "worker 1 records succeeded late to abandoned: nothing",
    "ledger undoes it",
}
REPEATED_EARLY = {
    "ledger calls it lost, attempt 1: repeat",
    "ledger is told of its death, attempt 1: repeat",
    "ledger hears nothing, attempt 1: repeat",
    "worker 1 records unknown on time: repeat",
    "worker 1 records succeeded late to due: succeed",
    "worker 1 records failed late to intended: nothing",
}
SEEN = {
    READ_ONLY: REPEATED_EARLY | {"worker 2 records unknown on time: fail"},
    IDEMPOTENT: REPEATED_EARLY
    | DOUBTED
    | {"worker 2 records failed on time: doubt", "ledger calls it lost, attempt 2: doubt"},
    KEYED: (REPEATED_EARLY - {"ledger hears nothing, attempt 1: repeat"})
    | DOUBTED
    | {
        "tool, asked by 2, replays succeeded",
        "tool, asked by 1, replays failed",
        "tool, asked by 2, refuses at the gate",
        "ledger finds the key too old",
        "ledger is told of its death, attempt 1: doubt",
        "ledger is asked for it again",
    },
    CHECKABLE: DOUBTED
    | {
        "worker 1 records unknown on time: probe",
        "ledger is told of its death, attempt 1: probe",
        "ledger calls it lost, attempt 1: probe",
        "probe reads absent early",
        "ledger asks the probe again",
        "ledger hears absent from the probe: repeat",
        "ledger hears found from the probe: succeed",
        "ledger hears unclear from the probe: doubt",
        "worker 1 records succeeded late to probing: succeed",
        "worker 1 records not_sent late to probing: repeat",
        "worker 1 records not_sent late to in_doubt: repeat",
    },
    AT_MOST_ONCE: DOUBTED
    | {
        "worker 1 records unknown on time: doubt",
        "ledger is told of its death, attempt 1: doubt",
        "ledger calls it lost, attempt 1: doubt",
        "ledger hears nothing, attempt 1: doubt",
        "worker 1 records not_sent late to in_doubt: repeat",
        "worker 1 records failed late to in_doubt: repeat with the next key",
    },
}


@pytest.mark.parametrize("effect", CLASSES)
def test_exploration_of_a_class_meets_everything_that_the_class_is_about(effect: str) -> None:
    missing = (ALWAYS | SEEN[effect]) - findings(effect).happenings

    assert sorted(missing) == []


# --- and the questions have teeth ----------------------------------------------------------------------------------


def test_ledger_that_says_more_than_it_can_know_is_found_out() -> None:
    done, not_done = World(call="succeeded", executed=1), World(call="succeeded")

    assert guesses(_explored(done)) == {}
    assert len(guesses(_explored(done, not_done))) == 1


def test_ledger_that_doubts_what_it_could_know_is_found_out() -> None:
    done, not_done = World(call="in_doubt", executed=1), World(call="in_doubt")

    assert guesses(_explored(done, not_done)) == {}
    assert len(guesses(_explored(done))) == 1


def test_world_that_only_a_person_can_end_is_not_one_that_the_ledger_ends() -> None:
    explored = _explored(World(call="in_doubt"), World(call="abandoned"), edges=[[("person abandons", 1)], []])

    assert cannot_reach(explored, final, by=("ledger", "time")) == [0]
    assert cannot_reach(explored, final, by=("person",)) == []


def _explored(*worlds: World, edges: list[list[tuple[str, int]]] | None = None) -> Exploration:
    return Exploration(effect=AT_MOST_ONCE, worlds=list(worlds), came=[], edges=edges or [], harm="")
