"""What a tool's stored answer gives the step or the model that asked for it.

Of an HTTP tool its body, or what its `output` makes of status and body; of an MCP tool its structured content or its
text; of a Python tool what it returned. Made from the evidence alone, in the decision: so an answer that was stored
without its decision gives the same. An `output` that does not fit the answer takes nothing away: the tool has done it,
so the call succeeded, and its output is opaque with the reason.
"""

from __future__ import annotations

from typing import Final

from app.domain import bodies, evidence, mcp_replies
from app.domain.aggregate import Call
from app.domain.expressions import ExpressionError
from app.domain.outcomes import JSON, Outcome
from app.domain.transition import Draft

_REASON: Final = 300


def result_of(draft: Draft, call: Call, outcome: Outcome) -> JSON:
    """What the stored bytes mean to the plan."""
    value = evidence.result_of(call, outcome)
    tool = None if call.tool is None else draft.plan.tools.get(call.tool)
    if tool is None or outcome.evidence is None:
        return value
    if tool.mcp is not None:
        return mcp_replies.output_of(value)
    # Without a status it is no HTTP answer: a result that the tool reported later stands for itself.
    if tool.http is None or tool.http.output is None or outcome.status_code is None or _opaque(value):
        return value
    try:
        return tool.http.output.render({"status": outcome.status_code, "body": value})
    except ExpressionError as error:
        stored = outcome.evidence
        reason = f"the tool's `output` does not fit it: {error.message}"[:_REASON]
        return bodies.opaque(stored.body, stored.media_type, reason=reason)


def _opaque(value: JSON) -> bool:
    return isinstance(value, dict) and value.get("opaque") is True and "sha256" in value
