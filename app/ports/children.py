"""Child processes that a call starts: the leader of a group of its own, its stderr logged up to a limit, killed whole.

For MCP servers (`mcp_stdio.py`) and isolated functions (`isolated_tools.py`). Nothing a call has started outlives it.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

import anyio
import structlog

from app.domain.bodies import storable_text
from app.ports.secrets import Secrets

log = structlog.get_logger(__name__)

LOGGED: Final = 16 * 1024
"""Bytes of stderr that are logged for one call."""
CHUNK: Final = 64 * 1024
_REAPED: Final = 5.0
"""Seconds. One that stands in the kernel (a dead network file system) is left to it."""


_GUARD: Final = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9, 0, 0, 0); "
    "os.getppid() == int(sys.argv[1]) or os._exit(1); os.execvp(sys.argv[2], sys.argv[2:])"
)
"""prctl(2): PR_SET_PDEATHSIG with SIGKILL outlasts execve(2). Set by a process in between, because code between fork
and exec may hang a process that has threads."""


class Unstartable(Exception):
    """The program is not there, or may not be run. The message is a fragment."""


async def start(argv: Sequence[str], *, environment: Mapping[str, str]) -> asyncio.subprocess.Process:
    """Raises `Unstartable`. A session of its own: signals to the worker's group pass it by."""
    try:
        return await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(environment),
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        why = os.strerror(error.errno).lower() if isinstance(error, OSError) and error.errno else "it cannot be run"
        raise Unstartable(f"{storable_text(argv[0], limit=100)}: {why}") from error


def dying_with_us(command: Sequence[str]) -> Sequence[str]:
    """A command that the kernel ends together with this process, where it can; dearer by an interpreter's bare start.
    Raises `Unstartable` for a program that is not there."""
    if shutil.which(command[0]) is None:
        raise Unstartable(f"{storable_text(command[0], limit=100)}: {os.strerror(errno.ENOENT).lower()}")
    if sys.platform != "linux":
        return command
    return (sys.executable, "-I", "-S", "-c", _GUARD, str(os.getpid()), *command)


def kill(process: asyncio.subprocess.Process) -> None:
    """The whole group, at once. What is gone already is fine."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        log.debug("child.gone", pid=process.pid)
    transport: Any = getattr(process, "_transport", None)
    if transport is not None:  # nothing else closes the pipes if a process outside the group holds their other ends
        transport.close()


async def put_down(process: asyncio.subprocess.Process) -> None:
    """Kill it, and wait until it is gone: which takes the moment that the kernel needs."""
    kill(process)
    with anyio.CancelScope(shield=True), anyio.move_on_after(_REAPED):
        await process.wait()


def ended(returncode: int | None) -> str:
    """How it ended, as a fragment."""
    if returncode is None:
        return "it closed its pipe"
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        return f"killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"killed by signal {-returncode}"


async def log_stderr(process: asyncio.subprocess.Process, *, of: str, secrets: Secrets) -> None:
    """Read to its end, so that a child never waits for a full pipe; the beginning is logged, secrets masked."""
    stderr = process.stderr
    if stderr is None:
        raise RuntimeError("the child has no stderr")
    left = LOGGED
    while chunk := await stderr.read(CHUNK):
        if left > 0:
            text = storable_text(secrets.mask_text(chunk[:left].decode(errors="replace")), limit=left)
            log.info("child.said", of=of, text=text.rstrip())
            left -= len(chunk)
