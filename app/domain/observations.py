"""The words of certainty: what an adapter saw, and what the tool's owner knows about such an answer.

`Observation` is what a port says of one exchange, `Declaration` what a definition says of a tool. What the two come to
is in `app/domain/certainty_table.py`.
"""

from __future__ import annotations

from enum import StrEnum

from app.domain.plan import Tool


class Observation(StrEnum):
    """What an adapter saw. The first group happens before the first byte of the request leaves, the second after."""

    FENCED = "fenced"
    FORBIDDEN = "forbidden"
    SECRET_MISSING = "secret_missing"
    EXPRESSION_FAILED = "expression_failed"
    REQUEST_INVALID = "request_invalid"
    DNS_FAILED = "dns_failed"
    CONNECT_FAILED = "connect_failed"
    TLS_FAILED = "tls_failed"
    POOL_TIMEOUT = "pool_timeout"
    DEADLINE_UNSENT = "deadline_unsent"
    DEFECT_UNSENT = "defect_unsent"

    ANSWERED = "answered"
    """A status line and whole headers arrived, and the body to its end or to our cap."""
    ANSWER_CUT = "answer_cut"
    """A status line and whole headers arrived, but the body broke off."""
    WRITE_ERROR = "write_error"
    READ_ERROR = "read_error"
    PROTOCOL_ERROR = "protocol_error"
    DEADLINE = "deadline"
    DEFECT = "defect"


class Declaration(StrEnum):
    """Knowledge that only the tool's owner has; without it the table says what the RFCs say."""

    SERVER_ERROR_NOT_EXECUTED = "on_5xx: not_executed"
    REDIRECT_NOT_EXECUTED = "on_3xx: not_executed"
    TIMEOUT_NOT_EXECUTED = "on_408: not_executed"
    ACCEPTED_IS_PENDING = "on_202: wait"


def declarations(tool: Tool) -> frozenset[Declaration]:
    said = {f"on_5xx: {tool.on_5xx}", f"on_3xx: {tool.on_3xx}", f"on_408: {tool.on_408}", f"on_202: {tool.on_202}"}
    return frozenset(one for one in Declaration if one.value in said)
