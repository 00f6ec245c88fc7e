"""What authors of Python tools import: `from surefoot import NotExecuted, ToolContext, ToolFailed`.

A tool is a function that an installed distribution declares as an entry point in the group `surefoot.tools`
(docs/tools.md). It gets the call's arguments by name and returns JSON. What it raises says what is certain:

    NotExecuted    it did nothing: the call may be made again, whatever its effect class
    ToolFailed     it did nothing, and would do nothing if it were asked again: the call has failed
    anything else  nobody knows how far it came: the tool's effect class decides, as after a lost HTTP answer

Depends on the standard library only, so that a package of tools can be tested without a Surefoot around it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

__all__ = ["ENTRY_POINTS", "NotExecuted", "ToolContext", "ToolFailed"]

ENTRY_POINTS: Final = "surefoot.tools"
"""The entry point group in which a distribution declares its tools."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolContext:
    """Which call this is. Given to a function that has a parameter named `context`."""

    workflow_id: str
    call_id: str
    attempt: int
    """From 1. Every attempt of a call has the same arguments and the same key."""
    key: str | None
    """The idempotency key of a `keyed` tool's call, for the system behind the function; None for other classes."""
    deadline: float
    """`time.monotonic()` by which the attempt ends: a result that comes later is not waited for."""
    traceparent: str | None = None
    """W3C Trace Context, if the workflow was submitted with one."""

    @property
    def seconds_left(self) -> float:
        """Until the deadline, never negative: a timeout for what the function itself waits for."""
        return max(0.0, self.deadline - time.monotonic())


class NotExecuted(Exception):
    """Nothing was done. Raise it only where that is certain: it lets the call be made again, at_most_once included.

    With `retry_after` (seconds) the call is made again then, as often as it takes, until the workflow's deadline;
    without it a few times with growing pauses. The message is shown to people: no secrets.
    """

    retry_after: float | None = None

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ToolFailed(Exception):
    """A definite no: nothing was done, and asking again would not help. The message is shown to people and, if an
    agent asked, to its model: say what would have to be different, and no secrets."""
