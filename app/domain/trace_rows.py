"""What a trace says, row by row, before anybody knows how wide the terminal is.

A `Row` is one line with a bar and the lines under it. A step is one row; its tries, turns and items get rows of their
own only where there is something to see: more than one try, more than one turn, a failure, a doubt, somebody waited
for. The rest is counted. "try n" numbers the attempts of a call and of the calls that replaced it. Everything that
came from outside passes `plain`. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from app.domain.amounts import clock, counted, price, took
from app.domain.failure_words import in_short
from app.domain.outcomes import JSON
from app.domain.plain import clipped, plain
from app.domain.spans import Span, Trace, chains, microusd
from app.domain.states import CallState, StepState

GLYPHS: Final[Mapping[str, str]] = {
    "succeeded": "✓",
    "failed": "✗",
    "abandoned": "✗",
    "not_sent": "✗",
    "lost": "✗",
    "skipped": "–",
    "cancelled": "–",
    "in_doubt": "?",
    "probing": "?",
    "unknown": "?",
    "waiting": "⏸",
    "held": "⏸",
    "paused": "⏸",
    "queued": "⏸",
}
"""Everything else is under way."""
UNDER_WAY: Final = "◌"
AGAIN: Final = "↻"
WAITS: Final = "⏸"
DOUBT: Final = "?"
DONE: Final = "✓"

CHANGED: Final[Mapping[str, str]] = {
    "format_reminder": "schema and the exact complaint",
    "more_tokens": "more room for the answer",
    "summary": "the conversation as a summary",
}
"""A recovery record's `change` → what was added to the request. Any other change is named as it is."""

