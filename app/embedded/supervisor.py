"""One asyncio supervisor for a handful of processes: starts them in order, keeps them alive, stops them in reverse.

A `Child` says how it is launched, how one asks whether it is ready, and how it is stopped. `start` takes the children
of one stage together and returns when all are ready; `run` returns when somebody asked to stop or when a child could
not be kept alive; `stop` ends stages in reverse order: signal, grace, kill.

Promises: a death is told to `died` right after waitpid, before anything else is done about it; a dead child comes
back after 0.2 to 5 s; one that dies 5 times in 30 s ends the whole with its exit code; nothing that was started is
left behind, whenever `stop` is called (also in the middle of `start`). What the children print is merged line by line
behind their names. Generic: it knows nothing of databases or workers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from app.embedded import process
from app.embedded.process import Command
from app.embedded.refusal import CannotStart

_logger = logging.getLogger(__name__)

DEATHS: Final = 5
DEATHS_WITHIN: Final = 30.0
"""A child that dies this often within so many seconds will not get better by being started again."""

BACKOFF_FIRST: Final = 0.2
BACKOFF_LONGEST: Final = 5.0
"""Seconds before a restart: doubled with every recent death."""

READY_POLL: Final = 0.03
"""Seconds between two looks at a child that is starting."""

KILL_SECONDS: Final = 10.0
"""The kernel ends a killed process within milliseconds, unless its disk hangs."""

TELL_SECONDS: Final = 2.0
"""How long an ending waits for what is told about it: the word is a help, not a condition."""

LAST_LINES: Final = 12
"""Lines of a child's output that are kept to explain why it would not start."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Child:
    name: str
    launch: Callable[[], Awaitable[Command | int]]
    """Asked before every start: the command, or the pid of a survivor of an earlier owner that is adopted instead."""
    ready: Callable[[int], Awaitable[bool]]
    """Asked with the pid until it says yes."""
    ready_within: float = 60.0
    stop_signal: signal.Signals = signal.SIGTERM
    kill_signal: signal.Signals = signal.SIGKILL
    """What ends it at once; Postgres takes SIGQUIT, so that it takes its backends along."""
    grace: float = 10.0
    """Seconds between `stop_signal` and `kill_signal`."""
    on_trouble: str = ""
    """Where to look when it does not start, as a sentence (its log file)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Death:
    name: str
    pid: int
    code: int | None
    """Exit code, minus the signal's number, or None for an adopted process (not ours to wait for)."""

    @property
    def how(self) -> str:
        if self.code is None:
            return "ended"
        if self.code < 0:
            return f"was ended by {signal.Signals(-self.code).name}"
        return f"ended with exit code {self.code}"

    @property
    def exit_code(self) -> int:
        """As a shell counts: 128 + signal; never 0, because it was not asked to end."""
        if self.code is None:
            return 1
        return 128 - self.code if self.code < 0 else max(self.code, 1)


@dataclass(kw_only=True, slots=True, eq=False)
class _Kept:
    """What the supervisor knows of one child."""

    child: Child
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    pid: int | None = None
    running: asyncio.subprocess.Process | None = None
    stopping: bool = False
    deaths: deque[float] = field(default_factory=lambda: deque(maxlen=DEATHS))
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_LINES))
    task: asyncio.Task[None] | None = None


