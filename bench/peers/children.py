"""A peer's processes: started in the peer's environment, talked to by lines, all of them ended at the end.

Each is the leader of its own session, so that what it started goes with it; the kernel ends it if the bench dies.
What it writes to stderr is kept in a log, whose end is shown when it fails.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from app.embedded import process
from app.embedded.process import Command
from bench.peers.environments import CannotRun

STOP_WITHIN: Final = 8.0
"""Seconds from the end of its orders to SIGTERM, and again to SIGKILL: nothing is open by then."""

_LAST_WORDS: Final = 1500
"""Characters of a log that are shown when its process has failed."""


class Child:
    """Any process of a peer: a server, a worker, a client."""

    def __init__(self, *, name: str, argv: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        command = Command(argv=tuple(argv), env=environment)
        with process.open_log(log) as stderr:
            self._child = subprocess.Popen(
                command.argv,
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
                preexec_fn=process.at_birth(command),
            )
        self.pid = self._child.pid
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def alive(self) -> bool:
        return self._child.poll() is None

    def tell(self, order: Mapping[str, Any]) -> None:
        if self._child.stdin is None:
            raise RuntimeError("a child without stdin")
        try:
            self._child.stdin.write(json.dumps(order).encode() + b"\n")
            self._child.stdin.flush()
        except BrokenPipeError as error:
            raise CannotRun(self.last_words("ended")) from error

    def hear(self, *, seconds: float) -> dict[str, Any]:
        """Its next answer; lines that are none (a banner) are passed over."""
        while True:
            try:
                line = self._lines.get(timeout=seconds)
            except queue.Empty:
                raise CannotRun(self.last_words(f"gave no answer within {seconds:.0f} s")) from None
            if line is None:
                raise CannotRun(self.last_words("ended"))
            if not line.startswith(b"{"):
                continue
            told: dict[str, Any] = json.loads(line)
            if "error" in told:
                raise CannotRun(self.last_words(f"failed: {told['error']}"))
            return told

    def ask(self, order: Mapping[str, Any], *, seconds: float) -> dict[str, Any]:
        self.tell(order)
        return self.hear(seconds=seconds)

    def last_words(self, what: str) -> str:
        said = self.log.read_text(errors="replace")[-_LAST_WORDS:].strip()
        return f"{self.name} {what}" + (f"\n{said}" if said else "")

    def stop(self) -> None:
        """End of orders, then SIGTERM, then SIGKILL; at the end whatever is left of its session."""
        for how in (None, signal.SIGTERM, signal.SIGKILL):
            if how is not None:
                process.send(self.pid, how)
            elif self._child.stdin is not None and not self._child.stdin.closed:
                self._close_orders()
            if process.wait_for_end(self.pid, seconds=STOP_WITHIN, child=self._child):
                break
        _end_session(self.pid)
        self._reader.join(timeout=STOP_WITHIN)
        if self._child.stdout is not None:
            self._child.stdout.close()

    def _close_orders(self) -> None:
        if self._child.stdin is None:
            return
        try:
            self._child.stdin.close()
        except BrokenPipeError:
            return  # it is gone: what was still to be written has nobody to read it

    def _read(self) -> None:
        if self._child.stdout is not None:
            for line in self._child.stdout:
                self._lines.put(line)
        self._lines.put(None)


def _end_session(leader: int) -> bool:
    """SIGKILL to what its leader has left behind; False if that is nobody."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
