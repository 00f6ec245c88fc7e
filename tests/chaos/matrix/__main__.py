"""`python -m tests.chaos.matrix`: every boundary × every fault × every kind of effect, with real processes and signals.

    --only claim            boundaries with that name, or whose name begins so (may be given again)
    --fault kill            kill, freeze, coma, raise, postgres    --effect mail     a name of the catalogue, model
    --seed 7                the order of rounds and submissions    --lanes 3         databases side by side
    --times 5               each round so often
    --list                  the boundaries and what must hold

Exit code 0: every case passed; 1: one did not, and its story is told.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.chaos.matrix import report
from tests.chaos.matrix.boundaries import BOUNDARIES, EVERY, FAULTS
from tests.chaos.matrix.report import say
from tests.chaos.matrix.running import Done, plan, run
from tests.chaos.matrix.stack import running


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.matrix", description="The crash-point matrix.")
    parser.add_argument("--only", action="append", default=[], help="a boundary, or the beginning of its name")
    parser.add_argument("--fault", action="append", default=[], choices=list(FAULTS))
    parser.add_argument("--effect", action="append", default=[], choices=list(EVERY))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--times", type=int, default=1, help="each round so many times")
    parser.add_argument("--lanes", type=int, default=3)
    parser.add_argument("--list", action="store_true", help="say what there is, run nothing")
    told = parser.parse_args()
    if told.list:
        for boundary in BOUNDARIES:
            say(f"{boundary.name:<22} {boundary.says}")
            say(f"{'':<22} {', '.join(f'{fault}: {word}' for fault, word in boundary.after.items())}")
        return 0
    planned = plan(only=told.only, faults=told.fault, effects=told.effect, seed=told.seed, times=told.times)
    if not planned:
        say("Nothing fits; see --list.")
        return 2
    cases = sum(len(one.effects) for one in planned)
    say(f"{cases} cases in {len(planned)} rounds, seed {told.seed}; starting servers and {told.lanes} lanes")
    began, every = time.monotonic(), list[Done]()
    with running() as stack:
        for done in run(stack, planned, lanes=told.lanes):
            every.append(done)
            say(report.line(done, ended=len(every), planned=len(planned)))
    return _conclude(every, seconds=time.monotonic() - began, seed=told.seed)


def _conclude(every: list[Done], *, seconds: float, seed: int) -> int:
    say()
    for text in (*report.table(every), "", *report.sums(every, seconds=seconds, seed=seed)):
        say(text)
    failed = [done for done in every if done.failed]
    if not failed:
        return 0
    say()
    say("The first that failed:")
    for text in failed[0].story:
        say(f"  {text}")
    place = f"--only {failed[0].planned.boundary.name} --fault {failed[0].planned.fault}"
    say(f"Again: python -m tests.chaos.matrix {place} --seed {seed} --lanes 1")
    return 1


if __name__ == "__main__":
    sys.exit(main())
