"""The end of a run in one page: what was given, what it met, what was checked, the verdict, and how to repeat it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tests.chaos.counters import Counter
from tests.chaos.oracle.verdicts import Checked, violations

SHOWN: Final = 25
"""Violations that are printed; the file has all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    seed: int
    workflows: int
    seconds: float
    command: str
    folder: str
    faults: Mapping[str, int]
    ended: Mapping[str, int]
    counters: Sequence[Counter]
    checks: Sequence[Checked]

    @property
    def missing(self) -> list[Counter]:
        return [counter for counter in self.counters if counter.needed and not counter.count]

    @property
    def verdict(self) -> str:
        """VALID: everything held and everything was tried. INVALID proves nothing. FAILED: something did not hold."""
        if violations(self.checks):
            return "FAILED"
        return "INVALID" if self.missing else "VALID"

    @property
    def exit_code(self) -> int:
        return {"VALID": 0, "FAILED": 1, "INVALID": 2}[self.verdict]

    def text(self) -> str:
        given = ", ".join(f"{count} {kind}" for kind, count in sorted(self.faults.items())) or "none"
        ended = ", ".join(f"{count} {status}" for status, count in sorted(self.ended.items()))
        found = violations(self.checks)
        lines = [
            "",
            f"=== chaos, seed {self.seed}: {self.workflows} workflows in {self.seconds:.0f} s",
            f"faults given    {given}",
            f"workflows       {ended}",
            "",
            "what the run met",
            *(counter.line for counter in self.counters),
            "",
            "what was checked",
            *(checked.line for checked in self.checks),
            "",
            *(f"  {violation}" for violation in found[:SHOWN]),
            *([f"  … and {len(found) - SHOWN} more"] if len(found) > SHOWN else []),
            *(f"  not met: {counter.says}" for counter in self.missing),
            f"verdict         {self.verdict}"
            + (" (proves nothing: see what was not met)" if self.exit_code == 2 else ""),
            f"again           {self.command}   (the plan is repeated, the timing is not)",
            f"logs, ledgers   {self.folder}" if self.exit_code else "",
        ]
        return "\n".join(lines).rstrip() + "\n"
