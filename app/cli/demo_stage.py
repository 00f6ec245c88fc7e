"""The demo's stage: a `surefoot up --ephemeral` of its own as a child process, and the demo tools' books.

The child writes its ready file when everything runs and gets SIGTERM at the end; if this process dies, the kernel
tells it. Its output goes to a log, shown only if it does not come up. Processes are killed by pid, and only pids that
the ready file of this child names.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from app.cli import printing
from app.cli.exits import Stop
from app.domain.outcomes import JSON
from app.domain.plain import plain
from app.embedded.process import Command, spawn

START_WITHIN: Final = 60.0
"""Seconds until everything must be ready; a cold machine unpacks Postgres first."""
STOP_WITHIN: Final = 45.0
"""Seconds for a stop: calls in flight are waited for."""
LAST_LINES: Final = 15
LOOK: Final = 0.1
"""Seconds between two looks at a condition."""
TELL: Final = 3.0
"""Seconds of silence after which a line says what is waited for."""

Ready = Mapping[str, Any]


class Stage:
    """A running Surefoot, from `with` to its end."""

    def __init__(self, *, port: int, folder: Path, environment: Mapping[str, str]) -> None:
        self._ready_file = folder / "ready.json"
        self._log = folder / "up.log"
        arguments = ("up", "--ephemeral", "--port", str(port), "--ready-file", str(self._ready_file))
        self._command = Command(
            argv=(sys.executable, "-m", "app.cli.main", *arguments),
            env={**environment, "PYTHONUNBUFFERED": "1"},
            cwd=Path(__file__).parents[2],
            log=self._log,
            orphan_signal=signal.SIGTERM,
        )
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._child = spawn(self._command)
        try:
            until("everything is started", self._is_ready, within=START_WITHIN)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.stop()

    @property
    def ready(self) -> Ready:
        """The ready file as it is now: pids change when a child was restarted."""
        found: Ready = json.loads(self._ready_file.read_text())
        return found

    @property
    def scripted(self) -> bool:
        """True if the model is the scripted one, so that what it answers is known."""
        return self.ready["pids"].get("model") is not None

    def alive(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def kill_worker(self, pid: int) -> str:
        """SIGKILL to a worker process of this stage; its name. Refuses any pid that the ready file does not name."""
        named: Mapping[str, int | None] = self.ready["pids"]
        names = [name for name, its in named.items() if its == pid and name.startswith("worker.")]
        if not names:
            raise Stop(f"Process {pid} is not a worker of this demo, so it is not killed.")
        os.kill(pid, signal.SIGKILL)
        return names[0]

    def stop(self) -> None:
        if self._child is None or self._child.poll() is not None:
            return
        self._child.send_signal(signal.SIGTERM)
        try:
            self._child.wait(STOP_WITHIN)
        except subprocess.TimeoutExpired:
            printing.note("stopping takes too long; ending it at once")
            self._child.kill()
            self._child.wait()

    def _is_ready(self) -> bool:
        if not self.alive():
            for line in self._log.read_text(errors="replace").splitlines()[-LAST_LINES:]:
                printing.note(f"  up │ {plain(line)}")
            raise Stop("`surefoot up` ended before it was ready.", fix="Its last lines are above.")
        return self._ready_file.exists()


class Books:
    """The demo tools' own books: what was really done, whatever Surefoot says."""

    def __init__(self, url: str) -> None:
        import httpx

        self._http = httpx.Client(base_url=url, timeout=10.0, trust_env=False)

    def ledger(self) -> list[dict[str, JSON]]:
        return self._data("/ledger")

    def calendar(self) -> list[dict[str, JSON]]:
        return self._data("/calendar/events")

    def held(self) -> list[dict[str, JSON]]:
        return self._data("/held")

    def hold_answer(self, tool: str) -> None:
        """The next request to that tool is carried out, and its answer is kept back."""
        self._http.post("/behave", json={"tool": tool, "do": "hold", "when": "after"}).raise_for_status()

    def drop_answers(self) -> None:
        """Those answers never arrive."""
        self._http.post("/release", json={"drop": True}).raise_for_status()

    def close(self) -> None:
        self._http.close()

    def _data(self, path: str) -> list[dict[str, JSON]]:
        answer = self._http.get(path)
        answer.raise_for_status()
        found: list[dict[str, JSON]] = answer.json()["data"]
        return found


def until(what: str, condition: Callable[[], bool], *, within: float) -> None:
    """Wait for it, saying every few seconds what is waited for. Raises `Stop` when the time is over."""
    began = told = time.monotonic()
    while not condition():
        now = time.monotonic()
        if now - began > within:
            raise Stop(f"Waited {within:.0f} s in vain until {what}.")
        if now - told > TELL:
            printing.note(f"  … waiting until {what} ({now - began:.0f} s)")
            told = now
        time.sleep(LOOK)


def free_port(wanted: int) -> int:
    """The port if nobody listens there, else 0: `up` then takes a free one."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return 0
    return wanted
