"""The table of legal moves: every listed move passes, every unlisted one raises."""

from __future__ import annotations

import typing

import pytest

from app.domain import facts, legal
from app.domain.facts import IllegalTransition
from app.domain.states import CallState, StepState, WorkflowStatus

STATES = {"workflow": WorkflowStatus, "step": StepState, "call": CallState}
FACTS = sorted(fact.__name__ for fact in typing.get_args(facts.Fact))
PLACES = [(machine, state.value, fact) for machine, states in STATES.items() for state in states for fact in FACTS]


def test_table_knows_every_state_and_no_other_and_only_facts_that_exist() -> None:
    listed = {(row.machine, row.state) for row in legal.table()}
    states = {(machine, state.value) for machine, known in STATES.items() for state in known}
    to = {(row.machine, state) for row in legal.table() for state in row.leads_to}

    assert {machine: set(table) for machine, table in legal.TABLE.items()} == {
        machine: {state.value for state in known} for machine, known in STATES.items()
    }
    assert listed | to <= states
    assert {row.fact for row in legal.table()} <= set(FACTS)


@pytest.mark.parametrize(("machine", "state", "fact"), PLACES)
def test_move_is_allowed_exactly_where_the_table_lists_it(machine: str, state: str, fact: str) -> None:
    listed = legal.TABLE[machine][state].get(fact, ())

    for to in STATES[machine]:
        if to.value in listed:
            legal.check(machine, state, to, fact=fact)
        else:
            with pytest.raises(IllegalTransition):
                legal.check(machine, state, to, fact=fact)


REOPENING = {"RetryRequested", "StepReopened"}


@pytest.mark.parametrize("machine", STATES)
def test_only_a_retry_leads_out_of_a_final_state(machine: str) -> None:
    final = [state for state in STATES[machine] if state.final]

    assert final
    assert all(legal.TABLE[machine][state.value].keys() <= REOPENING for state in final)
    assert machine != "call" or all(not legal.TABLE[machine][state.value] for state in final)
