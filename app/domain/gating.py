"""The gate: a tool that says `approve` sends nothing without a person's word about exactly these bytes.

An approval is bound to the SHA-256 of the tool's declaration and the canonical arguments, is used once, and expires
by the database's clock. The gate is here, in the engine, and never in a prompt: a model that does whatever it reads
cannot pass it. What was approved is compared twice with what is there: when the call is released, and when it is sent.

`tainted`: what a step works with comes from a tool whose output is not trusted. It spreads with the data: from a
tool's result to the conversation that reads it, from a step's output to the steps that refer to it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from typing import Final

from app.domain import asking, canonical
from app.domain.aggregate import Call, StepRow
from app.domain.outcomes import JSON
from app.domain.plan import Step, Tool
from app.domain.states import ApprovalKind, CallKind, HeldReason
from app.domain.transition import Draft

TAINTED: Final = "tainted"


def gated(draft: Draft, row: StepRow, tool: Tool) -> bool:
    return tool.approve == "always" or (tool.approve == "when_tainted" and is_tainted(row))


def is_tainted(row: StepRow) -> bool:
    return bool(row.counters.get(TAINTED))


def taint(draft: Draft, row: StepRow) -> None:
    """This row works with, or gave, what is not trusted; for an item its parent's output does, too."""
    for each in (row, *((draft.step(row.parent),) if row.parent is not None else ())):
        if not is_tainted(each):
            each.counters = {**each.counters, TAINTED: 1}
            draft.touch(each)


def clean(draft: Draft, row: StepRow) -> None:
    """What this row gives is a person's word, whatever it was asked about. (Of an item: its parent's stays tainted,
    which gives the other items' output, too.)"""
    if is_tainted(row):
        row.counters = {name: n for name, n in row.counters.items() if name != TAINTED}
        draft.touch(row)


def inherit(draft: Draft, row: StepRow, step: Step) -> None:
    """A step that refers to something tainted is tainted."""
    if any(is_tainted(draft.snapshot.steps[name]) for name in step.reads if name in draft.snapshot.steps):
        taint(draft, row)


def binding(tool: Tool, arguments: JSON) -> str:
    """What an approval is bound to: SHA-256 over the tool's digest and the canonical arguments."""
    return hashlib.sha256(b"\x1f".join((tool.digest.encode(), canonical.canonical_json(arguments)))).hexdigest()


def hold(draft: Draft, row: StepRow, tool: Tool, call: Call) -> None:
    """Hold the call and ask. A call that is held already (paused) is asked about all the same."""
    if call.held_reason != HeldReason.APPROVAL:
        draft.hold_new(call, HeldReason.APPROVAL)
    asking.request_approval(
        draft,
        row,
        kind=ApprovalKind.TOOL,
        title=f"May {tool.name} be called with these arguments?",
        show={"tool": tool.name, "arguments": call.request["arguments"], "tainted": is_tainted(row)},
        # An undo is what was recorded when the effect was done: it is made or not made, never made up.
        allow=["approve", "reject"] if call.kind == CallKind.COMPENSATION else ["approve", "edit", "reject"],
        expires=tool.approval_expires,
        call_id=call.id,
        arguments_sha256=binding(tool, call.request["arguments"]),
        approver=tool.approver,
    )


def matches(tool: Tool, arguments: JSON, sha256: str | None) -> bool:
    """Whether a person's word is about exactly these bytes."""
    return sha256 == binding(tool, arguments)


def may_be_sent(tool: Tool, arguments: JSON, *, asked: bool, approved: Collection[str]) -> bool:
    """Looked at once more before the first byte: `approved` are the hashes people have approved for this call, `asked`
    says whether anybody was asked. A word once given is not given for a request that has changed since."""
    if not asked and tool.approve != "always":
        return True  # nothing was tainted when it was made
    return any(matches(tool, arguments, sha256) for sha256 in approved)


def difference(before: Mapping[str, JSON], after: Mapping[str, JSON]) -> list[str]:
    """What a person changed, in short: one line for each argument that is not as it was."""
    lines = []
    for name in sorted({*before, *after}):
        if name in before and before.get(name) != after.get(name, _ABSENT):
            lines.append(f"- /{name}: {_short(before[name])}")
        if name in after and after.get(name) != before.get(name, _ABSENT):
            lines.append(f"+ /{name}: {_short(after[name])}")
    return lines


_ABSENT: Final = object()
_SHORT: Final = 500
"""Letters of a value in a difference: it is read by people, the whole is in the call's request."""


def _short(value: JSON) -> str:
    text = canonical.canonical_json(value).decode()
    return text if len(text) <= _SHORT else f"{text[:_SHORT]}… ({len(text)} characters)"
