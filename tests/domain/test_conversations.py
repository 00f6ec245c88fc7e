"""No history makes a malformed conversation: of whatever a model, its tools, workers, people and time can do.

Every request that a model call sends is rendered from the rows as the engine does it, and must keep every rule of the
Messages API; its messages begin with the bytes of every earlier request of the same conversation. So it is after
parallel tools, refusals, cancels, doubts that are settled late, workers that die, records that are lost and told
again, pauses, reopenings, corrections, parts that are joined, and summaries that take a conversation's place.

`SUREFOOT_HYPOTHESIS_EXAMPLES=5000` walks further, at random.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.domain.machine_conversations import Conversations

EXAMPLES = int(os.environ.get("SUREFOOT_HYPOTHESIS_EXAMPLES", "0"))
FEW = 60
STEPS = 50


@pytest.mark.timeout(900)  # a failure is shrunk for up to five minutes before it is told
def test_conversations_are_well_formed_whatever_happens_in_whatever_order() -> None:
    check = settings(
        max_examples=EXAMPLES or FEW,
        stateful_step_count=STEPS,
        derandomize=not EXAMPLES,
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )

    run_state_machine_as_test(Conversations, settings=check)
