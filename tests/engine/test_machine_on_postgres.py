"""The same histories on real Postgres, over the product's verbs and two connections, with the memory beside it: both
come to the same rows, whoever holds the lock while somebody else comes.

`SUREFOOT_HYPOTHESIS_EXAMPLES=500` walks further, at random.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test

from tests.domain.machine import Histories
from tests.domain.machine_verbs import Asked
from tests.engine.machine_both import Both
from tests.engine.machine_crossing import Arena, Deed

EXAMPLES = int(os.environ.get("SUREFOOT_HYPOTHESIS_EXAMPLES", "0"))
FEW = 6
STEPS = 25


def histories_in(arena: Arena) -> type[Histories]:
    class Beside(Histories):
        engine: Both

        def open_engine(self) -> Any:
            return Both(arena=arena)

        @precondition(lambda self: self.names)
        @rule(data=st.data(), commits=st.booleans())
        def crosses(self, data: st.DataObject, commits: bool) -> None:
            """Somebody pauses, resumes or cancels, and before that is committed something else comes."""
            workflow_id = self._any_workflow(data)
            first = data.draw(st.sampled_from(["pause", "resume", "cancel", "retry"]), label="first")
            meeting = self._meeting(workflow_id)
            second = self.pick(data, "second", meeting)
            before = self._reopenings(workflow_id)
            self.engine.cross(Asked(verb=first, workflow_id=workflow_id), second, commits=commits)
            if self._reopenings(workflow_id) > before:  # it may have ended again at once: all of its steps were done
                self.laws.reopened(workflow_id)

        def _reopenings(self, workflow_id: Any) -> int:
            return sum(event.type == "workflow.reopened" for event in self.store.events[workflow_id])

        def _meeting(self, workflow_id: Any) -> dict[str, Deed]:
            found = {
                verb: self.engine.asking(Asked(verb=verb, workflow_id=workflow_id))
                for verb in ("cancel", "pause", "resume")
            }
            for name, (kind, ref) in self._fired().items():
                if self.store.dues[(kind, ref)][0] == workflow_id and kind not in ("call", "attempt"):
                    found[f"the sweep: {name}"] = self.engine.firing(kind, ref, crossed=True)
            return found

    return Beside


@pytest.mark.timeout(900)  # a failure is shrunk for up to five minutes before it is told
def test_postgres_and_memory_come_to_the_same_rows_whatever_happens(database_url: str) -> None:
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
        run_state_machine_as_test(lambda: histories_in(arena)(), settings=check)
