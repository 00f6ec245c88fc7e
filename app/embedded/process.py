"""Processes as the operating system sees them: how one is started, whether it lives, how one waits for its end.

A `Command` is everything a start needs, as a value, so that the same process can be started by a test (`spawn`), by
the supervisor (which spawns on its event loop) or by hand with the same environment. A child is told by the kernel
when its parent dies (Linux, `PR_SET_PDEATHSIG`); it has its own session, so a Ctrl-C at the terminal reaches the
parent only, and the parent decides about the order. A zombie counts as dead: where process 1 does not reap, a dead
process keeps its pid for ever.

The kernel sends the death signal when the *thread* that spawned ends: spawn from a thread that lives as long as the
process (the main thread).
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

_PR_SET_PDEATHSIG: Final = 1
_POLL: Final = 0.02
"""Seconds between two looks at a process that cannot be waited for (not our child)."""

_HAS_PROC: Final = Path("/proc/self/stat").exists()
"""macOS has none; there `ps` is asked."""

_prctl: Any = ctypes.CDLL(None, use_errno=True).prctl if sys.platform == "linux" else None
"""Looked up before any fork: between fork and exec nothing may be loaded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    argv: tuple[str, ...]
    env: Mapping[str, str]
    """The whole environment of the child; nothing is inherited silently."""
    cwd: Path | None = None
    uid: int | None = None
    """Drop to this user (and `gid`, and no further groups) after the fork; only root can."""
    gid: int | None = None
    log: Path | None = None
    """Append stdout and stderr to this file; None: pipes, read by who spawned."""
    orphan_signal: signal.Signals | None = signal.SIGTERM
    """What the kernel sends the child when its parent dies; None: it outlives the parent."""
    pass_fds: tuple[int, ...] = ()
    """Open files the child inherits under the same numbers (a listening socket that outlives restarts of its user)."""


def at_birth(command: Command) -> Callable[[], None] | None:
    """What runs in the child between fork and exec: ask the kernel for a signal at the parent's death."""
    wanted = command.orphan_signal
    if wanted is None or _prctl is None:
        return None
    parent = os.getpid()

    def ask() -> None:
        _prctl(_PR_SET_PDEATHSIG, int(wanted), 0, 0, 0)
        if os.getppid() != parent:  # it died between fork and prctl: nobody is going to tell us
            os._exit(1)

    return ask


def spawn(command: Command, *, stdout: int | IO[bytes] = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    """Start it and return; its output goes to `command.log`, else to `stdout`."""
    log = open_log(command.log) if command.log is not None else None
    try:
        return subprocess.Popen(
            command.argv,
            env=dict(command.env),
            cwd=command.cwd,
            user=command.uid,
            group=command.gid,
            extra_groups=[] if command.uid is not None else None,
            stdin=subprocess.DEVNULL,
            stdout=log if log is not None else stdout,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=command.pass_fds,
            preexec_fn=at_birth(command),
        )
    finally:
        if log is not None:
            log.close()


LOG_LIMIT: Final = 16 * 1024 * 1024
"""A server's log begins again at the next start once it is this long, bytes; one older file is kept."""


def open_log(path: Path) -> IO[bytes]:
    """The log file for appending, readable by its owner only; a long one is moved to `<name>.1` first."""
    if path.exists() and path.stat().st_size > LOG_LIMIT:
        path.replace(path.with_name(path.name + ".1"))
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab", buffering=0)


def alive(pid: int) -> bool:
    """True while the process runs. A zombie is dead, whoever has forgotten to reap it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # somebody else's, but there
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return _HAS_PROC  # gone since the question; elsewhere nobody can say
    return stat.rpartition(b")")[2].split()[0] == b"Z"


def argv_of(pid: int) -> list[str]:
    """The command line of any process, empty if it is gone or not ours to read."""
    try:
        return [part.decode(errors="replace") for part in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")]
    except OSError:
        if _HAS_PROC:
            return []
    listed = subprocess.run(["ps", "-p", str(pid), "-o", "command="], capture_output=True, text=True, check=False)
    return listed.stdout.split()


def send(pid: int, what: signal.Signals) -> bool:
    """Send a signal; False if there is nobody any more."""
    try:
        os.kill(pid, what)
    except ProcessLookupError:
        return False
    return True


def wait_for_end(pid: int, *, seconds: float, child: subprocess.Popen[bytes] | None = None) -> bool:
    """Wait until the process has ended; True if it has. A child of ours is reaped."""
    if child is not None and child.pid == pid:
        try:
            child.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return False
        return True
    until = time.monotonic() + seconds
    while alive(pid):
        if time.monotonic() >= until:
            return False
        time.sleep(_POLL)
    return True
