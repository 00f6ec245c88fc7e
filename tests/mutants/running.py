"""One mutant through the layers, and all of them: copy, patch, run, until a test fails.

    Campaign(…).run(mutants)   several side by side, each in a copy of its own
    Campaign(…).control(…)     the tests that caught something, once more in a copy without a patch: they must pass,
                               else it was not the missing protection that they saw

First the suspects, layer by layer; only if none of them sees anything whole layers. A run that takes too long is ended
with its whole process group, which is ours alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.mutants import layers, patches
from tests.mutants.laboratory import DoesNotApply, Laboratory, WrongTree, python_of
from tests.mutants.layers import CHAOS, LAYERS, Command, Read

LONGEST: Final = 1500.0
LONGEST_SUSPECTS: Final = 400.0
"""Seconds for a run of a whole layer, and of suspects. A test has its own limit; this is for one that a mutant hangs so
well that not even that ends it."""

GRACE: Final = 30.0
"""Seconds that pytest has to stop its servers when it is asked to end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    layer: str
    whole: bool
    """All of the layer, not the suspects alone."""
    read: Read
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    mutant: patches.Mutant
    runs: tuple[Run, ...]
    void: str = ""
    """Why nothing can be said about it."""
    log: Path | None = None

    @property
    def caught_by(self) -> Run | None:
        return next((run for run in self.runs if run.read.verdict == "caught"), None)

    @property
    def survived(self) -> bool:
        return self.caught_by is None and not self.void

    @property
    def seconds(self) -> float:
        return sum(run.seconds for run in self.runs)


@dataclass(kw_only=True)
class Campaign:
    laboratory: Laboratory
    chosen: Sequence[str]
    """Layers, in their order."""
    jobs: int = 1
    suspects_only: bool = False
    thorough: bool = False
    """Whole layers from the first on: which one is the first to see it?"""
    every_layer: bool = False
    """Do not stop at the first layer that sees it."""
    keep: bool = False
    ended: Callable[[Done], None] = lambda done: None
    _places: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._places = asyncio.Semaphore(self.jobs)

    async def run(self, mutants: Sequence[patches.Mutant]) -> list[Done]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._one(mutant)) for mutant in mutants]
        return [task.result() for task in tasks]

    async def control(self, done: Sequence[Done]) -> list[str]:
        """Those of the tests that also fail without any patch."""
        caught = [each.caught_by.read.test for each in done if each.caught_by is not None]
        tests = sorted({test for test in caught if "::" in test})
        pieces = sorted({each.mutant.chaos for each in done if each.caught_by and "::" not in each.caught_by.read.test})
        failed: list[str] = []
        place = await self.laboratory.copy("control", None)
        if tests:
            run = await self._command("control", place, layers.pytest(tests, go_on=True))
            report = _report_of(self.laboratory, "control")
            if run.verdict != "passed":
                failed += (layers.failed_in(report) if report.exists() else []) or [run.why]
        for piece in pieces:
            if (await self._command("control", place, layers.matrix(piece))).verdict != "passed":
                failed.append(f"matrix {' '.join(piece)}")
        self._clear("control")
        return failed

    async def _one(self, mutant: patches.Mutant) -> Done:
        async with self._places:
            try:
                place = await self.laboratory.copy(mutant.name, mutant.path)
            except (DoesNotApply, WrongTree) as error:
                done = Done(mutant=mutant, runs=(), void=str(error))
            else:
                done = await self._through_layers(mutant, place)
        self.ended(done)
        return done

    async def _through_layers(self, mutant: patches.Mutant, place: Path) -> Done:
        runs: list[Run] = []
        for layer, command, whole in self._plan(mutant):
            if not self.every_layer and any(run.read.verdict == "caught" for run in runs):
                break
            if any(run.layer == layer and run.read.verdict == "caught" for run in runs):
                continue
            began = time.monotonic()
            read = await self._command(mutant.name, place, command, longest=LONGEST if whole else LONGEST_SUSPECTS)
            runs.append(Run(layer=layer, whole=whole, read=read, seconds=time.monotonic() - began))
        caught = any(run.read.verdict == "caught" for run in runs)
        unsaid = [run.read.why for run in runs if run.read.verdict == "void"]
        void = "" if caught else unsaid[0] if unsaid else "" if runs else "it names no suspect in these layers"
        if caught:
            self._clear(mutant.name)
        return Done(mutant=mutant, runs=tuple(runs), void=void, log=_log_of(self.laboratory, mutant.name))

    def _plan(self, mutant: patches.Mutant) -> list[tuple[str, Command, bool]]:
        plan: list[tuple[str, Command, bool]] = []
        if not self.thorough:
            named = [(layer, layers.suspects(mutant.suspects, layer)) for layer in self.chosen]
            plan += [(layer, command, False) for layer, command in named if command is not None]
        if mutant.chaos and CHAOS in self.chosen:
            plan.append((CHAOS, layers.matrix(mutant.chaos), False))
        if not self.suspects_only:
            plan += [(layer, layers.whole(layer), True) for layer in LAYERS if layer in self.chosen]
        return plan

    async def _command(self, name: str, place: Path, command: Command, *, longest: float = LONGEST) -> Read:
        report, log = _report_of(self.laboratory, name), _log_of(self.laboratory, name)
        report.unlink(missing_ok=True)
        argv = [python_of(place), *command.argv, *([] if command.matrix else [f"--junit-xml={report}"])]
        with log.open("ab") as file:
            start = file.tell()
            file.write(f"$ {' '.join(argv)}\n".encode())
            file.flush()
            code = await _ended(argv, place, file.fileno(), longest=longest)
        output = log.read_bytes()[start:].decode("utf-8", "replace")
        if code is None:
            return Read(verdict="void", why=f"it had not ended after {longest:.0f} s")
        return layers.read_matrix(code, output) if command.matrix else layers.read_pytest(code, output, report)

    def _clear(self, name: str) -> None:
        if not self.keep:
            self.laboratory.remove(name)


def _report_of(laboratory: Laboratory, name: str) -> Path:
    return laboratory.folder / f"{name}.xml"


def _log_of(laboratory: Laboratory, name: str) -> Path:
    return laboratory.folder / f"{name}.log"


async def _ended(argv: Sequence[str], place: Path, output: int, *, longest: float) -> int | None:
    """The exit code, or None if it took too long."""
    process = await asyncio.create_subprocess_exec(
        *argv, cwd=place, stdout=output, stderr=output, stdin=asyncio.subprocess.DEVNULL, start_new_session=True
    )
    try:
        return await asyncio.wait_for(process.wait(), longest)
    except TimeoutError:
        return None
    finally:
        await _end_group(process)


async def _end_group(process: asyncio.subprocess.Process) -> None:
    """Asked first, so that it stops the servers it has started; and nothing of it is left."""
    if process.returncode is None:
        _signal(process.pid, signal.SIGINT)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), GRACE)
    _signal(process.pid, signal.SIGKILL)
    await process.wait()


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)
