"""The lines under a row of the trace: why it was tried again, what is waited for, who decided what, what the effect
ledger found out. Everything that came from outside passes `plain`. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from app.domain import partials
from app.domain.amounts import clock, counted, took
from app.domain.failure_words import HELD, VERDICTS, in_short
from app.domain.ledger_records import LEDGER, REOPENED, UNDO_SETTLED
from app.domain.outcomes import JSON
from app.domain.plain import clipped, plain
from app.domain.spans import Span, Trace
from app.domain.states import HeldReason

AGAIN: Final = "↻"
WAITS: Final = "⏸"
DOUBT: Final = "?"
DONE: Final = "✓"
UNDER_WAY: Final = "◌"

CHANGES_SHOWN: Final = 6
CHANGE_LIMIT: Final = 100
"""Of what a person changed: lines, and characters of each; `show` has the whole."""
REOPENINGS_SHOWN: Final = 3

CHANGED: Final[Mapping[str, str]] = {
    "format_reminder": "schema and the exact complaint",
    "more_tokens": "more room for the answer",
    "summary": "the conversation as a summary",
    "summarise": "a summary in place of the conversation",
    "continue": "the part so far, and “continue exactly”",
    "append": "the part so far, unchanged",
    "disable_tool": "a note that the tool is gone",
    "note": "a note to the model",
    "final": "a note that this is the last answer",
    "tell_model": "the reason, as the tool's result",
    "definition": "what the tool is now, if a person agrees",
}
"""A recovery record's `change` → what was added to the request. Any other change is named as it is."""

REPLACED: Final = frozenset({"double_max_tokens", "switch_model", "clamp_max_tokens"})
"""Changes that put one thing in the place of another: the diff itself is short enough to be told."""
_SAME: Final = "none, the same bytes"


@dataclass(frozen=True, kw_only=True)
class Line:
    """Text under a row. A command is never broken, so that it can be copied."""

    glyph: str = " "
    text: str
    command: bool = False


def decision(record: JSON, failure: JSON, *, source: str | None) -> list[Line]:
    """`because: … · rule file:26 (1 of 2)` and `change: … · waited …`."""
    if record["kind"] == REOPENED:
        return [Line(glyph=AGAIN, text=plain(str(record["message"])))]
    because = record.get("message") or (failure or {}).get("message") or in_short(str(record["kind"]))
    used, allowed = record.get("used"), record.get("allowed")
    count = f" ({used} of {allowed})" if used is not None and allowed is not None else ""
    lines = [Line(glyph=AGAIN, text=f"because: {plain(str(because)).rstrip('.')} · {_rule(record, source)}{count}")]
    waited = record.get("waited_ms") or 0
    wait = f" · waited {waited / 1000:.2f} s" if waited else ""
    change = record.get("change")
    return [*lines, Line(text=f"change: {_change(str(change), record.get('diff')) if change else _SAME}{wait}")]


def _change(change: str, diff: JSON) -> str:
    """`+ a note to the model (1 line)`; `max_tokens 4096 → 8192`."""
    if change in REPLACED and isinstance(diff, list) and len(diff) > 1:
        before, after = str(diff[0]).removeprefix("- "), str(diff[1]).removeprefix("+ ")
        word = before.partition(" ")[0]
        rest = f"; {'; '.join(str(line) for line in diff[2:])}" if len(diff) > 2 else ""
        return plain(clipped(f"{before} → {after.removeprefix(f'{word} ')}{rest}", CHANGE_LIMIT))
    return f"+ {CHANGED.get(change, plain(change))}{_size(diff)}"


def _rule(record: JSON, source: str | None) -> str:
    rule, line = plain(str(record.get("rule") or record["kind"])), record.get("line")
    if record.get("source") == "definition":
        place = "" if line is None else f", line {line}"
        return f"rule {plain(source)}:{line}" if source and line is not None else f"rule {rule}{place}"
    return f"default rule {rule}"


def _size(diff: JSON) -> str:
    lines = diff.splitlines() if isinstance(diff, str) else diff if isinstance(diff, list) else []
    return f" ({counted(len(lines), 'line')})" if lines else ""


def step_wait(step: Span) -> Iterator[Line]:
    waiting = step.waiting
    if waiting is None:
        return
    since = f" · since {_clock(waiting['since'])}" if waiting["since"] else ""
    yield Line(glyph=WAITS, text=f"{plain(str(waiting['reason'] or step.name))}{since}")
    if waiting["approval"]:
        yield Line(text=f"surefoot approve {waiting['approval']}", command=True)
        yield Line(text=f"surefoot reject {waiting['approval']} --comment '…'", command=True)


def being_written(step: Span) -> Iterator[Line]:
    """What a model is writing just now."""
    for attempt in (attempt for call in step.calls for attempt in call.attempts):
        partial = partials.read(attempt.partial)
        if partial is not None:
            yield Line(glyph=UNDER_WAY, text=plain(partials.line(partial)))


