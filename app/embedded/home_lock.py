"""One owner for one data directory: a lock the kernel gives back when its holder dies, however it dies.

The file says who holds it, so that a second `surefoot up` can name the first. A file without a holder is just a file.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

from app.embedded.refusal import CannotStart


class HomeLock:
    """Held from construction to `release` (or the process's end). Raises `CannotStart` if somebody else holds it."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise CannotStart(
                f"Surefoot already runs on {path.parent}{_holder(path)}.",
                fix="Use that one, stop it, or start another with --data DIR or --ephemeral.",
            ) from None
        os.ftruncate(self._file, 0)  # what a dead holder wrote

    def tell(self, *, url: str) -> None:
        """Say who we are, for whoever comes second."""
        os.write(self._file, json.dumps({"pid": os.getpid(), "url": url}).encode())

    def release(self) -> None:
        os.ftruncate(self._file, 0)
        os.close(self._file)


def _holder(path: Path) -> str:
    try:
        told = json.loads(path.read_text())
        return f": {told['url']} (pid {told['pid']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""  # it has the lock and has not written yet
