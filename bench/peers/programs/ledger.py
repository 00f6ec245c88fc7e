"""What the steps of a peer's workflows write down: one counter per process, shared with the bench through a file.

Every step of every peer is this one function, so "a step" means the same everywhere: it was executed. The bench reads
the sum from outside, which costs the peer nothing; under a constant load what was executed in a window is what became
durable in it, up to the workflows that were open at its ends. After the run the sum must be exactly ten per workflow:
fewer is a loss, more is a step executed twice. The standard library only: it runs in every peer's environment.

    <directory>/<pid>.steps    eight bytes, little-endian, written by that process alone
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
from collections.abc import Callable
from pathlib import Path

_WIDTH = struct.Struct("<Q")
SUFFIX = ".steps"


class Ledger:
    """The counter of this process; made anew after a fork, so that a child never counts in its parent's."""

    def __init__(self, directory: str) -> None:
        self._directory = Path(directory)
        self._lock = threading.Lock()
        self._pid = 0
        self._steps = 0
        self._map: mmap.mmap | None = None
        os.register_at_fork(after_in_child=self._forget)

    def step(self, number: int) -> int:
        """The no-op step: counts itself, gives the next number."""
        with self._lock:
            if self._map is None:
                self._map = self._open()
            self._steps += 1
            _WIDTH.pack_into(self._map, 0, self._steps)
        return number + 1

    def _open(self) -> mmap.mmap:
        path = self._directory / f"{os.getpid()}{SUFFIX}"
        path.write_bytes(bytes(_WIDTH.size))
        with path.open("r+b") as file:
            return mmap.mmap(file.fileno(), _WIDTH.size)

    def _forget(self) -> None:
        self._lock, self._map, self._steps = threading.Lock(), None, 0


def total(directory: Path) -> int:
    """Steps executed so far by all processes, those that have ended included."""
    return sum(_read(path.read_bytes) for path in directory.glob(f"*{SUFFIX}"))


def _read(read: Callable[[], bytes]) -> int:
    content = read()
    # A file is empty for an instant between its creation and its first eight bytes.
    return int(_WIDTH.unpack(content)[0]) if len(content) == _WIDTH.size else 0
