"""From what became of a function to what one attempt came to: `judge(seen, …)`, the certainty table of Python tools.

The counterpart of `app/domain/certainty_table.py` for a tool that runs inside a worker, with the same three answers.
What stands before the call of the function is not sent, by the worker's own testimony; a function that returned has
executed; one that raised may have acted before it did, unless it says in so many words that it did not; one that has
not returned by its deadline may still act. What is done about unknown is decided by the effect class elsewhere.

A worker that cannot call the function at all (it is not installed there) is nobody's failure: the call is due again
after a pause, for a worker that can, and uses up none of its retries.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

from app.domain.certainty import Verdict
from app.domain.outcomes import JSON, Failure
from app.domain.states import AttemptOutcome, FailureKind


class Seen(StrEnum):
    """What a worker saw of one attempt. The first group happens before the function is called, the second after."""

    FENCED = "fenced"
    NOT_INSTALLED = "not_installed"
    NOT_LOADED = "not_loaded"
    LOADING = "loading"
    NO_THREAD = "no_thread"
    NO_PROCESS = "no_process"
    ARGUMENTS_UNFIT = "arguments_unfit"
    KEY_LOST = "key_lost"

    RETURNED = "returned"
    NOT_EXECUTED = "not_executed"
    COME_BACK = "come_back"
    """Not executed, and it says when to ask again."""
    FAILED = "failed"
    RAISED = "raised"
    DEADLINE = "deadline"
    DIED = "died"
    """The process that it had for itself ended before it returned."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    outcome: AttemptOutcome
    kind: FailureKind | None
    """None exactly for success."""
    message: str = ""
    """`{tool}` and `{detail}` are filled in."""
    fix: str | None = None
    not_executed: bool = False
    """By its own word nothing was done: the same call, key included, may be made again, whatever the class."""
    permanent: bool = False
    """By its own word asking again would be answered the same."""


def _not_called(kind: FailureKind, message: str, fix: str | None = None) -> Row:
    return Row(outcome=AttemptOutcome.NOT_SENT, kind=kind, message=message, fix=fix)


_LOOK: Final = "Look at the tool's own records whether it took effect."

TABLE: Final[dict[Seen, Row]] = {
    # --- before the function is called ------------------------------------------------------------------------------
    Seen.FENCED: _not_called(
        FailureKind.WORKER_LOST, "The worker was no longer sure of its lease, so {tool} was not called."
    ),
    Seen.NOT_INSTALLED: _not_called(
        FailureKind.WORKER_LOST,
        "{tool} was not called: {detail}.",
        "Install it where workers run (surefoot tool installed shows what is there) and restart them, or correct "
        "`python` of the tool.",
    ),
    Seen.NOT_LOADED: _not_called(
        FailureKind.WORKER_LOST,
        "{tool} was not called: {detail}.",
        "surefoot tool installed, where workers run, shows the whole error; mend the package and restart them.",
    ),
    Seen.LOADING: _not_called(
        FailureKind.WORKER_LOST,
        "{tool} was not called: {detail}.",
        "Nothing, if the next attempt is made; else raise the tool's timeout or make its import quicker.",
    ),
    Seen.NO_THREAD: _not_called(
        FailureKind.WORKER_LOST,
        "{tool} was not called: {detail}.",
        "Give what the functions wait for a timeout (context.seconds_left), and restart that worker.",
    ),
    Seen.NO_PROCESS: _not_called(
        FailureKind.WORKER_LOST,
        "{tool} was not called: {detail}.",
        "Nothing, if the next attempt is made; else raise SUREFOOT_ISOLATED_PROCESSES, or start more workers.",
    ),
    Seen.ARGUMENTS_UNFIT: _not_called(
        FailureKind.INVALID_REQUEST,
        "{tool} was not called: {detail}.",
        "Let the tool's input_schema and the function's parameters agree.",
    ),
    Seen.KEY_LOST: _not_called(
        FailureKind.INVALID_REQUEST,
        "{tool} was not called: {detail}.",
        "Give the function a parameter `context` and use context.key, or declare key_argument.",
    ),
    # --- after ------------------------------------------------------------------------------------------------------
    Seen.RETURNED: Row(outcome=AttemptOutcome.SUCCEEDED, kind=None),
    Seen.NOT_EXECUTED: Row(
        outcome=AttemptOutcome.FAILED,
        kind=FailureKind.SERVER_ERROR,
        message="{tool} did not act: {detail}.",
        fix="Read what the function says.",
        not_executed=True,
    ),
    Seen.COME_BACK: Row(
        outcome=AttemptOutcome.FAILED,
        kind=FailureKind.RATE_LIMITED,
        message="{tool} did not act and asked to come back later: {detail}.",
        not_executed=True,
    ),
    Seen.FAILED: Row(
        outcome=AttemptOutcome.FAILED,
        kind=FailureKind.TOOL_ERROR,
        message="{tool} failed: {detail}.",
        fix="Read what the function says and correct the arguments.",
        permanent=True,
    ),
    Seen.RAISED: Row(
        outcome=AttemptOutcome.UNKNOWN,
        kind=FailureKind.SERVER_ERROR,
        message="{tool} raised {detail}; whether it acted is not known.",
        fix=f"{_LOOK} Where nothing was done, let it raise surefoot.NotExecuted or ToolFailed.",
    ),
    Seen.DEADLINE: Row(
        outcome=AttemptOutcome.UNKNOWN,
        kind=FailureKind.TIMEOUT,
        message="{tool} was called and did not return in time ({detail}).",
        fix=f"{_LOOK} If it is only slow, raise its timeout.",
    ),
    Seen.DIED: Row(
        outcome=AttemptOutcome.UNKNOWN,
        kind=FailureKind.SERVER_ERROR,
        message="The process of {tool} ended before it returned ({detail}); whether it acted is not known.",
        fix=f"{_LOOK} The worker's log has what it wrote to stderr.",
    ),
}

NOT_CALLED: Final = frozenset(seen for seen, row in TABLE.items() if row.outcome is AttemptOutcome.NOT_SENT)


def judge(seen: Seen, *, tool: str, detail: str = "", retry_after: timedelta | None = None) -> Verdict:
    """What one attempt came to. `detail` is a fragment for the message, free of secrets and payloads."""
    row = TABLE[seen]
    if row.kind is None:
        return Verdict(outcome=row.outcome, failure=None)
    marks: dict[str, JSON] = {"not_executed": row.not_executed, "permanent": row.permanent}
    failure = Failure(
        kind=row.kind,
        message=row.message.format(tool=tool, detail=detail.rstrip(". ") or "no more is known"),
        fix=row.fix,
        retry_after=retry_after,
        detail={"seen": seen.value, **{name: mark for name, mark in marks.items() if mark}},
    )
    return Verdict(outcome=row.outcome, failure=failure)
