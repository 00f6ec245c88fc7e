"""What a person reads: a line for each mutant as it ends, a table at the end, and what to do about a survivor."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence

from tests.mutants.layers import LAYERS
from tests.mutants.patches import INVARIANTS, Mutant
from tests.mutants.running import Done


def say(text: str = "") -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def listed(mutants: Sequence[Mutant]) -> list[str]:
    lines: list[str] = []
    for mutant in mutants:
        lines += [f"{mutant.name}  ({', '.join(mutant.files)})", f"    removes  {mutant.removes}"]
        lines += [f"    breaks   {mutant.breaks}", f"    noticed  {mutant.noticed}"]
    return lines


def line(done: Done, *, ended: int, planned: int) -> str:
    """` 7/41  send-before-commit      caught by engine    test_intent_is_committed_…   6.2 s`"""
    name = f"{ended:>3}/{planned}  {done.mutant.name:<36}"
    caught = done.caught_by
    if caught is not None:
        return f"{name} caught by {caught.layer:<7} {done.seconds:6.1f} s   {_short(caught.read.test)}"
    if done.void:
        return f"{name} VOID     {done.void}"
    return f"{name} SURVIVED after {done.seconds:.0f} s in {', '.join(dict.fromkeys(run.layer for run in done.runs))}"


def table(every: Sequence[Done]) -> list[str]:
    """For `docs/`: which layer caught it, by which test, and the seconds in each layer that was asked."""
    asked = [layer for layer in LAYERS if any(run.layer == layer for done in every for run in done.runs)]
    rows = [["protection removed", "breaks", "caught by", "test", *[f"{layer}, s" for layer in asked]]]
    for done in every:
        caught = done.caught_by
        rows.append(
            [
                done.mutant.name,
                ", ".join(dict.fromkeys(INVARIANTS.findall(done.mutant.breaks))),
                "VOID" if done.void else "SURVIVED" if caught is None else caught.layer,
                "" if caught is None else _short(caught.read.test),
                *[_seconds(done, layer) for layer in asked],
            ]
        )
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    lines = [_row(row, widths) for row in rows]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


def sums(every: Sequence[Done], *, seconds: float) -> list[str]:
    layers = Counter(done.caught_by.layer for done in every if done.caught_by is not None)
    told = ", ".join(f"{layer} {layers[layer]}" for layer in LAYERS if layers[layer])
    return [f"{layers.total()} of {len(every)} mutants were caught ({told or 'by nobody'}) in {seconds / 60:.1f} min."]


def trouble(every: Sequence[Done], false: Sequence[str]) -> list[str]:
    """What is wrong, and the next command."""
    lines: list[str] = []
    for done in every:
        if done.survived:
            lines += [f"SURVIVED  {done.mutant.name}: {done.mutant.removes}", f"          {done.mutant.noticed}"]
            lines += ["          Write the test that fails without it, and name it in the patch under Suspects:"]
        if done.void:
            lines += [f"VOID      {done.mutant.name}: {done.void}"]
        if done.survived or done.void:
            lines += [f"          Its output: {done.log}"] if done.log is not None else []
            lines += [f"          Again: python -m tests.mutants --only {done.mutant.name} --keep"]
    for test in false:
        lines += [f"FALSE     {test} fails without any patch, too: what it caught is not proven."]
    return lines


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"


def _seconds(done: Done, layer: str) -> str:
    runs = [run for run in done.runs if run.layer == layer]
    return f"{sum(run.seconds for run in runs):.1f}" if runs else ""


def _short(test: str) -> str:
    """The file's name and the test's, without the case."""
    path, _, name = test.partition("::")
    return f"{path.rpartition('/')[2]}::{name.partition('[')[0]}" if name else test
