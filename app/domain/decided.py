"""What people decided about a step or a call, for the trace: an approval, a word on a doubt, a step ended by hand.

    of_step(step, approvals=…, operations=…)      the last that holds, None if nobody decided anything
    of_call(call, approvals=…)
    pause_of, reopenings                          what was done to the whole workflow

Each is `{"what", "said", "by", "note", "at", "asked", "diff", "before"}`, JSON as it stands on a `Span`. Rows are
mappings with the column names of `app/store/tables.py`; operations are events. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from app.domain.outcomes import JSON
from app.domain.spans import instant_text
from app.domain.states import HeldReason
from app.domain.stories import BY_HAND

Row = Mapping[str, Any]

_SAID: Final = {"approve": "approved", "edit": "approved with changes"}
_BY_A_WORD: Final = ("edited", "definition")
"""A call's `change`: the word about the one before it is about this one."""
_DONE: Final = {"skip": "skipped", "complete": "completed", "fail": "failed"}


def of_step(step: Row, *, approvals: Sequence[Row], operations: Sequence[Row]) -> JSON:
    """`approvals`: decided ones. `operations`: the step's `agent.step.operated`, in order."""
    ended = by_hand(step, operations)
    if ended is None:
        return _approval(approvals, step=step["path"], call_id=None)
    said = _DONE[ended["action"]]
    return _decided("step", said, by=ended["by"], note=ended["note"], at=instant_text(ended["at"]))


def by_hand(step: Row, operations: Sequence[Row]) -> Row | None:
    """`action`, `by`, `note`, `at` of the operator who ended it as it is now."""
    ended = [event for event in operations if BY_HAND.get(event["data"]["action"]) == step["state"]]
    return {**ended[-1]["data"], "at": ended[-1]["at"]} if ended else None


def of_call(call: Row, *, approvals: Sequence[Row]) -> JSON:
    """The word on its doubt, with who had approved it `before`; or that alone. That a result was taken over is nobody's
    word."""
    approved = _of_its_approval(call, approvals)
    resolved = call["resolved"]
    if resolved is None or resolved["outcome"] == HeldReason.ATTACHED:
        return approved
    said = str(resolved["outcome"]).replace("_", " ")
    settled = _decided("doubt", said, by=resolved["by"], note=resolved.get("note"), at=resolved["at"])
    return settled | {"before": approved}


def _of_its_approval(call: Row, approvals: Sequence[Row]) -> JSON:
    """Of a call that was made because somebody changed the arguments, or agreed to a tool that had changed: the word
    about the one before."""
    change = call["change"] if isinstance(call["change"], Mapping) else {}
    edited = change.get("change") in _BY_A_WORD
    found = _approval(approvals, step=call["step"], call_id=call["retry_of"] if edited else call["id"])
    return found | {"diff": change.get("diff")} if found and edited else found


def _approval(approvals: Sequence[Row], *, step: str, call_id: UUID | None) -> JSON:
    found = [row for row in approvals if row["step"] == step and row["call_id"] == call_id]
    if not found:
        return None
    last = found[-1]
    return _decided(
        "approval",
        _SAID.get(last["decision"], "rejected"),
        by=last["by"],
        note=last["comment"],
        at=instant_text(last["decided_at"]),
        asked=instant_text(last["created_at"]),
    )


def _decided(
    what: str, said: str, *, by: str | None, note: str | None, at: JSON, asked: JSON = None
) -> dict[str, JSON]:
    return {"what": what, "said": said, "by": by, "note": note, "at": at, "asked": asked, "diff": None, "before": None}


def pause_of(findings: Sequence[Row]) -> Row | None:
    """`by`, `reason`, `at` of the last pause."""
    last = next((event for event in reversed(findings) if event["type"] == "workflow.paused"), None)
    if last is None:
        return None
    return {"by": last["data"].get("by"), "reason": last["data"].get("reason"), "at": last["at"]}


def reopenings(findings: Sequence[Row]) -> list[Row]:
    return [event for event in findings if event["type"] == "workflow.reopened"]
