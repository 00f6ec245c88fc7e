"""What the effect ledger found out about one call, as recovery records for the trace: what a probe said, who settled a
doubt, whose result was taken, which duplicates never happened.

The same shape as the records a recovery leaves on a call (`recovery.py`), with `source: ledger`: no rule of the
definition decided here. Built from events and attempts. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from app.domain import ids
from app.domain.failure_words import REPORTED, VERDICTS
from app.domain.outcomes import JSON
from app.domain.plain import clipped
from app.domain.spans import instant_text
from app.domain.states import AttemptOutcome, CallState, EffectClass, HeldReason

Row = Mapping[str, Any]

LEDGER: Final = "ledger"
REOPENED: Final = "reopened"
"""Kind of the record on a call that was made because somebody reopened the workflow; its source is `operator`."""
NOTE_LIMIT: Final = 200
UNDO_SETTLED: Final = {
    "retry": "its undo had failed; asked for again",
    "done": "its undo had failed; marked as undone",
    "skip": "its undo had failed; left as it is",
}
"""What an operator said about an undo that had failed; who said it follows."""


def records_of(call: Row, *, findings: Sequence[Row], attempts: Sequence[Row], asker: str | None) -> list[JSON]:
    """`findings`: the events about this call in order; `asker`: the tool its probes ask."""
    told = [_told(event, asker=asker or "the tool") for event in findings]
    return [*(record for record in told if record is not None), *_duplicates(call, findings, attempts)]


def _told(event: Row, *, asker: str) -> JSON:
    data = event["data"]
    match event["type"]:
        case "effect.probed":
            verdict = str(data.get("verdict"))
            return _record("probe", verdict, f"{asker} was asked: {VERDICTS.get(verdict, verdict)}", event)
        case "effect.attached":
            text = f"The key belongs to {data.get('owner')}: its result is taken, nothing is sent"
            return _record(HeldReason.ATTACHED, "attached", text, event)
        case "effect.resolved":
            said, outcome = _by_whom(data), str(data.get("outcome"))
            if data.get("by") == REPORTED:
                failed = "" if outcome == "happened" else f": it failed. {clipped(str(data.get('note')), NOTE_LIMIT)}"
                return _record("verdict", outcome, f"its result was reported{failed}", event)
            return _record("verdict", outcome, f"settled as {outcome.replace('_', ' ')} {said}", event)
        case "compensation.settled":
            action = str(data.get("action"))
            return _record("undo", action, f"{UNDO_SETTLED.get(action, action)} {_by_whom(data)}", event)
        case "effect.repeated":
            text = f"The same was asked for before, in {data.get('earlier')}"
            return _record(HeldReason.REPEAT, str(data.get("on_repeat")), text, event)
        case "effect.contradicted":
            text = f"Settled as {data.get('settled')}, but then came: {data.get('evidence')}"
            return _record("contradiction", str(data.get("evidence")), text, event)
    return None


def _by_whom(data: JSON) -> str:
    note = clipped(str(data.get("note") or ""), NOTE_LIMIT)
    return f"by {clipped(str(data.get('by') or 'nobody'), NOTE_LIMIT)}{f': {note}' if note else ''}"


def _duplicates(call: Row, findings: Sequence[Row], attempts: Sequence[Row]) -> list[JSON]:
    """A call that was sent again while an earlier request may have arrived, and was done once all the same."""
    if call["state"] != CallState.SUCCEEDED:
        return []
    if any(event["type"] == "effect.attached" for event in findings) and not attempts:
        return [_record("duplicate_prevented", "prevented", "Done once, by the call that owns the key", None)]
    unsure = [row for row in attempts if row["outcome"] in (None, AttemptOutcome.UNKNOWN)]
    answered = [row for row in attempts if row["outcome"] == AttemptOutcome.SUCCEEDED]
    if call["effect"] != EffectClass.KEYED or not unsure or not answered:
        return []
    text = f"{len(unsure) + len(answered)} requests with one key may have arrived; the tool did it once"
    return [_record("duplicate_prevented", "prevented", text, None)]


def reopened(call: Row, *, before: Row | None, reopenings: Sequence[Row]) -> list[JSON]:
    """The record of why the call was made again, if a reopening is why; `before`: the call that it replaces."""
    ended = None if before is None else before["ended_at"]
    found = [event for event in reopenings if event["at"] <= call["created_at"] and (not ended or event["at"] >= ended)]
    if before is None or not found:
        return []
    by = clipped(str(found[-1]["data"].get("by") or "nobody"), NOTE_LIMIT)
    text = f"made again: the workflow was reopened by {by}"
    return [_record(REOPENED, "made", text, found[-1]) | {"source": "operator"}]


def _record(kind: str, result: str, message: str, event: Row | None) -> JSON:
    return {
        "kind": str(kind),
        "rule": None,
        "source": LEDGER,
        "line": None,
        "change": None,
        "diff": None,
        "waited_ms": None,
        "result": result,
        "message": message,
        "at": None if event is None else instant_text(event["at"]),
        "attempt": None if event is None or event["attempt_id"] is None else ids.encode("att", event["attempt_id"]),
    }
