"""N worker processes under one supervisor: `surefoot worker --processes N`, and the workers of `surefoot up`.

A worker is `python -m worker.main --name worker.N`; it counts as ready when its row in `workers` has a running lease.
When one dies, its parent has proof, and writes it at once (`store.workers.reaped`): what it had in flight is recovered
within two seconds instead of at the end of its lease. Stopping waits for what is on the wire: the longest open send
deadline plus five seconds; what is killed all the same is named, because its outcome may be unknown.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg

from app.domain import ids
from app.domain.states import EffectClass
from app.embedded.process import Command
from app.embedded.refusal import EXIT_UNREACHABLE, CannotStart
from app.embedded.supervisor import Child, Death, Supervisor
from app.store import in_flight, workers

WORKER: Final = (sys.executable, "-m", "worker.main")
"""Started as a module by name: this package never imports `worker`."""

DRAIN_MARGIN: Final = 5.0
"""Seconds after the last send deadline for recording what came of it."""

_ASK_AGAIN: Final = 0.1
"""Seconds between two looks for a worker's row; each is a connection to Postgres."""

_CONNECT_SECONDS: Final = 3
DATABASE_PATIENCE: Final = 30.0
"""Seconds to wait for a database that is named in the settings: it may be starting as we are."""

_DOUBTFUL: Final = frozenset({EffectClass.CHECKABLE, EffectClass.AT_MOST_ONCE})
"""Classes that are not simply sent again after their worker died."""


class WorkerGroup:
    """The children, and what is asked of the database about them."""

    def __init__(
        self,
        *,
        count: int,
        database_url: str,
        environment: Mapping[str, str],
        argv: Sequence[str] = WORKER,
        cwd: Path | None = None,
    ) -> None:
        self._url = database_url
        self._machine = workers.this_machine()
        self._environment = environment
        self._argv = tuple(argv)
        self._cwd = cwd
        self.names = tuple(f"worker.{number}" for number in range(1, count + 1))

    @property
    def children(self) -> tuple[Child, ...]:
        return tuple(self._child(name) for name in self.names)

    async def died(self, death: Death) -> None:
        """Write the proof of death. Raises what psycopg raises; then the lease has to run out."""
        if death.name in self.names:
            await asyncio.to_thread(self._write_proof, death.pid)

    async def drain_seconds(self, pids: Mapping[str, int]) -> float:
        """How long these workers may need to end well: until what they have sent cannot be answered any more."""
        try:
            sends = await self._open_sends(pids)
        except psycopg.Error:
            return DRAIN_MARGIN  # a worker without its database cannot record anything either
        return max([0.0, *(send.seconds for send in sends)]) + DRAIN_MARGIN

    async def before_kill(self, name: str, pid: int, *, say: Callable[[str, str], None]) -> None:
        """Say which effects are in flight in a worker that is about to be killed."""
        if name in self.names:
            for line in await self.doubtful({name: pid}):
                say("surefoot", f"killing {name}; its outcome may stay unknown: {line}")

    async def doubtful(self, pids: Mapping[str, int]) -> list[str]:
        """One line for each effect in flight in these processes that will not simply be sent again."""
        try:
            sends = await self._open_sends(pids)
        except psycopg.Error as error:
            return [f"unknown: the database does not answer ({error})"]
        return [
            f"{ids.encode('call', send.call)}  {send.tool} ({send.effect}), step {send.step} of "
            f"{ids.encode('wf', send.workflow)}"
            for send in sends
            if send.effect in _DOUBTFUL
        ]

    def _child(self, name: str) -> Child:
        command = Command(
            argv=(*self._argv, "--name", name),
            env=self._environment,
            cwd=self._cwd,
            # Without its parent it drains and ends: nobody would prove its death.
            orphan_signal=signal.SIGTERM,
        )

        async def launch() -> Command:
            return command

        return Child(name=name, launch=launch, ready=self._beating, on_trouble="Its log lines above say why.")

    async def _beating(self, pid: int) -> bool:
        try:
            found = await asyncio.to_thread(self._look, pid)
        except psycopg.OperationalError:
            found = False
        if not found:
            await asyncio.sleep(_ASK_AGAIN)
        return found

    async def _open_sends(self, pids: Mapping[str, int]) -> list[in_flight.OpenSend]:
        mine = {pid for name, pid in pids.items() if name in self.names}
        here = self._machine
        found = await asyncio.to_thread(self._read_sends)
        return [send for send in found if (send.host, send.boot_id) == (here.host, here.boot_id) and send.pid in mine]

    def _look(self, pid: int) -> bool:
        with connecting(self._url) as connection:
            return in_flight.beating(connection, machine=self._machine, pid=pid)

    def _read_sends(self) -> list[in_flight.OpenSend]:
        with connecting(self._url) as connection:
            return in_flight.open_sends(connection)

    def _write_proof(self, pid: int) -> None:
        with connecting(self._url) as connection:
            workers.reaped(connection, host=self._machine.host, boot_id=self._machine.boot_id, pid=pid)


