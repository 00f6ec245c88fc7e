"""What each failure kind is called in a sentence: two phrases per kind, and the words for what was done about it; why a
call is held, and what a probe said.

`HAPPENED` is a clause that can begin a sentence (`{who}` is the tool, or "the model"; `{nth}` is "first " or empty),
`IN_SHORT` fits into a list ("2 × rate limited"). Both hold every member of `FailureKind` (a test compares). Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from app.domain.states import FailureKind, HeldReason

K = FailureKind

HAPPENED: Mapping[FailureKind, str] = MappingProxyType(
    {
        K.RATE_LIMITED: "{who} asked us to slow down",
        K.SPEND_LIMITED: "The spending limit at {who} was reached",
        K.OVERLOADED: "{who} was overloaded",
        K.SERVER_ERROR: "{who} answered with a server error",
        K.TIMEOUT: "{who} did not answer in time",
        K.NETWORK: "The connection to {who} broke",
        K.CONTEXT_TOO_LONG: "The conversation outgrew the model's window",
        K.OUTPUT_TRUNCATED: "The model's {nth}answer was cut off at its token limit",
        K.MALFORMED_OUTPUT: "The model's {nth}answer was not valid JSON",
        K.WRONG_SHAPE: "The model's {nth}answer did not fit the schema",
        K.TOOL_ARGUMENTS_INVALID: "The arguments for {who} did not fit its schema",
        K.TOOL_UNKNOWN: "The model asked for a tool it was not offered",
        K.TOOL_ERROR: "{who} reported an error",
        K.TOOL_BROKEN: "{who} kept failing and was taken away",
        K.REFUSED: "The model declined",
        K.PAUSED_TURN: "The model paused its turn",
        K.NO_PROGRESS: "The agent went in circles",
        K.AUTH: "{who} did not accept the credential",
        K.MODEL_NOT_FOUND: "The model does not exist for this credential",
        K.INVALID_REQUEST: "{who} did not accept the request",
        K.BUDGET_EXCEEDED: "The budget did not allow the call",
        K.UNKNOWN_OUTCOME: "Nobody could tell whether {who} had done it",
        K.WORKER_LOST: "The worker was lost while it was calling {who}",
        K.EXPRESSION_ERROR: "An expression of the definition failed",
        K.DEADLINE_EXCEEDED: "The workflow's deadline passed",
        K.STEP_TIMEOUT: "The step took longer than its timeout",
        K.APPROVAL_REJECTED: "A person said no",
        K.APPROVAL_EXPIRED: "Nobody decided in time",
        K.SIGNAL_TIMEOUT: "The signal did not come in time",
        K.CHILD_FAILED: "The child workflow failed",
        K.ITEM_FAILURES_EXCEEDED: "More items failed than are tolerated",
        K.KEY_CONFLICT: "The key of {who} belongs to a call with other arguments",
        K.PAYLOAD_TOO_LARGE: "A payload was too large",
        K.OUTBOUND_FORBIDDEN: "The address of {who} is inside a private network",
        K.CANCELLED: "It was cancelled",
        K.INTERNAL: "Something broke on our side",
    }
)

IN_SHORT: Mapping[FailureKind, str] = MappingProxyType(
    {
        K.RATE_LIMITED: "rate limited",
        K.SPEND_LIMITED: "spending limit reached",
        K.OVERLOADED: "overloaded",
        K.SERVER_ERROR: "server error",
        K.TIMEOUT: "timed out",
        K.NETWORK: "connection broken",
        K.CONTEXT_TOO_LONG: "context too long",
        K.OUTPUT_TRUNCATED: "answer cut off",
        K.MALFORMED_OUTPUT: "answer not valid JSON",
        K.WRONG_SHAPE: "answer of the wrong shape",
        K.TOOL_ARGUMENTS_INVALID: "arguments not valid",
        K.TOOL_UNKNOWN: "unknown tool asked for",
        K.TOOL_ERROR: "tool error",
        K.TOOL_BROKEN: "tool taken away",
        K.REFUSED: "declined",
        K.PAUSED_TURN: "turn paused",
        K.NO_PROGRESS: "no progress",
        K.AUTH: "credential not accepted",
        K.MODEL_NOT_FOUND: "model not found",
        K.INVALID_REQUEST: "request not accepted",
        K.BUDGET_EXCEEDED: "over budget",
        K.UNKNOWN_OUTCOME: "outcome unknown",
        K.WORKER_LOST: "worker lost",
        K.EXPRESSION_ERROR: "expression failed",
        K.DEADLINE_EXCEEDED: "past the deadline",
        K.STEP_TIMEOUT: "step timed out",
        K.APPROVAL_REJECTED: "rejected",
        K.APPROVAL_EXPIRED: "approval expired",
        K.SIGNAL_TIMEOUT: "signal missing",
        K.CHILD_FAILED: "child failed",
        K.ITEM_FAILURES_EXCEEDED: "too many items failed",
        K.KEY_CONFLICT: "key conflict",
        K.PAYLOAD_TOO_LARGE: "payload too large",
        K.OUTBOUND_FORBIDDEN: "address not allowed",
        K.CANCELLED: "cancelled",
        K.INTERNAL: "internal error",
    }
)

CHANGES: Mapping[str, str] = MappingProxyType(
    {
        "format_reminder": "asked again with format instructions",
        "summary": "asked again with a summary of the conversation",
        "summarise": "asked again with a summary of the conversation",
        "more_tokens": "asked again with more room for the answer",
        "switch_model": "asked another model",
        "disable_tool": "asked for an alternative",
        "continue": "asked to continue exactly there",
        "double_max_tokens": "asked again with twice the room for the answer",
        "append": "asked to go on",
        "note": "told what it repeats",
        "final": "asked for its final answer",
        "tell_model": "the model was told",
    }
)
"""A recovery record's `change` → what was done. Any other change is named as it is."""

