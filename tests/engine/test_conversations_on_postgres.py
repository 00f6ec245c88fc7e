"""The same conversations on real Postgres, over the product's verbs, with the memory beside it: both come to the same
rows, and every request that leaves is well formed and begins with the bytes of those before it.

`SUREFOOT_HYPOTHESIS_EXAMPLES=300` walks further, at random.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.domain.machine_conversations import Conversations
from tests.engine.machine_both import Both
from tests.engine.machine_crossing import Arena

EXAMPLES = int(os.environ.get("SUREFOOT_HYPOTHESIS_EXAMPLES", "0"))
FEW = 10
STEPS = 25


def conversations_in(arena: Arena) -> type[Conversations]:
    class Beside(Conversations):
        engine: Both

        def open_engine(self) -> Any:
            return Both(arena=arena)

    return Beside


@pytest.mark.timeout(900)  # a failure is shrunk for up to five minutes before it is told
def test_conversations_come_to_the_same_bytes_on_postgres_as_in_memory(database_url: str) -> None:
    check = settings(
        max_examples=EXAMPLES or FEW,
        stateful_step_count=STEPS,
        derandomize=not EXAMPLES,
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )

    with Arena(url=database_url) as arena:
        run_state_machine_as_test(lambda: conversations_in(arena)(), settings=check)
