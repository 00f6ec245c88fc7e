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

from app.domain.amounts import counted, price, took
from app.domain.failure_words import VERDICTS
from app.domain.ledger_records import LEDGER, REOPENED
from app.domain.outcomes import JSON
from app.domain.plain import clipped, plain
from app.domain.spans import Span, Trace, chains, microusd
from app.domain.states import CallState, StepState
from app.domain.trace_lines import (
    DOUBT,
    UNDER_WAY,
    Line,
    being_written,
    call_wait,
    decided,
    decision,
    found_out,
    step_wait,
)

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
ITEMS_SHOWN: Final = 10
"""Items with something to see that get rows of their own; the others are counted."""
NOTE_LIMIT: Final = 60
"""Of an effect's result or key, characters: it stands beside the bar."""


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
    calls = list(step.calls)
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
        under=(*step_wait(step), *decided(step), *being_written(step)),
    )
    if detailed:
        for chain in found:
            yield from chain_rows(chain, alone=len(found) == 1, depth=depth + 1, source=source)
            for aside in (aside for call in chain for aside in call.calls):
                yield _aside_row(aside, about=chain[-1], depth=depth + 1)
    for item in troubled[:ITEMS_SHOWN]:
        yield from step_rows(item, depth=depth + 1, source=source)
    if len(troubled) > ITEMS_SHOWN:
        shown = f"… and {len(troubled) - ITEMS_SHOWN:,} more of {counted(len(troubled), 'item')} with something to see"
        yield Row(glyph=" ", label=shown, depth=depth + 1)


def chain_rows(chain: Sequence[Span], *, alone: bool, depth: int, source: str | None) -> Iterator[Row]:
    """The tries of a call and of those that replaced it, each after the record of the decision that caused it."""
    tries = [(call, attempt) for call in chain for attempt in call.attempts]
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
        if number == 1:  # it replaced a call that was never sent
            for record in before.get(_place(tries[0]), []):
                under += decision(record, None, source=source)
        records = after if last else before.get(_place(tries[number]), [])
        if failure is not None and all(record["kind"] == REOPENED for record in records):
            under.append(Line(text=plain(str(failure["message"]))))
        for record in records:
            under += decision(record, failure, source=source)
        if last:
            under += [*call_wait(chain[-1]), *decided(chain[-1]), *found_out(chain[-1])]
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
            note=_note(call, attempt, failure),
            under=tuple(under),
        )


def _note(call: Span, attempt: Span, failure: JSON) -> str:
    if attempt.status == "lost":
        return "worker_lost"
    if failure is not None:
        return plain(str(failure["kind"]))
    asked = call.recovery[-1] if call.recovery else None
    return "summary" if asked is not None and asked.get("change") == "summarise" else ""


def _aside_row(call: Span, *, about: Span, depth: int) -> Row:
    """A probe or a compensation: one row, under the tries of the call it is about."""
    tries = len(call.attempts)
    said = _verdict(call, about) if call.role == "probe" else ""
    failed = plain(str(call.failure["kind"])) if call.failure and not said else ""
    again = counted(tries, "try", plural="tries") if tries > 1 else ""
    return Row(
        glyph=glyph_of(call.status),
        label=f"{'asks' if call.role == 'probe' else 'undo'} {plain(call.name)}",
        depth=depth,
        took=_took(call) if call.attempts else "",
        cost="" if call.cost_usd is None else price(microusd(call.cost_usd)),
        started_at=call.started_at if call.attempts else None,
        ended_at=call.ended_at,
        note="  ".join(part for part in (said, failed, again) if part),
        under=(*call_wait(call), *decided(call), *found_out(call)),
    )


def _verdict(probe: Span, about: Span) -> str:
    """What this probe said: the verdicts stand on the call they are about, in the order of its probes."""
    said = [record for record in about.recovery if record.get("source") == LEDGER and record["kind"] == "probe"]
    ended = [aside for aside in about.calls if aside.role == "probe" and aside.ended_at is not None]
    place = next((index for index, aside in enumerate(ended) if aside.id == probe.id), len(said))
    return VERDICTS.get(said[place]["result"], plain(str(said[place]["result"]))) if place < len(said) else ""


def _untried(call: Span, *, head: str, depth: int, after: Sequence[JSON], source: str | None) -> Row:
    under = [line for record in after for line in decision(record, None, source=source)]
    under += [*call_wait(call), *decided(call), *found_out(call)]
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
        records = [record for record in call.recovery if record.get("source") != LEDGER]
        attempts = list(call.attempts) if index > 0 else list(call.attempts)[1:]
        for attempt in attempts:
            if records:
                before[(call.id, attempt.id)] = [records.pop(0)]
        after += records
    return before, after


def _place(following: tuple[Span, Span]) -> Place:
    call, attempt = following
    return call.id, attempt.id


def _step_note(step: Span) -> str:
    if step.items:
        names = (("ok", "ok"), ("failed", "failed"), ("open", "open"))
        return ", ".join(f"{step.items[name]:,} {word}" for name, word in names if step.items[name] or name == "ok")
    if step.status == StepState.FAILED and step.failure:
        return plain(str(step.failure["kind"]))
    if step.status in (StepState.SKIPPED, StepState.CANCELLED):
        return str(step.status)
    undone = _UNDO_NOTES.get(step.undo)
    parts = [clipped(step.result, NOTE_LIMIT) if step.result else "", f"key {_key(step)}" if step.key else ""]
    return "  ".join(part for part in [*parts, undone or ""] if part)


_UNDO_NOTES: Final = {
    "done": "undone",
    "running": "being undone",
    "failed": "undo failed",
    "skipped": "undo skipped",
}


def _key(step: Span) -> str:
    return clipped(step.key or "", NOTE_LIMIT)


def _failure(call: Span, attempt: Span) -> JSON:
    """What was wrong with this try: it failed, or it was answered and the answer could not be used."""
    if attempt.status != "succeeded":
        return attempt.failure
    if call.status == CallState.FAILED and attempt.id == call.attempts[-1].id:
        return call.failure
    return None


def _remarkable(chain: Sequence[Span]) -> bool:
    last = chain[-1]
    tries = sum(len(call.attempts) for call in chain)
    told = last.waiting is not None or last.decided is not None or any(found_out(last))
    amiss = any(attempt.status in _AMISS for call in chain for attempt in call.attempts)
    ended_badly = last.status in (CallState.FAILED, CallState.ABANDONED)
    return tries > 1 or told or amiss or ended_badly or any(call.calls for call in chain)


_AMISS: Final = frozenset({"failed", "unknown", "not_sent", "lost"})


def _troubled(item: Span) -> bool:
    if item.waiting is not None or item.status == StepState.FAILED:
        return True
    return any(_remarkable(chain) for chain in chains(item.calls))


def _tag(step: Span, items: Sequence[Span]) -> str:
    effects = {step.effect} if not items else {item.effect for item in items}
    only = effects.pop() if len(effects) == 1 else None
    return only or ""


def _took(span: Span) -> str:
    return "" if span.duration is None else took(span.duration)


def _dollars(cost: str | None) -> str:
    return "" if cost is None else f"${price(microusd(cost))}"
