"""How a command ends: the exit codes, and `Stop`, the only exception commands raise on purpose.

0 it went well · 1 usage, or the server said no · 2 the workflow failed or was cancelled · 3 it waits for a person ·
4 the time given with --timeout is over, the workflow goes on · 5 the server cannot be reached.
"""

from __future__ import annotations

from typing import Final

OK: Final = 0
USAGE: Final = 1
FAILED: Final = 2
WAITS: Final = 3
TIMED_OUT: Final = 4
UNREACHABLE: Final = 5


class Stop(Exception):
    """Ends the command: one sentence what is wrong, one what to do, the exit code."""

    def __init__(self, what: str, *, fix: str | None = None, code: int = USAGE) -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix
        self.code = code
