"""Each protection of the protocol is needed: without it there is harm, and a shortest story that leads there.

A failure shows the story. The explorations with every protection in place are in `test_protocol_model.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import pytest

from tests.domain.protocol_explorer import findings
from tests.domain.protocol_rules import AT_MOST_ONCE, CHECKABLE, CLASSES, IDEMPOTENT, KEYED, Rules

CPU_SECONDS = 45
"""Of all explorations; a small machine needs about eight."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Unprotected:
    """The protocol without one protection; the harm; and steps of its story, in their order."""

    without: str
    effect: str
    harm: str
    by: tuple[str, ...]
    settle: int = 1

    @property
    def rules(self) -> Rules:
        switch = next(field.name for field in fields(Rules) if field.name == self.without)
        return replace(Rules(), **{switch: False}, settle=self.settle)


TWICE = "it was executed twice"
CASES = [
    Unprotected(
        without="intent_is_awaited",
        effect=AT_MOST_ONCE,
        harm=TWICE,
        by=("worker 1 sends", "postgres restarts without the intent", "ledger claims attempt 2", "worker 2 sends"),
    ),
    Unprotected(
        without="only_due_is_claimed",
        effect=AT_MOST_ONCE,
        harm=TWICE,
        by=("worker 1 sends", "time passes", "ledger claims attempt 2", "worker 2 sends"),
    ),
    Unprotected(
        without="death_needs_proof",
        effect=AT_MOST_ONCE,
        harm="it is called cancelled and happened",
        by=(
            "worker 2 loses its link",
            "ledger is told of its death, attempt 2: doubt",
            "time passes",
            "worker 2 sends",
        ),
    ),
    Unprotected(
        without="doubt_waits_for_quarantine",
        effect=AT_MOST_ONCE,
        harm=TWICE,
        by=("worker 1 sends", "person says did_not_happen", "tool, asked by 1, acts"),
    ),
    Unprotected(
        without="quarantine_counts_every_attempt",
        effect=KEYED,
        harm="it is called cancelled and happened",
        by=("worker 2 records not_sent on time: doubt", "person says did_not_happen", "tool, asked by 1, acts"),
    ),
    Unprotected(
        without="absent_waits_for_quarantine",
        effect=CHECKABLE,
        harm=TWICE,
        by=("probe reads absent early", "ledger hears absent early from the probe: repeat", "ledger claims attempt 2"),
    ),
    Unprotected(
        without="absent_was_read_after_quarantine",
        effect=CHECKABLE,
        harm=TWICE,
        by=("probe reads absent early", "time passes", "ledger hears absent early from the probe: repeat"),
    ),
    Unprotected(
        without="unknown_at_most_once_is_doubt",
        effect=AT_MOST_ONCE,
        harm=TWICE,
        by=("worker 1 records unknown on time: repeat", "worker 2 sends"),
    ),
    Unprotected(
        without="failure_after_unknown_is_doubt",
        effect=IDEMPOTENT,
        harm="it is called failed although an attempt is uncertain",
        by=("ledger calls it lost, attempt 1: repeat", "worker 2 sends", "worker 2 records failed on time: fail"),
    ),
    Unprotected(
        without="key_expires",
        effect=KEYED,
        harm=TWICE,
        by=("tool, asked by 1, acts", "time passes", "time passes", "worker 2 sends", "tool, asked by 2, acts"),
    ),
    Unprotected(
        without="key_margin_covers_flight",
        settle=2,  # a request in flight must outlast a tick to arrive after the key is forgotten
        effect=KEYED,
        harm=TWICE,
        by=("tool, asked by 1, acts", "ledger claims attempt 2", "worker 2 sends", "time passes"),
    ),
    Unprotected(
        without="key_stays_after_unknown",
        effect=KEYED,
        harm=TWICE,
        by=("worker 1 records unknown on time: repeat", "tool, asked by 2, acts"),
    ),
    Unprotected(
        without="key_changes_after_undo",
        effect=KEYED,
        harm="it is called succeeded and never happened",
        by=("ledger undoes it", "ledger is asked for it again", "tool, asked by 1, replays succeeded"),
    ),
    Unprotected(
        without="undo_waits_for_strays",
        effect=IDEMPOTENT,
        harm="it was undone and came back",
        by=("worker 1 sends", "worker 2 records succeeded on time: succeed", "ledger undoes it"),
    ),
    Unprotected(
        without="late_success_settles",
        effect=AT_MOST_ONCE,
        harm="a success is on record and was ignored",
        by=("tool, asked by 1, acts", "worker 1 records succeeded late to in_doubt: nothing"),
    ),
    Unprotected(
        without="contradictions_are_told",
        effect=AT_MOST_ONCE,
        harm="a contradiction is silent",
        by=("person says happened", "worker 1 records not_sent late to succeeded: nothing"),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.without)
def test_protocol_without_one_protection_does_harm_and_the_story_shows_how(case: Unprotected) -> None:
    found = findings(case.effect, case.rules)

    assert found.story, f"nothing happens without {case.without}"
    assert found.harm == case.harm, found.told
    assert _in_order(case.by, found.story), found.told


def test_every_protection_has_a_run_without_it() -> None:
    switches = {field.name for field in fields(Rules) if field.type == "bool"}

    assert {case.without for case in CASES} == switches
    assert len(CASES) == len(switches)


def test_story_is_told_with_who_did_what_and_how_things_stand() -> None:
    told = findings(AT_MOST_ONCE, replace(Rules(), unknown_at_most_once_is_doubt=False)).told

    assert told.splitlines() == [
        "at_most_once: it was executed twice",
        "  1  ledger claims attempt 1                   call intended; at the tool: not done",
        "  2  worker 1 sends                            call intended; at the tool: not done, 1 on its way",
        "  3  worker 1 loses the answer                 call intended; at the tool: not done, 1 on its way",
        "  4  worker 1 records unknown on time: repeat  call due; at the tool: not done, 1 on its way",
        "  5  ledger claims attempt 2                   call intended; at the tool: not done, 1 on its way",
        "  6  worker 2 sends                            call intended; at the tool: not done, 2 on its way",
        "  7  tool, asked by 1, acts                    call intended; at the tool: done 1×, 1 on its way",
        "  8  tool, asked by 2, acts                    call intended; at the tool: done 2×",
    ]


def test_explorations_stay_small_enough_to_be_run_with_every_change() -> None:
    good = [*(findings(effect) for effect in CLASSES), findings(KEYED, replace(Rules(), settle=2))]
    broken = [findings(case.effect, case.rules) for case in CASES]

    assert sum(found.cpu for found in (*good, *broken)) < CPU_SECONDS


def _in_order(steps: tuple[str, ...], story: tuple[str, ...]) -> bool:
    rest = iter(story)
    return all(step in rest for step in steps)