ITEMS_SHOWN: Final = 10
"""Items with something to see that get rows of their own; the others are counted."""
NOTE_LIMIT: Final = 60
"""Of an effect's result or key, characters: it stands beside the bar."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """Text under a row. A command is never broken, so that it can be copied."""

    glyph: str = " "
    text: str
    command: bool = False


@dataclass(frozen=True, kw_only=True)
class Row:
    glyph: str
    label: str
    depth: int = 0
    tag: str = ""
    """Effect class or model: left out where there is no room."""
    took: str = ""
    cost: str = ""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    spans_others: bool = False
    """Its bar is drawn open, because the rows under it show the parts."""
    note: str = ""
    under: tuple[Line, ...] = ()


def glyph_of(status: str) -> str:
    return GLYPHS.get(status, UNDER_WAY)


def rows(trace: Trace) -> Iterator[Row]:
    source = trace.workflow.get("source")
    for step in trace.root.children:
        yield from step_rows(step, depth=0, source=source)


def step_rows(step: Span, *, depth: int, source: str | None) -> Iterator[Row]:
    items = [child for child in step.children if child.kind == "step"]
    calls = [child for child in step.children if child.kind == "call"]
    found = chains(calls)
    detailed = len(found) > 1 or any(_remarkable(chain) for chain in found)
    troubled = [item for item in items if _troubled(item)]
    doubtful = any(call.status in (CallState.IN_DOUBT, CallState.PROBING) for call in calls)
    yield Row(
        glyph=DOUBT if doubtful else glyph_of(step.status),
        label=f"{plain(step.name)} ×{step.items['total']:,}" if step.items else plain(step.name),
        depth=depth,
        tag=_tag(step, items),
        took=_took(step),
        cost=_dollars(step.cost_usd),
        started_at=step.started_at,
        ended_at=step.ended_at,
        spans_others=detailed or bool(troubled),
        note=_step_note(step),
        under=(*_step_wait(step), *_decided(step)),
    )
    if detailed:
        for chain in found:
            yield from chain_rows(chain, alone=len(found) == 1, depth=depth + 1, source=source)
    for item in troubled[:ITEMS_SHOWN]:
        yield from step_rows(item, depth=depth + 1, source=source)
    if len(troubled) > ITEMS_SHOWN:
        shown = f"… and {len(troubled) - ITEMS_SHOWN:,} more of {counted(len(troubled), 'item')} with something to see"
        yield Row(glyph=" ", label=shown, depth=depth + 1)


def chain_rows(chain: Sequence[Span], *, alone: bool, depth: int, source: str | None) -> Iterator[Row]:
    """The tries of a call and of those that replaced it, each after the record of the decision that caused it."""
    tries = [(call, attempt) for call in chain for attempt in call.children]
    before, after = _placed(chain)
    first = chain[0]
    head = "" if alone else f"turn {first.turn}" if first.name == "model" else plain(first.name)
    many = len(tries) > 1 or alone
    if not tries:
        yield _untried(chain[-1], head=head, depth=depth, after=after, source=source)
        return
    for number, (call, attempt) in enumerate(tries, start=1):
        last = number == len(tries)
        failure = _failure(call, attempt)
        under: list[Line] = []
        for record in after if last else before.get(_place(tries[number]), []):
            under += _decision(record, failure, source=source)
        if not under and failure is not None:
            under.append(Line(text=plain(str(failure["message"]))))
        if last:
            under += [*_call_wait(chain[-1]), *_decided(chain[-1])]
        label = f"{head} try {number}".strip() if many else head
        yield Row(
            glyph=glyph_of("failed" if failure is not None and attempt.status == "succeeded" else attempt.status),
            label=label,
            depth=depth,
            tag=plain(attempt.via or "") if attempt.name == "model" else "" if alone else (call.effect or ""),
            took=_took(attempt),
            cost="" if attempt.cost_usd is None else price(microusd(attempt.cost_usd)),
            started_at=attempt.started_at,
            ended_at=attempt.ended_at,
            note="worker_lost" if attempt.status == "lost" else "" if failure is None else plain(str(failure["kind"])),
            under=tuple(under),
        )


def _untried(call: Span, *, head: str, depth: int, after: Sequence[JSON], source: str | None) -> Row:
    under = [line for record in after for line in _decision(record, None, source=source)]
    under += [*_call_wait(call), *_decided(call)]
    return Row(
        glyph=glyph_of(call.status),
        label=head or plain(call.name),
        depth=depth,
        note="" if call.status == CallState.DUE else plain(call.status),
        under=tuple(under),
    )


Place = tuple[str, str]
"""A call, and the attempt before which something was decided."""


def _placed(chain: Sequence[Span]) -> tuple[dict[Place, list[JSON]], list[JSON]]:
    """Which recovery record comes before which try.

    The first record of a call with `retry_of` made that call; the others of a call stand between its attempts in
    order. What is left over was decided and has not been tried yet.
    """
    before: dict[Place, list[JSON]] = {}
    after: list[JSON] = []
    for index, call in enumerate(chain):
        records = list(call.recovery)
        attempts = list(call.children) if index > 0 else list(call.children)[1:]
        for attempt in attempts:
            if records:
                before[(call.id, attempt.id)] = [records.pop(0)]
        after += records
    return before, after


def _place(following: tuple[Span, Span]) -> Place:
    call, attempt = following
    return call.id, attempt.id


def _decision(record: JSON, failure: JSON, *, source: str | None) -> list[Line]:
    """`because: … · rule file:26 (1 of 2)` and `change: … · waited …`."""
    because = record.get("message") or (failure or {}).get("message") or in_short(str(record["kind"]))
    used, allowed = record.get("used"), record.get("allowed")
    count = f" ({used} of {allowed})" if used is not None and allowed is not None else ""
    lines = [Line(glyph=AGAIN, text=f"because: {plain(str(because)).rstrip('.')} · {_rule(record, source)}{count}")]
    waited = record.get("waited_ms") or 0
    wait = f" · waited {waited / 1000:.2f} s" if waited else ""
    change = record.get("change")
    added = CHANGED.get(str(change), plain(str(change)))
    said = f"+ {added}{_size(record.get('diff'))}" if change else "none, the same bytes"
    return [*lines, Line(text=f"change: {said}{wait}")]


def _rule(record: JSON, source: str | None) -> str:
    rule, line = plain(str(record.get("rule") or record["kind"])), record.get("line")
    if record.get("source") == "definition":
        place = "" if line is None else f", line {line}"
        return f"rule {plain(source)}:{line}" if source and line is not None else f"rule {rule}{place}"
    return f"default rule {rule}"


def _size(diff: JSON) -> str:
    lines = diff.splitlines() if isinstance(diff, str) else diff if isinstance(diff, list) else []
    return f" ({counted(len(lines), 'line')})" if lines else ""


def _step_note(step: Span) -> str:
    if step.items:
        names = (("ok", "ok"), ("failed", "failed"), ("open", "open"))
        return ", ".join(f"{step.items[name]:,} {word}" for name, word in names if step.items[name] or name == "ok")
    if step.status == StepState.FAILED and step.failure:
        return plain(str(step.failure["kind"]))
    if step.status in (StepState.SKIPPED, StepState.CANCELLED):
        return str(step.status)
    undone = {"done": "undone", "running": "being undone", "failed": "undo failed"}.get(step.undo)
    parts = [clipped(step.result, NOTE_LIMIT) if step.result else "", f"key {_key(step)}" if step.key else ""]
    return "  ".join(part for part in [*parts, undone or ""] if part)


def _key(step: Span) -> str:
    return clipped(step.key or "", NOTE_LIMIT)


def _failure(call: Span, attempt: Span) -> JSON:
    """What was wrong with this try: it failed, or it was answered and the answer could not be used."""
    if attempt.status != "succeeded":
        return attempt.failure
    if call.status == CallState.FAILED and attempt.id == call.children[-1].id:
        return call.failure
    return None


def _step_wait(step: Span) -> Iterator[Line]:
    waiting = step.waiting
    if waiting is None:
        return
    since = f" · since {_clock(waiting['since'])}" if waiting["since"] else ""
    yield Line(glyph=WAITS, text=f"{plain(str(waiting['reason'] or step.name))}{since}")
    if waiting["approval"]:
        yield Line(text=f"surefoot approve {waiting['approval']}", command=True)
        yield Line(text=f"surefoot reject {waiting['approval']} --comment '…'", command=True)


def _call_wait(call: Span) -> list[Line]:
    waiting = call.waiting
    if waiting is None:
        return []
    kind = waiting["kind"]
    if kind == "doubt":
        return _doubt_lines(call, waiting)
    if kind == "approval":
        return [
            Line(glyph=WAITS, text=f"asks before it is sent: {plain(str(waiting['reason']))}"),
            Line(text=f"surefoot approve {waiting['approval']}", command=True),
        ]
    if kind == "timer":
        return [Line(glyph=WAITS, text=f"tried again at {_clock(waiting['not_before'])}")]
    return [Line(glyph=WAITS, text=f"held: {plain(str(waiting['reason']))}")]


def _decided(span: Span) -> Iterator[Line]:
    """Who said what of it, and why."""
    decided = span.decided
    if decided is None:
        return
    by, at = plain(str(decided["by"] or "nobody")), _clock(decided["at"])
    said = plain(str(decided["said"]))
    text = f"nobody knew; settled as {said} by {by}" if decided["what"] == "doubt" else f"{said} by {by}"
    note = f": {plain(str(decided['note']))}" if decided["note"] else ""
    yield Line(glyph=DONE, text=f"{text} at {at}{note}")


def _doubt_lines(call: Span, waiting: Mapping[str, JSON]) -> list[Line]:
    since = f" since {_clock(waiting['since'])}" if waiting["since"] else ""
    asked = counted(len(call.children), "request")
    lines = [
        Line(glyph=DOUBT, text=f"in doubt{since}: {asked} sent to {plain(call.name)}, no certain answer; not repeated")
    ]
    lines.append(
        Line(text=f"surefoot resolve {call.id} happened|did-not-happen|abandon --note '…'", command=True),
    )
    if waiting["not_before"]:
        until = _clock(waiting["not_before"])
        lines.append(Line(text=f"did-not-happen only from {until} on: what has left may still arrive"))
    return lines


def _remarkable(chain: Sequence[Span]) -> bool:
    last = chain[-1]
    tries = sum(len(call.children) for call in chain)
    told = last.waiting is not None or last.decided is not None
    return tries > 1 or told or last.status in (CallState.FAILED, CallState.ABANDONED)


def _troubled(item: Span) -> bool:
    if item.waiting is not None or item.status == StepState.FAILED:
        return True
    return any(_remarkable(chain) for chain in chains([child for child in item.children if child.kind == "call"]))


def _tag(step: Span, items: Sequence[Span]) -> str:
    effects = {step.effect} if not items else {item.effect for item in items}
    only = effects.pop() if len(effects) == 1 else None
    return only or ""


def _took(span: Span) -> str:
    return "" if span.duration is None else took(span.duration)


def _dollars(cost: str | None) -> str:
    return "" if cost is None else f"${price(microusd(cost))}"


def _clock(text: str) -> str:
    return clock(datetime.fromisoformat(text))
