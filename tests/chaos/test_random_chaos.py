"""A small chaos run: some forty workflows under kills, a zombie, a stopped database, a cut network; judged by ledgers.

The long one is `make chaos`. The plan is the same every time; how the processes race is not.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.chaos import faults, workload
from tests.chaos.counters import NEEDED_IN_SMALL
from tests.chaos.run import Options, run

SEED = 7
WORKFLOWS = 40

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]


def test_everything_accepted_ends_as_the_ledgers_say_when_processes_die_at_random(tmp_path: Path) -> None:
    options = Options(
        seed=SEED,
        workflows=WORKFLOWS,
        faults=faults.SMALL,
        needed=NEEDED_IN_SMALL,
        window=24,
        folder=tmp_path,
        command=f"python -m tests.chaos --seed {SEED} --workflows {WORKFLOWS}",
    )

    outcome = asyncio.run(run(options))

    assert outcome.verdict == "VALID", outcome.text()


def test_the_plan_is_the_same_when_the_seed_is_the_same() -> None:
    assert workload.plan(5, 300) == workload.plan(5, 300)
    assert faults.schedule(5, faults.THOUSAND) == faults.schedule(5, faults.THOUSAND)
    assert workload.plan(6, 300) != workload.plan(5, 300)


def test_every_kind_of_workflow_is_planned_when_the_run_is_small() -> None:
    planned = workload.plan(SEED, WORKFLOWS)

    assert {each.kind for each in planned} == set(workload.WEIGHTS)
    assert len({each.key for each in planned}) == len({each.tag for each in planned}) == WORKFLOWS
