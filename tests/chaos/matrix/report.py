"""What a person reads: a line for each round as it ends, a table at the end, the story of the first failure."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Sequence

from tests.chaos.matrix.boundaries import BOUNDARIES, FAULTS
from tests.chaos.matrix.endings import WAYS
from tests.chaos.matrix.running import Done


def say(text: str = "") -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def line(done: Done, *, ended: int, planned: int) -> str:
    """`12/130  claim.committed × kill       6 cases  ok      1.3 s   4 again  1 probed  1 doubt`"""
    name = f"{done.planned.boundary.name} × {done.planned.fault}"
    verdict = "ok" if not done.failed else f"{done.failed} FAILED"
    told = f"{ended:>4}/{planned}  {name:<30} {done.cases} cases  {verdict:<9} {done.seconds:5.1f} s   {_ways(done)}"
    if done.failed:
        return f"{told}\n           {done.reason}"
    return told + (f"   (line reached at try {done.invalid + 1})" if done.invalid else "")


def _ways(done: Done) -> str:
    count = Counter(ending.way for ending in done.verdict.endings.values())
    return "  ".join(f"{count[way]} {way}" for way in WAYS if count[way])


def table(every: Sequence[Done]) -> list[str]:
    """Boundary × fault: cases passed of cases, and how they ended (o once, a again, p probed, d doubt)."""
    by_place = {(done.planned.boundary.name, done.planned.fault): done for done in every}
    lines = [f"{'boundary':<22}" + "".join(f"{fault:<20}" for fault in FAULTS)]
    for boundary in BOUNDARIES:
        cells = [by_place.get((boundary.name, fault)) for fault in FAULTS]
        if any(cells):
            lines.append(f"{boundary.name:<22}" + "".join(f"{_cell(done):<20}" for done in cells))
    return lines


def _cell(done: Done | None) -> str:
    if done is None:
        return "·"
    count = Counter(ending.way for ending in done.verdict.endings.values())
    ways = " ".join(f"{count[way]}{way[0]}" for way in WAYS if count[way])
    mark = "" if not done.failed else " FAILED"
    return f"{done.cases - done.failed}/{done.cases} {ways}{mark}"


def sums(every: Sequence[Done], *, seconds: float, seed: int) -> list[str]:
    cases, failed = sum(done.cases for done in every), sum(done.failed for done in every)
    ways: dict[str, int] = defaultdict(int)
    for done in every:
        for ending in done.verdict.endings.values():
            ways[ending.way] += 1
    invalid = sum(done.invalid for done in every)
    told = ", ".join(f"{ways[way]} {way}" for way in WAYS)
    return [
        f"{cases} cases in {len(every)} rounds, {cases - failed} passed, {failed} failed; {told}",
        f"{seconds:.0f} s, seed {seed}; lines that were not reached at once: {invalid}",
    ]
