"""The catalogue of events: every name, what it says, and the fields of its `data`.

Events are written in the transition's own transaction and numbered per workflow without gaps. Names are past tense;
`agent.*` names serve every step kind. `docs/events.md` is generated from `CATALOGUE`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class EventType:
    description: str
    fields: Mapping[str, str] = field(default_factory=dict)


CATALOGUE: Mapping[str, EventType] = {
    "workflow.accepted": EventType(
        description="The submission is stored; nothing can lose it any more.",
        fields={"name": "the definition's name", "definition": "digest of the definition"},
    ),
    "workflow.started": EventType(description="The first steps were scheduled."),
    "workflow.waiting": EventType(
        description="No call is due or in flight; a person, a timer or a doubt is waited for.",
        fields={"for": "approval, doubt, held or timer"},
    ),
    "workflow.paused": EventType(
        description="Somebody paused it: what is in flight ends, nothing new is sent until it is resumed.",
        fields={"reason": "as given", "by": "who"},
    ),
    "workflow.resumed": EventType(
        description="What was waited for came, or somebody ended the pause; calls are due again.",
        fields={"by": "who ended the pause, absent if nobody had paused it", "reason": "as given"},
    ),
    "workflow.reopened": EventType(
        description="Somebody retried a workflow that had failed or was cancelled: what had failed goes on.",
        fields={"note": "text", "by": "who"},
    ),
    "workflow.held": EventType(
        description="Everything is settled; before anything is undone, or the workflow ends, an operator decides.",
        fields={"effects": "how many could be undone", "pivot_passed": "true if the pivot is why it is held"},
    ),
    "workflow.compensating": EventType(
        description="What was done is being undone, in reverse order of dependency.",
        fields={"effects": "how many are to be undone"},
    ),
    "workflow.needs_attention": EventType(
        description="Something needs a person.",
        fields={
            "attention": "what: approval_pending, outcome_unknown, failure_held, compensation_failed, poisoned, "
            "contradicted, budget_80, budget_exceeded, credential_refused, spend_limited",
            "tool": "the tool",
        },
    ),
    "workflow.budget.nearly_spent": EventType(
        description="Four fifths of a budget's limit are spent; told once for each scope.",
        fields={"scope": "workflow, or step: and its id", "measure": "microusd, tokens, turns, tool_calls or duration"},
    ),
    "workflow.budget.exceeded": EventType(
        description="A budget did not allow a call: it fails unsent, or is held until somebody tops the budget up.",
        fields={
            "scope": "workflow, or step: and its id",
            "measure": "microusd, tokens, turns, tool_calls, duration, or price (of the model, which is not known)",
            "message": "what was used up",
            "on_exceeded": "fail or pause",
        },
    ),
    "workflow.budget.changed": EventType(
        description="Somebody topped a budget up; calls that were held for it go on.",
        fields={
            "scope": "workflow, or step: and its id",
            "added": "measure to amount",
            "by": "who",
            "note": "as given",
        },
    ),
    "workflow.budget.overrun": EventType(
        description="An attempt took more than its worst case: the budget was overspent by that much.",
        fields={"scope": "workflow, or step: and its id", "usd": "overspent dollars", "tokens": "overspent tokens"},
    ),
    "workflow.failing": EventType(
        description="A step failed: nothing new is started, what is in flight is settled.",
        fields={"failure": "kind, message, step, call, fix"},
    ),
    "workflow.cancelling": EventType(
        description="Cancel was asked for: nothing new is started, what is in flight is settled.",
        fields={"reason": "as given", "by": "who"},
    ),
    "workflow.succeeded": EventType(description="Every step ended and the output was built."),
    "workflow.failed": EventType(
        description="The workflow ended without its output.", fields={"failure": "kind, message, step, call, fix"}
    ),
    "workflow.cancelled": EventType(
        description="The workflow ended because somebody cancelled it.", fields={"reason": "as given"}
    ),
    "agent.step.started": EventType(
        description="A step began.", fields={"step": "path", "context_size": "bytes of its frozen input"}
    ),
    "agent.model.called": EventType(
        description="A model attempt ended, well or not.",
        fields={
            "step": "path",
            "model": "which model answered",
            "input_tokens": "tokens",
            "output_tokens": "tokens",
            "latency_ms": "milliseconds",
            "cost": "dollars, decimal text, null if unknown",
            "attempt": "number",
            "purpose": "useful, retry or crash",
            "outcome": "succeeded, failed, not_sent, unknown",
        },
    ),
    "agent.tools.listed": EventType(
        description="An MCP server has told what tools it has; the list is pinned for this workflow.",
        fields={
            "server": "name",
            "tools": "the tools by their names here",
            "left_out": "what of its list cannot be used: tool, reason",
            "plan": "digest of the plan that has them",
        },
    ),
    "agent.tool.executed": EventType(
        description="A tool attempt ended, well or not.",
        fields={
            "step": "path",
            "tool": "name",
            "success": "true or false",
            "latency_ms": "milliseconds",
            "effect": "effect class",
            "outcome": "succeeded, failed, not_sent, unknown",
            "attempt": "number",
        },
    ),
    "agent.worker.lost": EventType(
        description="The worker of an attempt is gone; what it did is decided by the effect class.",
        fields={"worker": "which", "attempt": "number"},
    ),
    "agent.context.compacted": EventType(
        description="The conversation had grown too long: it goes on as a new one that begins with a summary of it.",
        fields={
            "from": "number of the old conversation",
            "to": "number of the new one",
            "tokens_before": "of the old one, about",
            "tokens_after": "of the new one, about",
        },
    ),
    "agent.tool.disabled": EventType(
        description="A tool kept failing an agent and was taken away; the model is asked for an alternative.",
        fields={
            "tool": "name",
            "scope": "workflow: from every agent of it; step: from this one",
            "failures": "how many in a row",
            "kind": "failure kind of the last one",
            "reason": "its message",
        },
    ),
    "agent.step.retried": EventType(
        description="Something failed and is tried again, perhaps with a changed request.",
        fields={
            "kind": "failure kind",
            "rule": "which rule",
            "change": "what changed, null if the same bytes",
            "delay_ms": "milliseconds",
        },
    ),
    "agent.step.succeeded": EventType(description="A step ended well.", fields={"duration_ms": "milliseconds"}),
    "agent.step.failed": EventType(description="A step failed.", fields={"failure": "kind, message, fix"}),
    "agent.step.skipped": EventType(description="A step was not needed.", fields={"because": "if or a skipped need"}),
    "agent.step.cancelled": EventType(
        description="A step that had begun was ended by a failure elsewhere or a cancel."
    ),
    "agent.step.operated": EventType(
        description="An operator decided a step by hand.",
        fields={"action": "skip, complete, fail or retry-now", "by": "who", "note": "text"},
    ),
    "approval.requested": EventType(
        description="A person is asked.",
        fields={"approval": "id", "kind": "step, tool, repeat, drift", "title": "text"},
    ),
    "approval.decided": EventType(
        description="A person answered.", fields={"approval": "id", "decision": "approve, edit or reject", "by": "who"}
    ),
    "approval.edited": EventType(
        description="Who approved it changed the arguments: another call was made for the new bytes.",
        fields={
            "approval": "id",
            "sha256": "of the tool's declaration and the new arguments",
            "diff": "the arguments that changed, line by line",
        },
    ),
    "approval.expired": EventType(description="Nobody answered in time.", fields={"approval": "id"}),
    "effect.in_doubt": EventType(
        description="Nobody knows whether a call took effect; it is not repeated and not guessed.",
        fields={
            "tool": "name",
            "not_before": "until then a request that left may still take effect",
            "reason": "what happened",
        },
    ),
    "effect.probed": EventType(
        description="The tool was asked whether a call took effect.",
        fields={
            "verdict": "found, absent or unclear",
            "tool": "whose call is in question",
            "probes": "how many times it was asked",
            "next_at": "when it is asked again, null if the answer settles it",
        },
    ),
    "effect.accepted": EventType(
        description="The tool accepted the call (202) and has not done it yet; its result is waited for.",
        fields={"tool": "name", "until": "how long"},
    ),
    "effect.attached": EventType(
        description="Another call owns the same business key: this one waits for its end and takes its result.",
        fields={"owner": "the call that owns the key", "key": "the key"},
    ),
    "effect.resolved": EventType(
        description="A doubt was settled.",
        fields={"outcome": "happened, did_not_happen, abandon", "by": "a person or evidence", "note": "text"},
    ),
    "effect.repeated": EventType(
        description="An agent asked again for an effect it already has; held, or answered from the record.",
        fields={"tool": "name", "earlier": "call id", "on_repeat": "ask or return_recorded"},
    ),
    "effect.contradicted": EventType(
        description="Evidence that arrived late contradicts what was settled.",
        fields={"settled": "as what", "evidence": "what arrived"},
    ),
    "effect.call.changed": EventType(
        description="A call was held, released, cancelled or made due by somebody or something other than an attempt.",
        fields={"reason": "why"},
    ),
    "compensation.started": EventType(
        description="The call that undoes an effect was made.",
        fields={"effect": "the call that is undone", "tool": "the tool that undoes it"},
    ),
    "compensation.succeeded": EventType(
        description="An effect was undone.",
        fields={"effect": "the call that was undone", "tool": "the tool that undid it"},
    ),
    "compensation.failed": EventType(
        description="An effect could not be undone; it stays on the work-list until somebody settles it.",
        fields={
            "effect": "the call that is still done",
            "tool": "the tool that should have undone it",
            "reason": "why it did not",
        },
    ),
    "compensation.settled": EventType(
        description="Somebody settled an undo that had failed.",
        fields={
            "effect": "the call that was to be undone",
            "action": "retry, done or skip",
            "by": "who",
            "note": "text",
        },
    ),
}
