"""The supervisor starts in order, keeps alive, stops in reverse, leaves nobody behind. Children are tiny scripts."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

import pytest

from app.embedded import process
from app.embedded.process import Command
from app.embedded.refusal import CannotStart
from app.embedded.supervisor import Child, Death, Supervisor

pytestmark = pytest.mark.anyio

PATIENT = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); print('up', flush=True)\n"
WAITS = PATIENT + "signal.pause()"
STUBBORN = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True)\nwhile 1: signal.pause()"
)


class Family:
    """A supervisor whose output, deaths and changes are kept; ends everything when the test is over."""

    def __init__(self, diary: Path) -> None:
        self.diary = diary
        self.said: list[tuple[str, str]] = []
        self.deaths: list[Death] = []
        self.changes: list[dict[str, int]] = []
        self.looked_at: list[str] = []
        self.seen: set[int] = set()
        self.supervisor = Supervisor(
            say=lambda name, line: self.said.append((name, line)),
            died=self._died,
            changed=lambda pids: self.changes.append(dict(pids)),
            before_kill=self._before_kill,
        )

    async def _died(self, death: Death) -> None:
        self.deaths.append(death)

    async def _before_kill(self, name: str, pid: int) -> None:
        assert process.alive(pid)
        self.looked_at.append(name)

    def child(
        self,
        name: str,
        script: str = WAITS,
        *,
        ready: Callable[[int], Awaitable[bool]] | None = None,
        grace: float = 10.0,
        ready_within: float = 20.0,
    ) -> Child:
        """Says in the diary when it was started and when it was asked to end; ready once it has printed `up`."""
        command = Command(
            argv=(sys.executable, "-S", "-c", script, str(self.diary), name), env={"PATH": os.environ["PATH"]}
        )

        async def launch() -> Command:
            return command

        async def has_said_up(pid: int) -> bool:
            self.seen.add(pid)
            return (name, "up") in self.said

        return Child(
            name=name, launch=launch, ready=ready or has_said_up, grace=grace, ready_within=ready_within, on_trouble=""
        )

    @property
    def left(self) -> list[int]:
        return [pid for pid in self.seen if process.alive(pid)]


@pytest.fixture
async def family(tmp_path: Path) -> AsyncIterator[Family]:
    made = Family(tmp_path / "diary")
    yield made
    made.supervisor.hurry()
    await made.supervisor.stop()


async def soon(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.to_thread(threading.Event().wait, 0.02)


DIARIST = (
    "import signal, sys\n"
    "note = lambda word: open(sys.argv[1], 'a').write(f'{sys.argv[2]} {word}\\n')\n"
    "signal.signal(signal.SIGTERM, lambda *_: (note('ends'), sys.exit(0)))\n"
    "note('begins'); print('up', flush=True); signal.pause()"
)


async def test_supervisor_stops_in_reverse_order_when_it_started_in_stages(family: Family) -> None:
    await family.supervisor.start(family.child("store", DIARIST))
    await family.supervisor.start(family.child("api", DIARIST))

    await family.supervisor.stop()

    assert family.diary.read_text().splitlines() == ["store begins", "api begins", "api ends", "store ends"]
    assert family.left == []


async def test_supervisor_starts_a_child_again_when_it_was_killed(family: Family) -> None:
    await family.supervisor.start(family.child("worker.1"), family.child("api"))
    before = family.supervisor.pids

    os.kill(before["worker.1"], signal.SIGKILL)
    await soon(lambda: family.changes)

    assert family.deaths == [Death(name="worker.1", pid=before["worker.1"], code=-signal.SIGKILL)]
    assert family.changes[0]["api"] == before["api"]
    assert family.changes[0]["worker.1"] not in (None, before["worker.1"])
    assert process.alive(family.changes[0]["worker.1"])


async def test_supervisor_gives_up_when_a_child_dies_five_times(family: Family) -> None:
    with pytest.raises(CannotStart) as refusal:
        await family.supervisor.start(family.child("api", "print('no database'); raise SystemExit(7)"))

    assert refusal.value.exit_code == 7
    assert "5 times in 30 s" in refusal.value.what
    assert "no database" in refusal.value.what
    assert len(family.deaths) == 5


async def test_supervisor_gives_up_when_a_child_is_not_ready_in_time(family: Family) -> None:
    async def never(pid: int) -> bool:
        family.seen.add(pid)
        return False

    with pytest.raises(CannotStart, match="not ready within 0 s"):
        await family.supervisor.start(family.child("api", ready=never, ready_within=0.3))
    await family.supervisor.stop()

    assert family.seen
    assert family.left == []


async def test_supervisor_kills_a_child_when_it_does_not_end_in_its_grace(family: Family) -> None:
    await family.supervisor.start(family.child("worker.1", STUBBORN, grace=0.2))

    await family.supervisor.stop()

    assert family.looked_at == ["worker.1"]
    assert [death.code for death in family.deaths] == [-signal.SIGKILL]
    assert family.left == []


async def test_supervisor_waits_longer_when_it_is_told_another_grace(family: Family) -> None:
    slow = (
        "import signal, sys, threading\n"
        "signal.signal(signal.SIGTERM, lambda *_: (threading.Event().wait(0.5), sys.exit(0)))\n"
        "print('up', flush=True); signal.pause()"
    )
    await family.supervisor.start(family.child("worker.1", slow, grace=0.01))

    await family.supervisor.stop(grace={"worker.1": 15.0})

    assert family.looked_at == []
    assert [death.code for death in family.deaths] == [0]


async def test_supervisor_ends_everything_at_once_when_it_is_hurried(family: Family) -> None:
    await family.supervisor.start(family.child("worker.1", STUBBORN, grace=60.0))
    stopping = asyncio.create_task(family.supervisor.stop())
    await asyncio.sleep(0)

    family.supervisor.hurry()

    async with asyncio.timeout(5):
        await stopping
    assert family.looked_at == ["worker.1"]
    assert family.left == []


async def test_supervisor_leaves_nobody_when_it_is_stopped_in_the_middle_of_a_start(family: Family) -> None:
    async def never(pid: int) -> bool:
        family.seen.add(pid)
        return False

    await family.supervisor.start(family.child("store"))
    starting = asyncio.create_task(family.supervisor.start(family.child("api", ready=never)))
    await soon(lambda: len(family.seen) == 2)

    starting.cancel()
    await family.supervisor.stop()

    assert len(family.seen) == 2
    assert family.left == []


async def test_supervisor_leaves_nobody_when_it_is_stopped_while_a_process_is_being_made(family: Family) -> None:
    pids: list[int] = []
    begun = asyncio.Event()
    child = family.child("api")

    async def launch() -> Command:
        command = await child.launch()
        begun.set()
        assert isinstance(command, Command)
        return command

    async def never(pid: int) -> bool:
        pids.append(pid)
        return False

    starting = asyncio.create_task(family.supervisor.start(Child(name="api", launch=launch, ready=never)))
    await begun.wait()
    starting.cancel()

    await family.supervisor.stop()

    assert family.supervisor.pids == {}
    assert subprocess.run(["pgrep", "-P", str(os.getpid()), "-f", str(family.diary)], check=False).returncode == 1


async def test_supervisor_starts_its_own_when_an_adopted_process_dies(family: Family) -> None:
    survivor = subprocess.Popen(["/bin/sleep", "60"])
    own = family.child("redis")
    adopted: list[int] = []

    async def launch() -> Command | int:
        if not adopted:
            adopted.append(survivor.pid)
            return survivor.pid
        return await own.launch()

    async def ready(pid: int) -> bool:
        return pid == survivor.pid or await own.ready(pid)

    await family.supervisor.start(Child(name="redis", launch=launch, ready=ready))
    first = family.supervisor.pids

    survivor.kill()
    survivor.wait()
    await soon(lambda: family.changes)

    assert first == {"redis": survivor.pid}
    assert family.deaths == [Death(name="redis", pid=survivor.pid, code=None)]
    assert family.changes[0]["redis"] != survivor.pid


async def test_supervisor_goes_on_when_a_death_cannot_be_told(family: Family) -> None:
    async def broken(death: Death) -> None:
        raise OSError("no database")

    said: list[tuple[str, str]] = []
    changes: list[Mapping[str, int]] = []
    supervisor = Supervisor(say=lambda *line: said.append(line), died=broken, changed=changes.append)

    async def at_once(_: int) -> bool:
        return True

    await supervisor.start(family.child("worker.1", ready=at_once))
    os.kill(supervisor.pids["worker.1"], signal.SIGKILL)
    await soon(lambda: changes)
    await supervisor.stop()

    assert any("could not be recorded: no database" in line for _, line in said)


async def test_supervisor_passes_on_every_line_when_children_print(family: Family) -> None:
    script = PATIENT + "print('a' * 200_000); print('half', end='', flush=True)"

    await family.supervisor.start(family.child("talker", script))
    await soon(lambda: ("talker", "half") in family.said)

    assert ("talker", "a" * 200_000) in family.said


async def test_child_is_told_by_the_kernel_when_its_supervisor_was_killed(until: Callable[..., None]) -> None:
    script = (
        "import sys\n"
        "from app.embedded.process import Command, spawn\n"
        "child = spawn(Command(argv=('/bin/sleep', '60'), env={}))\n"
        "print(child.pid, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        living = process.alive(pid)

        owner.kill()

    assert living
    until(lambda: not process.alive(pid), "the orphan ends")
