"""The layers of tests, from the quickest to the slowest, and how one run of one layer is read.

    LAYERS        name → the folders of its tests
    of(test)      the layer that a test belongs to
    commands(…)   what is run for a mutant in one layer: its suspects, or all of it, and its piece of the matrix
    read(…)       what a run came to

Only a test that failed catches anything. A run that could not collect its tests, ended in a fixture, or ran out of
time says nothing, and is told as such.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal
from xml.etree import ElementTree

CHAOS: Final = "chaos"
LAYERS: Final[Mapping[str, tuple[str, ...]]] = {
    "domain": ("tests/domain",),
    "ports": ("tests/ports",),
    "engine": ("tests/engine",),
    "api": ("tests/api",),
    "worker": ("tests/worker", "tests/e2e"),
    CHAOS: ("tests/chaos",),
}

Verdict = Literal["caught", "passed", "void"]

_MATRIX_FAILED: Final = re.compile(r"^\s*\d+/\d+\s+(\S+ × \S+)\s.*\bFAILED\b", re.MULTILINE)
_FAILED, _PASSED = 1, 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    argv: tuple[str, ...]
    """After the Python of the copy."""
    matrix: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Read:
    verdict: Verdict
    test: str = ""
    """As pytest names it; of the matrix `boundary × fault`."""
    why: str = ""
    """The last word of the test, or why the run says nothing."""


def of(test: str) -> str:
    """Raises LookupError."""
    path = test.partition("::")[0]
    for layer, folders in LAYERS.items():
        if any(path == folder or path.startswith(f"{folder}/") for folder in folders):
            return layer
    raise LookupError(f"{test} is in none of {', '.join(LAYERS)}")


def suspects(tests: Sequence[str], layer: str) -> Command | None:
    """The run of those of the suspects that belong to the layer."""
    chosen = [test for test in tests if of(test) == layer]
    return pytest(chosen) if chosen else None


def whole(layer: str) -> Command:
    return pytest([*LAYERS[layer]])


def pytest(tests: Sequence[str], *, go_on: bool = False) -> Command:
    stop = () if go_on else ("-x",)
    return Command(argv=("-m", "pytest", "-q", *stop, "-p", "no:cacheprovider", "-p", "tests.mutants.guard", *tests))


def matrix(arguments: Sequence[str]) -> Command:
    return Command(argv=("-m", "tests.chaos.matrix", *arguments), matrix=True)


def read_matrix(code: int, output: str) -> Read:
    if code == _PASSED:
        return Read(verdict="passed")
    failed = _MATRIX_FAILED.search(output)
    if code == _FAILED and failed is not None:
        return Read(verdict="caught", test=f"matrix: {failed[1]}", why="the matrix tells its story")
    return Read(verdict="void", why=f"the matrix ended with {code}: {_last_line(output)}")


def read_pytest(code: int, output: str, report: Path) -> Read:
    """`report` is the JUnit file of the run."""
    if code == _PASSED:
        return Read(verdict="passed")
    cases = ElementTree.parse(report).iter("testcase") if report.exists() else ()
    for case in cases:
        failure = case.find("failure")
        if failure is not None:
            return Read(verdict="caught", test=_node(case), why=_short(failure.get("message") or ""))
    return Read(verdict="void", why=f"pytest ended with {code} and no failed test: {_last_line(output)}")


def failed_in(report: Path) -> list[str]:
    """Every test of that run that did not pass."""
    bad = ("failure", "error")
    return [
        _node(case)
        for case in ElementTree.parse(report).iter("testcase")
        if any(case.find(word) is not None for word in bad)
    ]


def _node(case: ElementTree.Element) -> str:
    return f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name', '')}"


def _short(message: str) -> str:
    return message.strip().partition("\n")[0][:160]


def _last_line(output: str) -> str:
    return next((line.strip()[:200] for line in reversed(output.splitlines()) if line.strip()), "it said nothing")
