"""Calls that no worker has been able to make so far, because what they need is not installed where it runs.

    among    of calls and their attempts those that are so now
    told     a sentence about them, with what to do

A Python tool's package, or the program of an MCP server, is missing: nobody's failure, so it uses up no retries and no
recovery tells of it, and the call is due again and again, for a worker that has it, until the deadline. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from app.domain import function_certainty, mcp_certainty
from app.domain.amounts import clock, counted
from app.domain.outcomes import JSON
from app.domain.plain import clipped
from app.domain.states import AttemptOutcome, CallState

Row = Mapping[str, Any]

SEEN: Final = frozenset(
    {
        function_certainty.Seen.NOT_INSTALLED.value,
        function_certainty.Seen.NOT_LOADED.value,
        mcp_certainty.Seen.NOT_INSTALLED.value,
    }
)
"""`detail.seen` of the failure of such an attempt."""

_LIMIT: Final = 300
"""Characters of what a worker said, inside a headline."""


def among(calls: Sequence[Row], attempts: Mapping[UUID, Sequence[Row]]) -> Row | None:
    """`failure` and `due_at` of the call that is tried next, and how many `calls` there are. Calls have `due_at`."""
    found = []
    for call in calls:
        last = next((one for one in attempts.get(call["id"], ()) if one["id"] == call["attempt_id"]), None)
        if call["state"] == CallState.DUE and call.get("due_at") and last is not None and is_one(last):
            found.append({"failure": last["failure"], "due_at": call["due_at"]})
    return {**min(found, key=lambda row: row["due_at"]), "calls": len(found)} if found else None


def is_one(attempt: Row) -> bool:
    """Whether this attempt, the last of its call, could not be made because something is not installed."""
    failure = attempt["failure"] or {}
    seen = (failure.get("detail") or {}).get("seen")
    return attempt["outcome"] == AttemptOutcome.NOT_SENT and seen in SEEN


def told(row: Row | None) -> list[str]:
    """`email.send was not called: worker.2 has no distribution `acme-tools`; install it … (the next try is at …).`"""
    if row is None:
        return []
    more = f"{counted(row['calls'], 'call')} wait like this, " if row["calls"] > 1 else ""
    return [f"{in_words(row['failure'])} ({more}the next try is at {clock(row['due_at'])})."]


def in_words(failure: Mapping[str, JSON]) -> str:
    """What is missing where, and what to do; without its full stop."""
    fix = str(failure.get("fix") or "").rstrip(".")
    what = clipped(failure["message"], _LIMIT).rstrip(".")
    return f"{what}; {fix[0].lower()}{fix[1:]}" if fix else what
