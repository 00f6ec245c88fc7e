"""A success whose evidence was committed without its decision counts as what it is until the decision is made."""

from __future__ import annotations

import pytest

from app.domain.aggregate import Call
from app.domain.outcomes import Outcome
from app.domain.states import AttemptOutcome, DueKind, FailureKind
from tests.domain.machine_alone import Alone
from tests.domain.machine_plans import tool
from tests.domain.machine_tools import failed, ok
from tests.domain.machine_verbs import Asked

DOCUMENT = {
    "name": "kept",
    "tools": {"do": tool("idempotent")},
    "steps": {"s": {"tool": "do", "with": {"n": 1}, "timeout": "10m"}},
}
NOT_SENT: Outcome = failed(AttemptOutcome.NOT_SENT, FailureKind.NETWORK)


@pytest.mark.parametrize("sent_again", [False, True])
def test_effect_is_not_written_off_while_its_success_waits_for_its_decision(sent_again: bool) -> None:
    engine = Alone()
    first, second = engine.worker(), engine.worker()
    workflow_id = engine.submit(DOCUMENT, {}, key="k")
    [call_id] = engine.memory.store.calls[workflow_id]
    lost = engine.claim(call_id, worker=first)
    assert lost is not None
    engine.lose(first, proof=True)
    engine.in_flight(call_id)
    engine.fire(DueKind.ATTEMPT, call_id)
    repeat = engine.claim(call_id, worker=second) if sent_again else None

    engine.keep(lost, ok({"n": 1}))
    engine.ask(Asked(verb="cancel", workflow_id=workflow_id))
    if repeat is not None:
        engine.settle(repeat, NOT_SENT)

    assert _call(engine).state in ("due", "in_doubt")
    engine.fire(DueKind.APPLY, call_id)
    assert _call(engine).state == "succeeded"
    assert engine.memory.store.workflows[workflow_id].effects_done == 1


def _call(engine: Alone) -> Call:
    [call] = engine.memory.store.every_call()
    return call
