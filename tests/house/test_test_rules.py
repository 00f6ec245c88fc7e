"""House rules of the tests: they wait on conditions, skip and patch nothing, and are named by a behaviour."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import PurePosixPath

from tests.house import sources
from tests.house.sources import Breach, Module

NAME = re.compile(r"test_[a-z0-9]+(_[a-z0-9]+){2,}")
SLEEPS = {"time.sleep", "asyncio.sleep", "anyio.sleep", "trio.sleep", "sleep"}
YIELDS = (0, 0.0)
"""`sleep(0)` lets others run; it waits for nothing."""
SKIPS = re.compile(r"(^|\.)(skip|skipif|xfail|importorskip)$")
PATCHES = re.compile(
    r"(^|\.)(monkeypatch\.(setattr|setitem|delattr)|mock\.patch(\.\w+)?|patch|patch\.object|mocker\.patch)$"
)
CLAIMS = re.compile(
    r"(^|[._])(raises|warns|none|asserts?|expects?|checks?|verify|until|eventually|run_state_machine_as_test)"
)
"""Words in the name of a called function by which it says that it asserts (`until` fails when its time is over)."""
EAGER = "task_always" + "_eager"


def test_no_test_waits_for_time_to_pass() -> None:
    breaches = (
        Breach(path=module.path, line=call.lineno, what=f"{name}(…)")
        for module in _tests()
        for name, call in sources.calls(module.tree)
        if name in SLEEPS and not _yields_only(call)
    )

    sources.none(
        breaches,
        why="too short on a busy machine, too long on every other.",
        fix="wait for the condition itself: an event, a row, a line of output, a process's end; with a time limit.",
    )


def test_no_test_is_skipped_or_expected_to_fail() -> None:
    def breaches() -> Iterator[Breach]:
        for module in _tests():
            for node in ast.walk(module.tree):
                if isinstance(node, ast.Attribute) and SKIPS.search(name := sources.dotted(node)) and "pytest" in name:
                    yield Breach(path=module.path, line=node.lineno, what=name)

    sources.none(
        breaches(),
        why="a test that does not run protects nothing and is counted as if it did.",
        fix="make it run (the embedded servers are always there), or remove it.",
    )


def test_no_test_patches_our_own_functions() -> None:
    breaches = (
        Breach(path=module.path, line=call.lineno, what=name)
        for module in _tests()
        for name, call in sources.calls(module.tree)
        if PATCHES.search(name)
    )

    sources.none(
        breaches,
        why="a patched function proves that the patch works.",
        fix="fake at a port, scripted as data; pass time and randomness as arguments.",
    )


def test_no_test_runs_celery_eagerly() -> None:
    breaches = (
        Breach(path=module.path, line=number, what=EAGER)
        for module in sources.modules("app", "worker", "tests")
        for number, line in enumerate(module.text.splitlines(), start=1)
        if EAGER in line
    )

    sources.none(
        breaches, why="eager mode has no queue, so nothing that can go wrong with one.", fix="start a worker process."
    )


def test_test_names_tell_who_does_what_and_when() -> None:
    def breaches() -> Iterator[Breach]:
        for module in _tests():
            for test in _functions(module):
                if not NAME.fullmatch(test.name):
                    yield Breach(path=module.path, line=test.lineno, what=test.name)

    sources.none(
        breaches(),
        why="the list of names is the list of promises; one word promises nothing.",
        fix="test_<who>_<does>_<when>, as test_claim_leaves_the_call_when_the_worker_is_lost.",
    )


def test_every_test_claims_something() -> None:
    def breaches() -> Iterator[Breach]:
        for module in _tests():
            for test in _functions(module):
                if not _claims(test):
                    yield Breach(path=module.path, line=test.lineno, what=f"{test.name} asserts nothing")

    sources.none(
        breaches(),
        why="a test that cannot fail proves nothing.",
        fix="assert, pytest.raises, or call a function whose name says that it asserts (expect_…, check_…, until).",
    )


def test_test_files_have_names_of_their_own() -> None:
    names = Counter(PurePosixPath(module.path).name for module in _tests() if "/test_" in module.path)

    twice = sorted(name for name, count in names.items() if count > 1)

    assert not twice, f"In pytest's output and in a search the folder is not seen. Rename one of each: {twice}"


def _tests() -> tuple[Module, ...]:
    return sources.modules("tests")


def _functions(module: Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test"):
            yield node


def _yields_only(call: ast.Call) -> bool:
    return len(call.args) == 1 and isinstance(call.args[0], ast.Constant) and call.args[0].value in YIELDS


def _claims(test: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    if any(isinstance(node, ast.Assert) for node in ast.walk(test)):
        return True
    return any(CLAIMS.search(name) for name, _ in sources.calls(test))