HELD: Mapping[HeldReason, str] = MappingProxyType(
    {
        HeldReason.APPROVAL: "a person is asked first",
        HeldReason.PAUSE: "the workflow is paused",
        HeldReason.BUDGET: "its budget has no room for it",
        HeldReason.QUOTA: "the quota is used up",
        HeldReason.BREAKER: "what it calls keeps failing, so it is left in peace",
        HeldReason.CONCURRENCY: "as many as are allowed at once are under way",
        HeldReason.POISONED: "it lost several workers in a row",
        HeldReason.REPEAT: "the same was done before, a person is asked first",
        HeldReason.DRIFT: "the tool changed, a person is asked first",
        HeldReason.OPERATOR: "an operator switched it off",
        HeldReason.ATTACHED: "another call with the same key is under way",
    }
)
"""Why a call is held, as the end of a sentence."""

VERDICTS: Mapping[str, str] = MappingProxyType({"found": "it is there", "absent": "not there", "unclear": "unclear"})
"""What a probe said."""

LATE: Final = "late evidence"
"""Who settled a doubt: an answer that came after all."""
REPORTED: Final = "its report"
"""Who settled it: the tool itself, with the result it promised (202)."""

_ORDINALS = ("first ", "second ", "third ", "fourth ", "fifth ")


def happened(kind: str, *, who: str, nth: int | None = None) -> str:
    """A clause with a capital letter and without its full stop: "The model's first answer was not valid JSON"."""
    try:
        template = HAPPENED[FailureKind(kind)]
    except ValueError:
        return f"{who}: {kind}"
    words = "" if nth is None else _ORDINALS[nth - 1] if nth <= len(_ORDINALS) else f"{nth}th "
    sentence = template.format(who=who, nth=words)
    return sentence[0].upper() + sentence[1:] if template.startswith("{who}") and who == "the model" else sentence


def in_short(kind: str) -> str:
    try:
        return IN_SHORT[FailureKind(kind)]
    except ValueError:
        return kind
