"""The parts of `surefoot up`: each process as a `Child`, with the command a person could type to start it by hand.

Postgres and Valkey come from `postgres.py` and `valkey.py`; the scripted model and the demo tools choose a port and
tell it through a file; the API inherits a socket that the supervisor has opened. A part that is started again gets
the port it had, because others were told about it.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.embedded import listening
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.process import Command
from app.embedded.supervisor import Child
from app.embedded.valkey import EmbeddedValkey
from app.embedded.worker_group import WORKER

API: Final = (sys.executable, "-m", "app.cli.serve_api")
MODEL: Final = (sys.executable, "-m", "app.embedded.model")
TOOLS: Final = (sys.executable, "-m", "app.embedded.tools")

LOOPBACK: Final = "127.0.0.1"
OUTBOUND_DEFAULT: Final = "127.0.0.0/8,::1,localhost"
"""What `surefoot up` allows unless SUREFOOT_OUTBOUND_ALLOW is set: a developer's own tools and receivers."""

MCP_DEFAULT: Final = "*"
"""What `surefoot up` allows unless SUREFOOT_MCP_COMMANDS is set: who writes definitions there runs programs anyway."""

_LOG_ABOVE: Final = "Its log lines above say why."


@dataclass(frozen=True, kw_only=True, slots=True)
class Commands:
    """What the Python children are started with; another program that speaks the same arguments may stand in."""

    api: Sequence[str] = API
    worker: Sequence[str] = WORKER
    model: Sequence[str] = MODEL
    tools: Sequence[str] = TOOLS


def postgres(server: EmbeddedPostgres) -> Child:
    async def launch() -> Command | int:
        survivor = await asyncio.to_thread(server.prepare)
        return server.command if survivor is None else survivor

    async def ready(_: int) -> bool:
        return await asyncio.to_thread(lambda: server.ready)

    return Child(
        name="postgres",
        launch=launch,
        ready=ready,
        stop_signal=server.STOP,
        kill_signal=server.STOP_IMMEDIATE,
        grace=30.0,
        on_trouble=f"See {server.log}.",
    )


def valkey(server: EmbeddedValkey) -> Child:
    async def launch() -> Command | int:
        survivor = await asyncio.to_thread(server.prepare)
        return server.command if survivor is None else survivor

    async def ready(_: int) -> bool:
        return await asyncio.to_thread(lambda: server.ready)

    return Child(name="redis", launch=launch, ready=ready, on_trouble=f"See {server.log}.")


class PortPart:
    """A child that listens on a loopback port of its choice and says which (`--port-file`)."""

    def __init__(self, *, name: str, argv: Sequence[str], environment: Mapping[str, str], run: Path) -> None:
        self._name = name
        self._argv = tuple(argv)
        self._environment = environment
        self._file = run / f"{name}.port"
        self._port: int | None = None

    @property
    def url(self) -> str:
        """Known once it was ready."""
        return f"http://{LOOPBACK}:{self._port}"

    @property
    def child(self) -> Child:
        return Child(name=self._name, launch=self._launch, ready=self._ready, on_trouble=_LOG_ABOVE)

    async def _launch(self) -> Command:
        self._file.unlink(missing_ok=True)
        port = ("--port", str(self._port or 0), "--port-file", str(self._file))
        return Command(argv=(*self._argv, *port), env=self._environment)

    async def _ready(self, _: int) -> bool:
        port = listening.read_port(self._file)
        if port is None or not await listening.accepts(LOOPBACK, port):
            return False
        self._port = port
        return True


def api(*, argv: Sequence[str], environment: Mapping[str, str], listener: socket.socket) -> Child:
    """It inherits the listening socket; ready when `/readyz` says 200."""
    host, port = listener.getsockname()[:2]
    reachable = {"0.0.0.0": LOOPBACK, "::": "::1"}.get(host, host)
    command = Command(argv=(*argv, "--fd", str(listener.fileno())), env=environment, pass_fds=(listener.fileno(),))

    async def launch() -> Command:
        return command

    async def ready(_: int) -> bool:
        return await listening.status_of(reachable, port, "/readyz") == 200

    return Child(name="api", launch=launch, ready=ready, on_trouble=_LOG_ABOVE)