@contextmanager
def connecting(url: str) -> Iterator[psycopg.Connection[Any]]:
    """One short connection in autocommit mode."""
    with psycopg.connect(
        url, autocommit=True, connect_timeout=_CONNECT_SECONDS, application_name="surefoot supervisor"
    ) as connection:
        yield connection


async def await_database(url: str, *, say: Callable[[str, str], None], seconds: float = DATABASE_PATIENCE) -> None:
    """Return when it answers; say that we wait; raise `CannotStart` when it does not for that long."""
    loop = asyncio.get_running_loop()
    until, told = loop.time() + seconds, False
    while True:
        try:
            await asyncio.to_thread(_touch, url)
            return
        except psycopg.Error as error:
            reason = _reason(error)
        if loop.time() >= until:
            raise CannotStart(
                f"The database does not answer: {reason}",
                fix="Check SUREFOOT_DATABASE_URL; unset it and `surefoot up` brings its own Postgres.",
                exit_code=EXIT_UNREACHABLE,
            )
        if not told:
            say("surefoot", f"waiting up to {seconds:.0f} s for the database: {reason}")
            told = True
        await asyncio.sleep(0.5)


def _reason(error: psycopg.Error) -> str:
    """libpq's message without the questions it adds on lines of their own."""
    lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith("\t")]
    return " ".join(lines) or type(error).__name__


def _touch(url: str) -> None:
    with connecting(url) as connection:
        connection.execute("SELECT 1")


async def run_workers(
    *, group: WorkerGroup, say: Callable[[str, str], None], stopping: asyncio.Event, supervisor: Supervisor
) -> None:
    """Keep the group alive until `stopping`, then drain it. Raises `CannotStart` if it cannot be kept alive."""
    try:
        if await unless(stopping, supervisor.start(*group.children)):
            say("surefoot", f"{len(group.names)} workers are at work")
            await supervisor.run(stopping)
    finally:
        await drain(group=group, say=say, supervisor=supervisor)
        await supervisor.stop()


async def unless(stopping: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Do the work, or give it up when asked to stop. True if it was done; what it raises is raised."""
    doing, asked = asyncio.create_task(work), asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({doing, asked}, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            await doing
            return True
        return False
    finally:
        asked.cancel()
        doing.cancel()
        await asyncio.wait({doing, asked})


async def drain(*, group: WorkerGroup, say: Callable[[str, str], None], supervisor: Supervisor) -> None:
    """End the workers in peace: as long as something they have sent may still be answered, plus a margin."""
    seconds = await group.drain_seconds(supervisor.pids)
    if seconds > DRAIN_MARGIN:
        say("surefoot", f"waiting up to {seconds:.0f} s for what is on the wire; Ctrl-C again ends it at once")
    await supervisor.stop(only=frozenset(group.names), grace=dict.fromkeys(group.names, seconds))


def on_signals(stopping: asyncio.Event, *, hurry: Callable[[], None]) -> None:
    """First Ctrl-C (or TERM): stop in peace. Second: kill at once. Third: leave, whatever is left."""
    times = 0

    def asked() -> None:
        nonlocal times
        times += 1
        if times == 1:
            stopping.set()
        elif times == 2:
            hurry()
        else:
            os._exit(130)

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, asked)
