"""What the oracle says: for each law how much it looked at and every violation in words. No law stops at the first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class Violation:
    law: str
    """`S3`, as in the list of invariants."""
    words: str
    """What both sides say: the world's ledger and our rows."""
    workflow: str | None = None
    call: str | None = None

    def __str__(self) -> str:
        where = " ".join(each for each in (self.workflow, self.call) if each)
        return f"{self.law}: {where + ': ' if where else ''}{self.words}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """One law was asked about so many things (`of`); 0 things checked prove nothing, the caller may object."""

    law: str
    says: str
    count: int
    of: str
    violations: Sequence[Violation] = field(default_factory=tuple)

    @property
    def line(self) -> str:
        """One line of a report."""
        verdict = "ok" if not self.violations else f"{len(self.violations)} VIOLATIONS"
        return f"{self.law:<3} {self.says:<58} {self.count:>8} {self.of:<18} {verdict}"


def violations(checks: Iterable[Checked]) -> list[Violation]:
    return [violation for checked in checks for violation in checked.violations]


def expect_none(checks: Iterable[Checked], *, at_most: int = 40) -> None:
    """Raises AssertionError that lists the violations (the first `at_most`)."""
    found = violations(checks)
    shown = "\n".join(str(violation) for violation in found[:at_most])
    assert not found, f"{len(found)} violations\n{shown}"
