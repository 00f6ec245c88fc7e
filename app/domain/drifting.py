"""A tool of an MCP server is not what it was when its list was frozen: the call is held, and a person is asked.

    drifted(tool, was=…, now=…)    the port's failure: the hash of the new definition, and what is different
    holds(draft, call, failure)    after an attempt that was not sent for that reason: True if the call is held now
    approved(draft, call, …)       the person agreed: the same call under the new definition, pinned for it alone

A description is part of what a model was shown, a schema of what it was asked for: a server that changes them while a
workflow runs may have been updated, or taken over. The word of a person is about one call, these arguments and this new
definition; if the tool changes once more they are asked once more. A rejection is told the model, as an error.

Nothing was sent when it is noticed. A call with an attempt before that may have happened is not asked about: sending
it again to a tool that is another now would be no repeat, so it is in doubt like any that must not be repeated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from app.domain import asking, calling, concluding, gating
from app.domain.aggregate import Approval, Call
from app.domain.outcomes import JSON, Failure
from app.domain.servers import Definition, sha256_of
from app.domain.states import ApprovalKind, CallKind, CallState, FailureKind, HeldReason
from app.domain.transition import Draft

DRIFT: Final = "drift"
"""Key of a failure's `detail`."""
CHANGE: Final = "definition"
"""The `change` of the call that is made under a new definition, and of the record on the one that waits for it."""

_SHOWN: Final = 2_000
"""Letters of one line of a difference: a person reads it before they agree."""
_LINES: Final = 60


def drift(was: Definition, now: Definition | None) -> dict[str, JSON]:
    """`now`: None if the server does not list the tool any more."""
    return {
        "sha256": None if now is None else sha256_of(now),
        "diff": ["- the tool"] if now is None else difference(was, now),
    }


def difference(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What changed, one line for each place, as `/input_schema/properties/path: …`."""
    before, after = dict(_places(dict(was))), dict(_places(dict(now)))
    lines = []
    for place in sorted({*before, *after}):
        if before.get(place) != after.get(place):
            lines += [f"- {place}: {before[place]}"] if place in before else []
            lines += [f"+ {place}: {after[place]}"] if place in after else []
    return lines[:_LINES] + ([f"… {len(lines) - _LINES} more"] if len(lines) > _LINES else [])


def _places(value: JSON) -> list[tuple[str, str]]:
    """Pointer → scalar or empty container, as text. Iterative: a schema is as deep as its author likes."""
    found: list[tuple[str, str]] = []
    pending: list[tuple[str, JSON]] = [("", value)]
    while pending:
        place, inner = pending.pop()
        if isinstance(inner, Mapping) and inner:
            pending.extend((f"{place}/{key}", each) for key, each in inner.items())
        elif isinstance(inner, list) and inner:
            pending.extend((f"{place}/{index}", each) for index, each in enumerate(inner))
        else:
            found.append((place, json.dumps(inner, ensure_ascii=False)[:_SHOWN]))
    return found


def holds(draft: Draft, call: Call, failure: Failure) -> bool:
    """Of a tool call that nobody has seen happen; a compensation whose tool changed has failed, and waits for an
    operator as any that has."""
    found = failure.detail.get(DRIFT)
    fresh = not call.uncertain and not call.lost_past
    if found is None or found["sha256"] is None or call.kind != CallKind.TOOL or call.tool is None or not fresh:
        return False
    if concluding.stopped(draft, call):
        return False
    tool, row = draft.plan.tools[call.tool], draft.step(call.step)
    record = {
        "kind": failure.kind.value,
        "rule": DRIFT,
        "source": "engine",
        "line": None,
        "used": 1,
        "allowed": 1,
        "message": failure.message,
        "change": CHANGE,
        "diff": found["diff"],
        "waited_ms": 0,
        "result": None,
    }
    call.recovery = [*call.recovery, {**record, "attempt": call.attempts}]
    call.failure = None
    before = call.state
    draft.move_call(call, CallState.HELD, held=HeldReason.DRIFT)
    draft.event("effect.call.changed", call=call, moved=(before, call.state), data={"reason": HeldReason.DRIFT})
    asking.request_approval(
        draft,
        row,
        kind=ApprovalKind.DRIFT,
        title=f"{tool.name} has changed since it was listed. Call it as it is now?",
        show={
            "tool": tool.name,
            "arguments": call.request["arguments"],
            "diff": found["diff"],
            "definition": found["sha256"],
        },
        allow=["approve", "reject"],
        expires=tool.approval_expires,
        call_id=call.id,
        arguments_sha256=gating.binding(tool, call.request["arguments"]),
        approver=tool.approver,
    )
    return True


def approved(draft: Draft, call: Call, approval: Approval) -> None:
    """Another request is another call: the same arguments and key, under the definition the person has seen."""
    tool = draft.plan.tools[call.tool or ""]
    show = approval.show if isinstance(approval.show, Mapping) else {}
    call.recovery = [{**r, "result": r["result"] or "approved"} for r in call.recovery]
    draft.move_call(call, CallState.CANCELLED)
    draft.event(
        "effect.call.changed", call=call, moved=(CallState.HELD, CallState.CANCELLED), data={"reason": "approved"}
    )
    made = calling.tool_call(
        draft,
        draft.step(call.step),
        tool,
        call.request["arguments"],
        business_key=call.request.get("business_key"),
        generation=call.generation,
        turn=call.turn,
        ordinal=call.ordinal,
        tool_use_id=call.tool_use_id,
        retry_of=call,
        change={"change": CHANGE, "by": approval.by, "diff": show.get("diff")},
    )
    made.request = {**made.request, CHANGE: show.get("definition")}
    if call.business_key:
        draft.transition.keys_passed.append((call.id, made.id))


def drifted(tool: str, *, was: Definition, now: Definition | None) -> Failure:
    """Of an attempt that was not sent because the tool is not what was listed."""
    gone = now is None
    return Failure(
        kind=FailureKind.INVALID_REQUEST,
        message=f"Its MCP server does not list {tool} any more; nothing was sent."
        if gone
        else f"{tool} has changed since it was listed; nothing was sent.",
        fix="Look at the server; register it anew for later workflows."
        if gone
        else "Look at what changed and decide; register the server anew for later workflows.",
        detail={"seen": "drifted", DRIFT: drift(was, now)},
    )
