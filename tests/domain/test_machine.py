"""Whatever happens in whatever order: the decisions keep their promises over rows in memory.

`SUREFOOT_HYPOTHESIS_EXAMPLES=20000` walks further, at random; what it finds it shrinks, and prints how to repeat it.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.domain.machine import Histories

EXAMPLES = int(os.environ.get("SUREFOOT_HYPOTHESIS_EXAMPLES", "0"))
FEW = 60
STEPS = 40


@pytest.mark.timeout(900)  # a failure is shrunk for up to five minutes before it is told
def test_decisions_keep_every_promise_whatever_happens_in_whatever_order() -> None:
    check = settings(
        max_examples=EXAMPLES or FEW,
        stateful_step_count=STEPS,
        derandomize=not EXAMPLES,
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )

    run_state_machine_as_test(Histories, settings=check)
