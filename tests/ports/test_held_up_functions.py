"""Python tools: a function can hold up nobody but itself, whether it blocks, is cancelled, or is slow to import."""

from __future__ import annotations

import ast
import asyncio
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import structlog

import surefoot
from app.domain.plan import PythonTool
from app.domain.states import AttemptOutcome, FailureKind
from app.ports.python_functions import Functions, NotLoaded, installed
from tests import packages
from tests.ports import function_calls
from tests.ports.function_calls import AMPLE, call, returned, tools, until


@pytest.fixture
def module(tmp_path: Path) -> Iterator[ModuleType]:
    with function_calls.imported(tmp_path) as found:
        yield found


# --- deadlines, threads, cancelling ----------------------------------------------------------------------------------


async def test_loop_goes_on_while_a_function_blocks(module: ModuleType) -> None:
    port = tools()
    blocked = asyncio.create_task(returned(port, "blocks"))
    await until(module.entered.is_set)

    assert await returned(port, "book", {"title": "x"})
    assert not blocked.done()

    module.gate.set()
    assert await blocked == "late"


async def test_blocking_function_keeps_its_place_until_it_returns_and_hands_over_nothing_late(
    module: ModuleType,
) -> None:
    port = tools(threads=2)
    await returned(port, "book_blocking", {"title": "x"})
    await returned(port, "tell")

    hogs = [await port.send(call("blocks"), seconds=0.2, may_send=lambda: True) for _ in range(2)]
    crowded = await port.send(call("tell"), seconds=0.2, may_send=lambda: True)
    beside = await returned(port, "book", {"title": "x"})
    taken = (port.threads.busy, port.threads.abandoned)
    module.gate.set()
    after = await returned(port, "tell")

    assert [hog.certainty for hog in hogs] == [AttemptOutcome.UNKNOWN] * 2
    assert crowded.certainty is AttemptOutcome.NOT_SENT
    assert crowded.failure is not None
    assert crowded.failure.kind is FailureKind.WORKER_LOST
    assert "all 2 threads of worker.7 are taken, 2 of them by functions that went on" in crowded.failure.message
    assert (beside["title"], taken) == ("x", (2, 2))
    assert after["call"] == "call_1"
    await until(lambda: port.threads.busy == 0)
    assert port.threads.abandoned == 0


async def test_hog_is_told_in_the_log_when_it_is_abandoned_and_when_it_returns(module: ModuleType) -> None:
    port = tools()
    await returned(port, "tell")

    with structlog.testing.capture_logs() as lines:
        await port.send(call("blocks"), seconds=0.2, may_send=lambda: True)
        module.gate.set()
        await until(lambda: port.threads.busy == 0)

    told = [line for line in lines if line["event"].startswith("python_tool")]
    assert [line["event"] for line in told] == ["python_tool.abandoned", "python_tool.returned_late"]
    assert told[0] | {"tool": "calendar.book", "abandoned": 1, "busy": 1, "limit": 4} == told[0]


async def test_cancelling_reaches_an_async_function_and_comes_out_again(module: ModuleType) -> None:
    asked = asyncio.create_task(tools().send(call("waits"), seconds=AMPLE, may_send=lambda: True))
    await until(module.entered.is_set)

    asked.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asked
    assert module.calls == ["cancelled"]


async def test_cancelling_leaves_a_blocking_function_to_itself(module: ModuleType) -> None:
    port = tools()
    asked = asyncio.create_task(port.send(call("blocks"), seconds=AMPLE, may_send=lambda: True))
    await until(module.entered.is_set)

    asked.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asked
    assert port.threads.abandoned == 1
    module.gate.set()
    await until(lambda: port.threads.busy == 0)


async def test_result_counts_although_it_took_the_deadline_to_get_it(module: ModuleType) -> None:
    outcome = await tools().send(call("stubborn"), seconds=0.2, may_send=lambda: True)

    assert outcome.certainty is AttemptOutcome.SUCCEEDED
    assert outcome.evidence is not None
    assert json.loads(outcome.evidence.body) == {"done": True}


# --- finding and importing -------------------------------------------------------------------------------------------

SLOW = """
import sys
sys.modules["acme_gate"].opened.wait()
sys.modules["acme_gate"].imports.append(1)
async def book(): return "booked"
"""


@pytest.fixture
def gate() -> Iterator[Any]:
    """What the import of `SLOW` waits for."""
    gate: Any = ModuleType("acme_gate")
    gate.opened, gate.imports = threading.Event(), []
    sys.modules["acme_gate"] = gate
    yield gate
    gate.opened.set()
    del sys.modules["acme_gate"]


async def test_import_holds_up_nobody_and_is_made_once_however_many_ask(tmp_path: Path, gate: Any) -> None:
    port = tools()
    with packages.on_path(packages.write(tmp_path, SLOW, ["book"])):
        late = await port.send(call("book"), seconds=0.2, may_send=lambda: True)
        asked = [asyncio.create_task(returned(port, "book")) for _ in range(20)]
        await asyncio.sleep(0)
        gate.opened.set()
        answers = await asyncio.gather(*asked)

    assert late.certainty is AttemptOutcome.NOT_SENT
    assert late.failure is not None
    assert late.failure.kind is FailureKind.WORKER_LOST
    assert "worker.7 was still importing acme-tools:book when its 0.2 s were nearly over" in late.failure.message
    assert (answers, gate.imports) == (["booked"] * 20, [1])


async def test_missing_package_is_found_once_it_is_installed_and_not_looked_for_all_the_time(tmp_path: Path) -> None:
    tool = PythonTool(distribution="acme-tools", name="book")
    patient, eager = Functions(where="worker.7"), Functions(where="worker.7", remembered=0)
    with packages.on_path(tmp_path):
        for functions in (patient, eager):
            with pytest.raises(NotLoaded):
                await functions.load(tool)

        packages.write(tmp_path, "async def book(): return 1", ["book"])

        with pytest.raises(NotLoaded):
            await patient.load(tool)
        assert (await eager.load(tool)).is_async
        assert eager.known(tool) is not None


async def test_two_packages_with_a_tool_of_one_name_do_not_meet(tmp_path: Path) -> None:
    for distribution in ("Acme_Tools", "other.tools"):
        packages.write(tmp_path, f"def book(): return {distribution!r}", ["book"], distribution=distribution)

    with packages.on_path(tmp_path):
        port = tools()
        answers = [await returned(port, "book", distribution=name) for name in ("acme-tools", "other-tools")]

    assert answers == ["Acme_Tools", "other.tools"]


@pytest.mark.parametrize("spelling", ["Acme_Tools", "acme-tools", "acme.tools", "ACME--Tools"])
async def test_package_is_found_however_its_installer_spelled_it(tmp_path: Path, spelling: str) -> None:
    with packages.on_path(packages.write(tmp_path, "async def book(): return 1", ["book"], distribution=spelling)):
        assert await returned(tools(), "book") == 1


async def test_remains_of_a_broken_uninstallation_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "remains-1.dist-info").mkdir()
    (tmp_path / "remains-1.dist-info" / "entry_points.txt").write_text("[surefoot.tools]\nbook = nowhere:book\n")
    with packages.on_path(packages.write(tmp_path, "async def book(): return 1", ["book"])):
        here = [str(entry.tool) for entry in installed()]

        assert await returned(tools(), "book") == 1
    assert here == ["acme-tools:book"]


def test_public_module_needs_the_standard_library_only() -> None:
    tree = ast.parse(Path(surefoot.__file__).read_text())

    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}

    assert imported <= sys.stdlib_module_names
