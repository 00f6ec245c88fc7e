"""Every mutant is fit for use: it applies to the tree as it is, touches the product only, and says what it is about."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mutants import layers, patches, report
from tests.mutants.laboratory import ROOT, DoesNotApply, Laboratory, WrongTree, apply
from tests.mutants.layers import Read
from tests.mutants.patches import INVARIANTS, Mutant, Unreadable
from tests.mutants.running import Done, Run

PRODUCT = ("app/", "worker/")
ENOUGH = 30
"""Protections that the product promises, at the least."""
MATRIX = {"--only", "--fault", "--effect", "--seed", "--lanes", "--times"}


def named(mutant: Mutant) -> str:
    return mutant.name


EVERY = patches.every()
each = pytest.mark.parametrize("mutant", EVERY, ids=named)


@each
def test_mutant_applies_to_the_tree_as_it_is(mutant: Mutant) -> None:
    applied = check(mutant.path)

    assert applied == "", f"{applied}\nThe code has moved on: write {mutant.path.name} anew for where it is now."


@each
def test_mutant_changes_only_the_product_and_leaves_no_switch_behind(mutant: Mutant) -> None:
    assert mutant.files, "a patch without a change"
    assert [path for path in mutant.files if not path.startswith(PRODUCT)] == []
    assert [line for line in mutant.added if "environ" in line or "getenv" in line] == []


@each
def test_mutant_says_what_is_removed_and_who_would_notice(mutant: Mutant) -> None:
    assert all(len(text) > 20 for text in (mutant.removes, mutant.breaks, mutant.noticed))
    assert INVARIANTS.search(mutant.breaks), "it names no invariant (S1 … K1)"
    assert mutant.suspects, "it names no test that ought to fail: every mutant would cost the whole suite"
    assert {word for word in mutant.chaos if word.startswith("--")} <= MATRIX


@each
def test_mutant_suspects_tests_that_exist(mutant: Mutant) -> None:
    assert [suspect for suspect in mutant.suspects if not is_there(suspect)] == []
    assert [layers.of(suspect) for suspect in mutant.suspects]


def test_mutants_are_as_many_as_there_are_protections_to_lose() -> None:
    changes = {(mutant.files, mutant.added) for mutant in EVERY}

    assert len(EVERY) >= ENOUGH
    assert len(changes) == len(EVERY), "two patches remove the same"


def test_patch_is_refused_when_the_code_has_moved_on(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "one.py").write_text("a = 1\nb = 2\n")
    fits, stale = tmp_path / "fits.patch", tmp_path / "stale.patch"
    fits.write_text("Removes: x\n\n--- a/app/one.py\n+++ b/app/one.py\n@@ -1,2 +1,1 @@\n a = 1\n-b = 2\n")
    stale.write_text("Removes: x\n\n--- a/app/one.py\n+++ b/app/one.py\n@@ -1,2 +1,1 @@\n a = 1\n-b = 3\n")

    apply(fits, tmp_path, check_only=True)
    with pytest.raises(DoesNotApply, match=r"stale\.patch"):
        apply(stale, tmp_path, check_only=True)

    assert (tmp_path / "app" / "one.py").read_text() == "a = 1\nb = 2\n"


def test_header_is_refused_when_a_line_belongs_to_no_field(tmp_path: Path) -> None:
    path = tmp_path / "odd.patch"
    path.write_text("Removes: one thing\n    and its end\nWhy: because\n\n--- a/app/one.py\n+++ b/app/one.py\n")

    with pytest.raises(Unreadable, match="Why: because"):
        patches.read(path)


async def test_copy_imports_itself_and_nothing_of_the_tree_beside_it(tmp_path: Path) -> None:
    product(tmp_path / "tree")
    laboratory = Laboratory(root=tmp_path / "tree")

    place = await laboratory.copy("one", None)

    assert (place / "app" / "__init__.py").read_text() == (tmp_path / "tree" / "app" / "__init__.py").read_text()
    laboratory.close()
    assert not laboratory.folder.exists()


async def test_copy_is_refused_when_its_python_imports_another_tree(tmp_path: Path) -> None:
    product(tmp_path / "tree")
    elsewhere = product(tmp_path / "elsewhere") / "worker"
    (tmp_path / "tree" / "worker" / "__init__.py").write_text(f"__file__ = {str(elsewhere / '__init__.py')!r}\n")
    laboratory = Laboratory(root=tmp_path / "tree")

    with pytest.raises(WrongTree, match="elsewhere"):
        await laboratory.copy("one", None)

    laboratory.close()


@pytest.mark.parametrize(
    ("code", "cases", "verdict"),
    [
        (0, "<testcase classname='tests.engine.test_x' name='test_a'/>", "passed"),
        (1, "<testcase classname='tests.engine.test_x' name='test_a'><failure message='no'/></testcase>", "caught"),
        (1, "<testcase classname='tests.engine.test_x' name='test_a'><error message='no server'/></testcase>", "void"),
        (2, "<testcase classname='' name='tests.engine.test_x'><error message='import'/></testcase>", "void"),
        (4, "", "void"),
        (5, "", "void"),
    ],
)
def test_run_catches_a_mutant_only_when_a_test_has_failed(tmp_path: Path, code: int, cases: str, verdict: str) -> None:
    junit = tmp_path / "report.xml"
    junit.write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")

    read = layers.read_pytest(code, "the last line\n", junit)

    assert read.verdict == verdict
    assert read.test == ("tests/engine/test_x.py::test_a" if verdict == "caught" else "")


def test_matrix_catches_a_mutant_only_when_a_case_has_failed() -> None:
    failed = "  3/7  claim.committed × kill             6 cases  1 FAILED    1.3 s   5 again\n"

    assert layers.read_matrix(1, failed) == Read(
        verdict="caught", test="matrix: claim.committed × kill", why="the matrix tells its story"
    )
    assert layers.read_matrix(0, "").verdict == "passed"
    assert layers.read_matrix(1, "Traceback\nImportError: gone\n").verdict == "void"
    assert layers.read_matrix(2, "Nothing fits; see --list.\n").verdict == "void"


def test_survivor_is_told_with_the_next_command_when_nothing_failed() -> None:
    survived = Done(mutant=EVERY[0], runs=(run("passed"),))
    caught = Done(mutant=EVERY[1], runs=(run("passed"), run("caught")))

    told = report.trouble([survived, caught], ["tests/engine/test_x.py::test_a"])

    assert (survived.survived, caught.survived) == (True, False)
    assert told[0].startswith(f"SURVIVED  {EVERY[0].name}")
    assert any(f"python -m tests.mutants --only {EVERY[0].name}" in line for line in told)
    assert told[-1].startswith("FALSE")
    assert EVERY[1].name not in "".join(told)
    assert report.table([survived, caught])[2].count("SURVIVED") == 1


def run(verdict: layers.Verdict) -> Run:
    read = Read(verdict=verdict, test="tests/engine/test_x.py::test_a[odd]" if verdict == "caught" else "")
    return Run(layer="engine", whole=False, read=read, seconds=1.0)


def check(patch: Path) -> str:
    try:
        apply(patch, ROOT, check_only=True)
    except DoesNotApply as error:
        return str(error)
    return ""


def is_there(suspect: str) -> bool:
    path, _, name = suspect.partition("::")
    file = ROOT / path
    return file.is_file() and (not name or name.partition("[")[0] in set(_tests(file)))


def _tests(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield node.name


def product(place: Path) -> Path:
    """A tree with the rooms that a copy is asked about, and nothing in them."""
    for room in ("app", "worker", "surefoot"):
        (place / room).mkdir(parents=True)
        (place / room / "__init__.py").write_text(f'"""{room}"""\n')
    (place / "pyproject.toml").write_text('[tool.hatch.build.targets.wheel]\ndev-mode-dirs = ["."]\n')
    return place
