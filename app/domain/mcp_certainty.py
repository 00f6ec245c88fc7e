"""From what was seen of an MCP call to what one attempt came to: `judge(seen, …)`, the certainty table of MCP tools.

The counterpart of `certainty_table.py` and `function_certainty.py`, with the same three answers. What stands before
`tools/call` is written (starting the server, connecting, the handshake, comparing the tool with what was frozen) is not
sent, by the worker's own testimony. The protocol has no key and no sessions: from the first byte of `tools/call` on an
attempt without a readable answer is unknown. `is_error` is the tool's own word that it failed; of the errors of
JSON-RPC those count as "not executed" that say the request was not taken on.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

from app.domain.certainty import Verdict
from app.domain.outcomes import JSON, Failure
from app.domain.states import AttemptOutcome, FailureKind

NOT_TAKEN_ON: Final = frozenset({-32700, -32600, -32601, -32602, -32020, -32021, -32022})
"""Error codes of a server that did not begin: it could not parse the request, does not know the method, the tool or its
arguments (JSON-RPC 2.0 §5.1), or refused header or protocol version (MCP 2026-07-28)."""


class Seen(StrEnum):
    """What a worker saw of one attempt. The first group happens before `tools/call` is written, the second after."""

    FENCED = "fenced"
    COMMAND_FORBIDDEN = "command_forbidden"
    NOT_INSTALLED = "not_installed"
    FORBIDDEN = "forbidden"
    UNRENDERABLE = "unrenderable"
    UNREACHED = "unreached"
    NO_HANDSHAKE = "no_handshake"
    DEADLINE_UNSENT = "deadline_unsent"
    TOO_MANY = "too_many"

    ANSWERED = "answered"
    IS_ERROR = "is_error"
    REFUSED = "refused"
    ERROR = "error"
    ASKS_BACK = "asks_back"
    LOST = "lost"
    DEADLINE = "deadline"


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    outcome: AttemptOutcome
    kind: FailureKind | None
    """None exactly for success."""
    message: str = ""
    """`{tool}` and `{detail}` are filled in."""
    fix: str | None = None
    permanent: bool = False
    """Asking again would be answered the same."""


def _unsent(kind: FailureKind, message: str, fix: str | None = None) -> Row:
    return Row(outcome=AttemptOutcome.NOT_SENT, kind=kind, message=message, fix=fix)


def _unknown(kind: FailureKind, message: str) -> Row:
    fix = "Look at the tool's own records whether it took effect."
    return Row(outcome=AttemptOutcome.UNKNOWN, kind=kind, message=message, fix=fix)


_START: Final = "Start the server by hand where workers run, with the same command, and look at what it says."

TABLE: Final[dict[Seen, Row]] = {
    # --- before `tools/call` is written -----------------------------------------------------------------------------
    Seen.FENCED: _unsent(
        FailureKind.WORKER_LOST, "The worker was no longer sure of its lease, so {tool} was not called."
    ),
    Seen.COMMAND_FORBIDDEN: _unsent(
        FailureKind.OUTBOUND_FORBIDDEN,
        "{tool} was not called: {detail}.",
        "Let the operator name the program in SUREFOOT_MCP_COMMANDS, where workers run.",
    ),
    Seen.NOT_INSTALLED: _unsent(
        FailureKind.WORKER_LOST,
        "{tool} was not called: {detail}.",
        "Install the program where workers run, or correct `mcp.command`.",
    ),
    Seen.FORBIDDEN: _unsent(
        FailureKind.OUTBOUND_FORBIDDEN,
        "{tool} was not called: {detail}.",
        "Use a public address, or let the operator add the host to SUREFOOT_OUTBOUND_ALLOW.",
    ),
    Seen.UNRENDERABLE: _unsent(
        FailureKind.INVALID_REQUEST,
        "{tool} was not called: {detail}.",
        "Correct the server's url, headers or env, or set the secret in SUREFOOT_SECRETS.",
    ),
    Seen.UNREACHED: _unsent(
        FailureKind.NETWORK, "{tool} was not called: its MCP server was not reached ({detail}).", _START
    ),
    Seen.NO_HANDSHAKE: _unsent(
        FailureKind.SERVER_ERROR, "{tool} was not called: its MCP server did not get that far ({detail}).", _START
    ),
    Seen.DEADLINE_UNSENT: _unsent(
        FailureKind.TIMEOUT,
        "{tool} was not called: its MCP server was not ready in time ({detail}).",
        f"{_START} If it is only slow, raise the tool's timeout.",
    ),
    Seen.TOO_MANY: _unsent(
        FailureKind.INVALID_REQUEST,
        "{tool} was not asked to the end: {detail}.",
        "A server that lists without end is broken; tell its author.",
    ),
    # --- after ------------------------------------------------------------------------------------------------------
    Seen.ANSWERED: Row(outcome=AttemptOutcome.SUCCEEDED, kind=None),
    Seen.IS_ERROR: Row(
        outcome=AttemptOutcome.FAILED,
        kind=FailureKind.TOOL_ERROR,
        message="{tool} failed: {detail}.",
        fix="Read what the tool says and correct the arguments.",
    ),
    Seen.REFUSED: Row(
        outcome=AttemptOutcome.FAILED,
        kind=FailureKind.TOOL_ERROR,
        message="The MCP server did not take {tool} on: {detail}.",
        fix="Read what the server says and correct the arguments.",
        permanent=True,
    ),
    Seen.ASKS_BACK: Row(
        outcome=AttemptOutcome.FAILED,
        kind=FailureKind.TOOL_ERROR,
        message="{tool} asks its caller for something more, and nobody is there to answer it ({detail}).",
        fix="Give it what it asks for among its arguments, or use another tool.",
        permanent=True,
    ),
    Seen.ERROR: _unknown(
        FailureKind.SERVER_ERROR,
        "The MCP server answered {tool} with an error ({detail}); whether it acted is not known.",
    ),
    Seen.LOST: _unknown(
        FailureKind.NETWORK, "The MCP server was called, and {tool} gave no readable answer ({detail})."
    ),
    Seen.DEADLINE: _unknown(FailureKind.TIMEOUT, "{tool} was called and did not answer in time ({detail})."),
}


def judge(seen: Seen, *, tool: str, detail: str = "", retry_after: timedelta | None = None) -> Verdict:
    """What one attempt came to. `detail` is a fragment for the message, without secrets."""
    row = TABLE[seen]
    if row.kind is None:
        return Verdict(outcome=row.outcome, failure=None)
    marks: dict[str, JSON] = {"permanent": True} if row.permanent else {}
    failure = Failure(
        kind=row.kind,
        message=row.message.format(tool=tool, detail=detail.rstrip(". ") or "no more is known"),
        fix=row.fix,
        retry_after=retry_after,
        detail={"seen": seen.value, **marks},
    )
    return Verdict(outcome=row.outcome, failure=failure)
