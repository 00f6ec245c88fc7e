"""Why a process of ours does not start, in words for the person at the terminal: what was found, what to do, exit code.

`CannotStart` is raised by everything in this room and turned into two lines and an exit code by `app/cli/processes.py`.
It never reaches an HTTP client; those errors are in `app/errors.py`.
"""

from __future__ import annotations

from typing import Final

EXIT_USAGE: Final = 1
"""Something the person can change: a port, a directory, a version (experience.md, exit codes)."""

EXIT_UNREACHABLE: Final = 5
"""A server that was named in the settings does not answer."""


class CannotStart(Exception):
    def __init__(self, what: str, *, fix: str, exit_code: int = EXIT_USAGE) -> None:
        super().__init__(what)
        self.what = what
        """One sentence: what was found and what was wanted."""
        self.fix = fix
        """One sentence with the command or setting that helps."""
        self.exit_code = exit_code
