"""`python -m tests.chaos [--seed N] [--workflows 1000] [--headline] [--kept] [--keep]`: chaos, judged by ledgers.

Exit code 0: VALID, everything held and everything was tried; 1: FAILED, something did not hold (the seed is kept in
`failing_seeds.txt`); 2: INVALID, the run did not meet what it has to meet and proves nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tests.chaos import faults
from tests.chaos.counters import NEEDED, NEEDED_IN_SMALL
from tests.chaos.oracle.verdicts import violations
from tests.chaos.report import Outcome
from tests.chaos.run import Options, run

FAILING: Final = Path(__file__).with_name("failing_seeds.txt")
FULL: Final = 500
"""Workflows from which on a run has to meet everything."""


def main() -> int:
    told = _arguments()
    if told.kept:
        seeds = [tuple(map(int, line.split()[1:3])) for line in FAILING.read_text().splitlines() if line[:1].isdigit()]
        return max((_one(seed, workflows, told) for seed, workflows in seeds), default=0)
    return _one(told.seed, told.workflows, told)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description="Random chaos with a seed, judged by ledgers."
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000), help="repeats a plan")
    parser.add_argument("--workflows", type=int, default=1000)
    parser.add_argument("--headline", action="store_true", help="10,000 workflows and the headline's faults")
    parser.add_argument("--workers", type=int, default=2, help="worker processes")
    parser.add_argument("--window", type=int, default=0, help="workflows in flight (64; 24 in a small run)")
    parser.add_argument("--kept", action="store_true", help="run every seed that has failed before")
    parser.add_argument("--keep", action="store_true", help="keep logs and ledgers of a run that was VALID, too")
    told = parser.parse_args()
    if told.headline:
        told.workflows, told.workers = 10_000, max(3, told.workers)
    return told


def _one(seed: int, workflows: int, told: argparse.Namespace) -> int:
    folder = Path(tempfile.mkdtemp(prefix=f"surefoot-chaos-{seed}-"))
    command = f"python -m tests.chaos --seed {seed} " + ("--headline" if told.headline else f"--workflows {workflows}")
    sys.stderr.write(f"chaos: seed {seed}, {workflows} workflows; logs and ledgers in {folder}\n")
    options = Options(
        seed=seed,
        workflows=workflows,
        faults=faults.HEADLINE if told.headline else _faults(workflows),
        needed=NEEDED if workflows >= FULL else NEEDED_IN_SMALL,
        workers=told.workers,
        window=told.window or (64 if workflows >= FULL else 24),
        folder=folder,
        command=command,
    )
    outcome = asyncio.run(run(options))
    text = outcome.text()
    sys.stdout.write(text)
    (folder / "report.txt").write_text(text)
    (folder / "violations.txt").write_text("\n".join(map(str, violations(outcome.checks))) + "\n")
    if outcome.verdict == "FAILED":
        _keep(outcome)
    elif outcome.verdict == "VALID" and not told.keep:
        shutil.rmtree(folder)
    return outcome.exit_code


def _faults(workflows: int) -> dict[str, int]:
    """As many as the size of the run bears."""
    if workflows < 100:
        return dict(faults.SMALL)
    return {kind: max(1, round(count * workflows / 1000)) for kind, count in faults.THOUSAND.items()}


def _keep(outcome: Outcome) -> None:
    """One line for a seed that has failed: date, seed, workflows, laws that were broken."""
    laws = sorted({violation.law for violation in violations(outcome.checks)})
    with FAILING.open("a", encoding="utf-8") as file:
        file.write(f"{datetime.now(UTC):%Y-%m-%d} {outcome.seed} {outcome.workflows} {' '.join(laws)}\n")


if __name__ == "__main__":
    sys.exit(main())
