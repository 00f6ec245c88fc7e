"""The demo tools' ledger: every request they received, in order, in a file that survives `kill -9`.

One JSON object a line. `append` returns when the line is on disk (fsync), several lines in one: what a tool says it
did, it still knows after a crash. A line that was cut by a crash is removed when the file is opened: nobody was told
of it. Without a file the ledger lives in memory.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

Entry = dict[str, Any]


class Ledger:
    def __init__(self, path: Path | None) -> None:
        self.entries: list[Entry] = []
        self._file: int | None = None
        self._waiting: list[asyncio.Future[None]] = []
        self._unwritten: list[bytes] = []
        self._flushing: asyncio.Task[None] | None = None
        if path is not None:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            self._read()

    def note(self, entry: Entry) -> None:
        """Writes an entry without waiting for the disk: for requests that changed nothing."""
        self.entries.append(entry)
        if self._file is not None:
            self._unwritten.append(json.dumps(entry, separators=(",", ":")).encode() + b"\n")
            if self._flushing is None:
                self._flushing = asyncio.get_running_loop().create_task(self._flush())

    async def append(self, entry: Entry) -> None:
        """Writes an entry and returns when it is on disk."""
        self.note(entry)
        if self._file is not None:
            written = asyncio.get_running_loop().create_future()
            self._waiting.append(written)
            await written

    def clear(self) -> None:
        self.entries.clear()
        if self._file is not None:
            os.ftruncate(self._file, 0)

    def _read(self) -> None:
        assert self._file is not None
        whole = os.pread(self._file, os.fstat(self._file).st_size, 0)
        complete = whole[: whole.rfind(b"\n") + 1]
        os.ftruncate(self._file, len(complete))
        self.entries.extend(json.loads(line) for line in complete.splitlines())

    async def _flush(self) -> None:
        while self._unwritten:
            lines, self._unwritten = b"".join(self._unwritten), []
            waiting, self._waiting = self._waiting, []
            await asyncio.to_thread(self._write, lines)
            for written in waiting:
                if not written.done():
                    written.set_result(None)
        self._flushing = None

    def _write(self, lines: bytes) -> None:
        assert self._file is not None
        os.write(self._file, lines)
        os.fsync(self._file)