class Supervisor:
    def __init__(
        self,
        *,
        say: Callable[[str, str], None] | None = None,
        died: Callable[[Death], Awaitable[None]] | None = None,
        changed: Callable[[Mapping[str, int]], None] | None = None,
        before_kill: Callable[[str, int], Awaitable[None]] | None = None,
    ) -> None:
        """`say(name, line)` takes the merged output; `changed(pids)` is called when a restarted child is ready;
        `before_kill(name, pid)` has two seconds to look at a child that did not stop, before it is killed."""
        self._say = say or print_line
        self._died = died
        self._changed = changed
        self._before_kill = before_kill
        self._stages: list[list[_Kept]] = []
        self._failed: asyncio.Future[CannotStart] = asyncio.get_running_loop().create_future()
        self._hurry = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def pids(self) -> dict[str, int]:
        """The children that run now."""
        return {kept.child.name: kept.pid for stage in self._stages for kept in stage if kept.pid is not None}

    async def start(self, *children: Child) -> None:
        """One stage: start these together and return when all are ready. Raises `CannotStart`."""
        stage = [_Kept(child=child) for child in children]
        self._stages.append(stage)
        for kept in stage:
            kept.task = asyncio.create_task(self._keep(kept), name=f"keep {kept.child.name}")
        all_ready = asyncio.create_task(_all_ready(stage))
        try:
            await _first_of(all_ready, self._failed)
            if self._failed.done():
                raise self._failed.result()
        finally:
            all_ready.cancel()

    async def run(self, until: asyncio.Event) -> None:
        """Return when `until` is set; raise `CannotStart` when a child cannot be kept alive."""
        asked = asyncio.create_task(until.wait())
        try:
            await _first_of(asked, self._failed)
        finally:
            asked.cancel()
        if self._failed.done() and not until.is_set():
            raise self._failed.result()

    def hurry(self) -> None:
        """End everything that is being stopped, or will be, at once."""
        self._hurry.set()

    async def stop(self, *, only: frozenset[str] | None = None, grace: Mapping[str, float] | None = None) -> None:
        """End stage after stage in reverse order; `only` these children if given. `grace` overrides a child's own."""
        for stage in reversed(self._stages):
            ending = [kept for kept in stage if only is None or kept.child.name in only]
            await asyncio.gather(*(self._end(kept, (grace or {}).get(kept.child.name)) for kept in ending))
        if only is None and self._tasks:
            # What is still being told (a proof of death) gets a moment, then it is not told: leases end by time.
            _, late = await asyncio.wait(self._tasks, timeout=TELL_SECONDS)
            for task in late:
                task.cancel()

    # --- one child's life ---

    async def _keep(self, kept: _Kept) -> None:
        first = True
        try:
            while True:
                pid = await self._launch(kept)
                death = await self._watch(kept, pid, first=first)
                first = first and not kept.ready.is_set()
                if kept.stopping or not await self._after(kept, death):
                    return
        except CannotStart as refusal:
            self._fail(refusal)
        except Exception as error:
            _logger.exception("keeping %s alive failed", kept.child.name)
            self._fail(CannotStart(f"{kept.child.name} could not be started: {error}", fix=kept.child.on_trouble))
        finally:
            kept.ended.set()

    async def _launch(self, kept: _Kept) -> int:
        launched = await kept.child.launch()
        if isinstance(launched, int):
            kept.pid = launched
            return launched
        # Never cancelled half-way: a process that was forked is known here, and ended by `_end`.
        spawned = asyncio.ensure_future(self._spawn(kept, launched))
        try:
            return await asyncio.shield(spawned)
        except asyncio.CancelledError:
            await asyncio.wait({spawned})
            raise

    async def _spawn(self, kept: _Kept, command: Command) -> int:
        log = process.open_log(command.log) if command.log is not None else None
        try:
            running = await asyncio.create_subprocess_exec(
                *command.argv,
                env=dict(command.env),
                cwd=command.cwd,
                user=command.uid,
                group=command.gid,
                extra_groups=[] if command.uid is not None else None,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log if log is not None else asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                pass_fds=command.pass_fds,
                preexec_fn=process.at_birth(command),
            )
        except OSError as error:
            raise CannotStart(f"{kept.child.name} could not be started: {error}", fix=kept.child.on_trouble) from error
        finally:
            if log is not None:
                log.close()
        kept.running, kept.pid = running, running.pid
        if running.stdout is not None:
            self._spin(self._relay(kept, running.stdout))
        return running.pid

    async def _watch(self, kept: _Kept, pid: int, *, first: bool) -> Death:
        """Wait until it is ready, then until it dies. Not ready in time counts as a death (the first time: an end)."""
        over = asyncio.create_task(self._wait(kept, pid))
        asking = asyncio.create_task(self._ask_until_ready(kept, pid))
        try:
            await asyncio.wait({over, asking}, return_when=asyncio.FIRST_COMPLETED, timeout=kept.child.ready_within)
            if asking.done():
                asking.result()
                self._now_ready(kept, first=first)
            elif not over.done() and not kept.stopping:
                if first:
                    self._fail(self._refusal(kept, f"was not ready within {kept.child.ready_within:.0f} s"))
                process.send(pid, kept.child.kill_signal)
            code = await asyncio.shield(over)
        finally:
            asking.cancel()
        kept.pid = kept.running = None
        death = Death(name=kept.child.name, pid=pid, code=code)
        if self._died is not None:
            self._spin(self._tell(self._died, death))
        return death

    async def _ask_until_ready(self, kept: _Kept, pid: int) -> None:
        while True:  # the answer is elsewhere (a port, a row, a file): there is nothing to be woken by
            if await kept.child.ready(pid):
                return
            await asyncio.sleep(READY_POLL)

    def _now_ready(self, kept: _Kept, *, first: bool) -> None:
        kept.ready.set()
        if not first and self._changed is not None and not kept.stopping:
            self._changed(self.pids)

    async def _wait(self, kept: _Kept, pid: int) -> int | None:
        if kept.running is not None:
            return await kept.running.wait()
        await self._away(pid)
        return None

    async def _away(self, pid: int) -> None:
        """An adopted process is somebody else's child: all one can do is look."""
        while True:
            if not process.alive(pid):
                return
            await asyncio.sleep(READY_POLL)

    async def _after(self, kept: _Kept, death: Death) -> bool:
        """What follows a death that nobody asked for: True after the wait before the restart."""
        now = asyncio.get_running_loop().time()
        kept.deaths.append(now)
        recent = sum(1 for at in kept.deaths if now - at <= DEATHS_WITHIN)
        if recent >= DEATHS:
            refusal = self._refusal(kept, f"{death.how}, {DEATHS} times in {DEATHS_WITHIN:.0f} s")
            refusal.exit_code = death.exit_code
            self._fail(refusal)
            return False
        pause = min(BACKOFF_FIRST * 2 ** (recent - 1), BACKOFF_LONGEST)
        self._say("surefoot", f"{death.name} (pid {death.pid}) {death.how}; starting it again in {pause:.1f} s")
        await asyncio.sleep(pause)
        return True

    # --- endings ---

    async def _end(self, kept: _Kept, grace: float | None) -> None:
        kept.stopping = True
        task = kept.task
        if task is None or task.done():
            return
        if kept.pid is None:  # being launched, or waiting to be started again
            task.cancel()
            await asyncio.wait({task})
        while (pid := kept.pid) is not None:
            if not self._hurry.is_set():
                process.send(pid, kept.child.stop_signal)
                if await self._ended_within(kept, pid, kept.child.grace if grace is None else grace):
                    break
            await self._kill(kept, pid)
        await asyncio.wait({task}, timeout=KILL_SECONDS)  # it tells the death and sees that it may end
        task.cancel()

    async def _kill(self, kept: _Kept, pid: int) -> None:
        if self._before_kill is not None:
            try:
                async with asyncio.timeout(TELL_SECONDS):
                    await self._before_kill(kept.child.name, pid)
            except Exception as error:
                self._say("surefoot", f"could not look at {kept.child.name} before ending it: {error!r}")
        for how in (kept.child.kill_signal, signal.SIGKILL):
            process.send(pid, how)
            if await self._ended_within(kept, pid, KILL_SECONDS, hurry=False):
                return
        raise RuntimeError(f"{kept.child.name} (pid {pid}) does not end, not even by SIGKILL")

    async def _ended_within(self, kept: _Kept, pid: int, seconds: float, *, hurry: bool = True) -> bool:
        """Wait for the end of that process, cut short when somebody is in a hurry. True if it has ended."""
        over = asyncio.create_task(self._gone(kept, pid))
        hurried = asyncio.create_task(self._hurry.wait() if hurry else asyncio.Event().wait())
        try:
            await asyncio.wait({over, hurried}, return_when=asyncio.FIRST_COMPLETED, timeout=seconds)
            return over.done()
        finally:
            over.cancel()
            hurried.cancel()

    async def _gone(self, kept: _Kept, pid: int) -> None:
        if kept.running is not None:
            await kept.running.wait()
        else:
            await self._away(pid)
        kept.pid = None

    def _fail(self, refusal: CannotStart) -> None:
        if not self._failed.done():
            self._failed.set_result(refusal)

    def _refusal(self, kept: _Kept, what: str) -> CannotStart:
        said = "\n".join(f"  {line}" for line in kept.lines)
        return CannotStart(
            f"{kept.child.name} {what}." + (f" It said:\n{said}" if said else ""), fix=kept.child.on_trouble
        )

    # --- output and telling ---

    async def _relay(self, kept: _Kept, stream: asyncio.StreamReader) -> None:
        rest = b""
        while chunk := await stream.read(65_536):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._line(kept, line)
        if rest:
            self._line(kept, rest)

    def _line(self, kept: _Kept, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip("\r")
        kept.lines.append(text)
        self._say(kept.child.name, text)

    async def _tell(self, died: Callable[[Death], Awaitable[None]], death: Death) -> None:
        try:
            await died(death)
        except Exception as error:
            # A hint that makes recovery faster: without it the lease ends by time.
            self._say("surefoot", f"the death of {death.name} (pid {death.pid}) could not be recorded: {error}")

    def _spin(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _all_ready(stage: Sequence[_Kept]) -> None:
    for kept in stage:
        await kept.ready.wait()


async def _first_of(*several: asyncio.Future[Any]) -> None:
    await asyncio.wait(several, return_when=asyncio.FIRST_COMPLETED)


def print_line(name: str, line: str) -> None:
    """`worker.1 | …` to stderr. A reader that has gone away (a closed pipe) must not take the service down."""
    with contextlib.suppress(BrokenPipeError):
        os.write(sys.stderr.fileno(), f"{name:<9}│ {line}\n".encode(errors="replace"))