def call_wait(call: Span) -> list[Line]:
    waiting = call.waiting
    if waiting is None:
        return []
    kind = waiting["kind"]
    if kind == "doubt":
        return _doubt_lines(call, waiting)
    if kind == "probe":
        return [_probe_line(call, accepted=waiting["reason"] is not None)]
    if kind == "undo":
        since = f" at {_clock(waiting['since'])}" if waiting["since"] else ""
        return [
            Line(glyph=DOUBT, text=f"its undo failed{since}; an operator settles it"),
            *(Line(text=f"surefoot undo {call.id} {action} --note '…'", command=True) for action in UNDO_SETTLED),
        ]
    if kind == "result":
        return [Line(glyph=WAITS, text=f"{plain(call.name)} accepted it (202); its result is waited for")]
    if kind == "approval":
        return [
            Line(glyph=WAITS, text=f"asks before it is sent: {plain(str(waiting['reason']))}"),
            Line(text=f"surefoot show {waiting['approval']}", command=True),
            Line(text=f"surefoot approve {waiting['approval']}", command=True),
        ]
    if kind == "timer":
        return [Line(glyph=WAITS, text=f"the next try is due at {_clock(waiting['not_before'])}")]
    reason = str(waiting["reason"])
    why = HELD[HeldReason(reason)] if reason in HELD else plain(reason)
    return [Line(glyph=WAITS, text=f"held: {why}")]


def _probe_line(call: Span, *, accepted: bool) -> Line:
    said = [record for record in call.recovery if record.get("source") == LEDGER and record["kind"] == "probe"]
    last = VERDICTS.get(said[-1]["result"], said[-1]["result"]) if said else "no answer yet"
    asker = next((plain(aside.name) for aside in call.calls if aside.role == "probe"), "the tool")
    if accepted:
        return Line(glyph=WAITS, text=f"{plain(call.name)} accepted it (202); {asker} is asked: {last}")
    return Line(glyph=DOUBT, text=f"nobody knows whether it happened; {asker} is asked: {last}")


def found_out(call: Span) -> Iterator[Line]:
    """What the ledger says of it. A person's verdict is told by `decided`, a probe's beside the probe."""
    for record in call.recovery:
        if record.get("source") != LEDGER or record["kind"] == "probe":
            continue
        if record["kind"] == "verdict" and call.decided is not None:
            continue
        yield Line(glyph=DOUBT if record["kind"] == "contradiction" else DONE, text=plain(str(record["message"])))


def decided(span: Span) -> Iterator[Line]:
    """Who said what of it, and why: who approved it, then who settled its doubt."""
    said = span.decided
    for word in [] if said is None else [said.get("before"), said]:
        yield from _word(word) if word is not None else ()


def _word(decided: Mapping[str, JSON]) -> Iterator[Line]:
    by, at = plain(str(decided["by"] or "nobody")), _clock(decided["at"])
    said = plain(str(decided["said"]))
    text = f"nobody knew; settled as {said} by {by}" if decided["what"] == "doubt" else f"{said} by {by}"
    asked = decided.get("asked")
    after = f", {took(_instant(decided['at']) - _instant(asked))} after it was asked" if asked else ""
    note = f": {plain(str(decided['note']))}" if decided["note"] else ""
    yield Line(glyph=DONE, text=f"{text} at {at}{after}{note}")
    diff = decided.get("diff") or []
    for changed in diff[:CHANGES_SHOWN]:
        yield Line(text=plain(clipped(str(changed), CHANGE_LIMIT)))
    if len(diff) > CHANGES_SHOWN:
        yield Line(text=f"… and {counted(len(diff) - CHANGES_SHOWN, 'more line')} of what was changed")


def reopenings(trace: Trace) -> list[str]:
    """Who let a workflow go on that had failed or was cancelled, the latest last."""
    told = []
    for one in trace.workflow.get("reopened") or []:
        note = f": {plain(str(one['note']))}" if one["note"] else ""
        told.append(f"reopened by {plain(str(one['by'] or 'nobody'))} at {_clock(one['at'])}{note}")
    return told[-REOPENINGS_SHOWN:]


def _doubt_lines(call: Span, waiting: Mapping[str, JSON]) -> list[Line]:
    since = f" since {_clock(waiting['since'])}" if waiting["since"] else ""
    asked = counted(len(call.children), "request")
    lines = [
        Line(glyph=DOUBT, text=f"in doubt{since}: {asked} sent to {plain(call.name)}, no certain answer; not repeated")
    ]
    lines += [
        Line(text=f"surefoot resolve {call.id} {outcome} --note '…'", command=True)
        for outcome in ("happened", "did-not-happen", "abandon")
    ]
    if waiting["not_before"]:
        until = _clock(waiting["not_before"])
        lines.append(Line(text=f"did-not-happen only from {until} on: what has left may still arrive"))
    return lines


def _clock(text: str) -> str:
    return clock(_instant(text))


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)
