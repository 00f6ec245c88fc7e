"""The trace as text: a waterfall that fits its width, with the reason never left out.

`render_text(trace, width=…, color=…)`. What does not fit goes in this order: the bars, then the costs, never a reason;
a note too long for its column moves under its row. Glyphs carry the meaning, colour repeats it. On failure the last
line is the reason. What a row says is decided in `trace_rows.py`; here it is only laid out. Pure.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from app.domain.amounts import counted, price, took
from app.domain.outcomes import JSON
from app.domain.plain import cells, plain
from app.domain.spans import Span, Trace, chains, microusd
from app.domain.trace_lines import AGAIN, reopenings
from app.domain.trace_rows import Row, glyph_of, rows

NARROWEST: Final = 40
"""Columns below which nothing is saved by trying."""
NAME_COLUMN: Final = 21
NAME_COLUMN_MOST: Final = 44
NAME_COLUMN_TAGGED: Final = 32
TAGS_FROM: Final = 96
"""Columns from which the first column is widened, up to that, so that a try says its model."""
BARS_LEAST: Final = 20
BARS_MOST: Final = 46
"""Columns: fewer say nothing about time, more say nothing new."""
NOTE_COLUMN_MOST: Final = 34
"""A longer note stands under its row."""
COST_FROM: Final = 64
"""Columns from which the costs have room beside a reason."""

_COLOURS: Final = {"✓": "32", "✗": "31", "?": "33", "⏸": "33", AGAIN: "36", "◌": "36"}


@dataclass(frozen=True, kw_only=True)
class Layout:
    width: int
    name: int
    took: int
    cost: int
    bars: int
    note: int
    """0: notes stand under their rows."""
    color: bool
    began: datetime
    total: timedelta

    @property
    def before_bars(self) -> int:
        return self.name + 2 + self.took + (2 + self.cost if self.cost else 0)


def render_text(trace: Trace, *, width: int = 100, color: bool = False) -> str:
    """The whole picture, lines ended by line feeds; no line is wider than `width` except commands, never broken."""
    shown = list(rows(trace))
    layout = _layout(trace, shown, width=max(width, NARROWEST), color=color)
    lines = [*_header(trace, layout), "", *_axis(layout)]
    for row in shown:
        lines += _row_lines(row, layout)
    lines += ["", *_footer(trace, layout), *_next(trace), *_reason(trace, layout)]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _layout(trace: Trace, shown: Sequence[Row], *, width: int, color: bool) -> Layout:
    began = trace.root.started_at or trace.as_of
    ended = trace.root.ended_at or trace.as_of
    labels = max((_label_width(row) for row in shown), default=0)
    if width >= TAGS_FROM:
        tried = (_label_width(row) + 2 + cells(row.tag) for row in shown if row.depth and row.tag)
        labels = max(labels, min(max(tried, default=0), NAME_COLUMN_TAGGED))
    name = min(max(NAME_COLUMN, labels), NAME_COLUMN_MOST, max(width - 16, NAME_COLUMN))
    took_column = max([6, *(cells(row.took) for row in shown)])
    cost = max((cells(row.cost) for row in shown), default=0)
    note = max((cells(row.note) for row in shown if cells(row.note) <= NOTE_COLUMN_MOST), default=0)
    left = name + 2 + took_column + (2 + cost if cost else 0)
    room = width - left - 1 - (note + 2 if note else 0)
    bars = min(room, BARS_MOST) if room >= BARS_LEAST else 0
    if not bars and (width < COST_FROM or left + 2 + note > width):
        cost = 0
    left = name + 2 + took_column + (2 + cost if cost else 0)
    if not bars and left + 2 + note > width:
        note = 0
    return Layout(
        width=width, name=name, took=took_column, cost=cost, bars=bars, note=note, color=color, began=began,
        total=max(ended - began, timedelta(milliseconds=1)),
    )  # fmt: skip


def _header(trace: Trace, layout: Layout) -> Iterator[str]:
    root, totals = trace.root, trace.totals
    left = f"{_glyph(glyph_of(root.status), layout)} {plain(root.name)}   {root.id}"
    retries, spent = totals["retries"], microusd(totals["cost_usd"])
    parts = [
        "" if root.status == "succeeded" else str(root.status),
        took(root.duration or timedelta(milliseconds=totals["duration_ms"])),
        f"${price(spent)}" if spent else "",
        counted(retries, "retry", plural="retries") if retries else "",
    ]
    right = "   ".join(part for part in parts if part)
    used = 2 + cells(plain(root.name)) + 3 + len(root.id)
    if used + 3 + len(right) <= layout.width:
        yield left + " " * (layout.width - used - len(right)) + right
    else:
        yield left
        yield "  " + right
    yield from _wrapped(plain(str(trace.workflow["headline"])), layout, first="  ", rest="  ")
    for text in reopenings(trace):
        yield from _wrapped(text, layout, first=f"{_glyph(AGAIN, layout)} ", rest="  ")


def _axis(layout: Layout) -> Iterator[str]:
    """`0s … 1.4s … 5.75s` over the bars."""
    if not layout.bars:
        return
    marks = [" "] * layout.bars
    seconds = layout.total.total_seconds()
    last = _tick(seconds, last=True)
    marks[:2], marks[layout.bars - len(last) :] = "0s", last
    for quarter in (2, 1, 3):
        label = _tick(seconds * quarter / 4)
        at = round(layout.bars * quarter / 4 - len(label) / 2)
        if not "".join(marks[at - 1 : at + len(label) + 1]).strip():  # a label that would touch another is left out
            marks[at : at + len(label)] = label
    yield _dim(" " * (layout.before_bars + 1) + "".join(marks), layout)


def _tick(seconds: float, *, last: bool = False) -> str:
    if seconds < 60:
        return f"{seconds:.2f}s" if last and seconds < 10 else f"{seconds:.1f}s"
    return f"{seconds / 60:.0f}m" if seconds < 3600 else f"{seconds / 3600:.1f}h"


def _row_lines(row: Row, layout: Layout) -> Iterator[str]:
    indent = "│ " * row.depth
    beneath = "│ " * max(row.depth, 1) + "  "
    label, width = row.label, layout.name - len(indent) - 2
    if cells(label) > width:
        yield f"{indent}{_glyph(row.glyph, layout)} {label}"
        label = ""
        left = indent + "  " + " " * width
    else:
        tag = row.tag if cells(label) + 2 + cells(row.tag) <= width else ""
        left = f"{indent}{_glyph(row.glyph, layout)} {_label(label, tag, row.depth, width)}"
    columns = f"{left}  {row.took:>{layout.took}}"
    if layout.cost:
        columns += f"  {row.cost:>{layout.cost}}"
    if layout.bars:
        columns += " " + _bar(row, layout)
    if row.note and (cells(row.note) <= layout.note):
        columns += "  " + row.note
    if label or columns.strip("│ "):
        yield columns
    if row.note and cells(row.note) > layout.note:
        yield from _wrapped(row.note, layout, first=beneath, rest=beneath)
    for line in row.under:
        rest = beneath + "  "
        start = rest if line.glyph == " " else f"{beneath}{_glyph(line.glyph, layout)} "
        if line.command:
            yield start + line.text
        else:
            yield from _wrapped(line.text, layout, first=start, rest=rest)


def _label_width(row: Row) -> int:
    return 2 * row.depth + 2 + cells(row.label)


def _label(label: str, tag: str, depth: int, width: int) -> str:
    """The tag of a step stands at the right of the column, that of a try behind its label."""
    if depth and tag:
        return f"{label}  {tag}" + " " * (width - cells(label) - 2 - cells(tag))
    return label + " " * (width - cells(label) - cells(tag)) + tag


def _bar(row: Row, layout: Layout) -> str:
    if row.started_at is None:
        return " " * layout.bars
    ended = row.ended_at if row.ended_at is not None else layout.began + layout.total
    first = min(_column(row.started_at, layout), layout.bars - 1)
    last = min(max(round(layout.bars * ((ended - layout.began) / layout.total)), first + 1), layout.bars)
    length = last - first
    drawn = "├" + "─" * (length - 2) + "┤" if row.spans_others and length >= 2 else "█" * length
    return " " * first + drawn + " " * (layout.bars - last)


def _column(instant: datetime, layout: Layout) -> int:
    return max(int(layout.bars * ((instant - layout.began) / layout.total)), 0)


def _footer(trace: Trace, layout: Layout) -> Iterator[str]:
    totals, effects = trace.totals, trace.totals["effects"]
    said = f"effects {effects['done']} done · {effects['unknown']} unknown · {effects['undone']} undone"
    if effects.get("abandoned"):
        said += f" · {effects['abandoned']} given up"
    if effects["duplicates_prevented"]:
        said += f" · {counted(effects['duplicates_prevented'], 'duplicate')} prevented"
    recovery = _recovery(totals)
    if recovery and 2 + len(said) + 6 + len(recovery) <= layout.width:
        yield f"  {said}      {recovery}"
        return
    yield from _wrapped(said, layout, first="  ", rest="          ")
    if recovery:
        yield from _wrapped(recovery, layout, first="  ", rest="          ")


def _recovery(totals: JSON) -> str:
    if not totals["retries"] and not totals["recovery_ms"]:
        return ""
    spent, lost = microusd(totals["recovery_usd"]), totals["recovery_ms"]
    time = f"{took(timedelta(milliseconds=lost))}{_share(lost, totals['duration_ms'])}"
    money = f"cost ${price(spent)}{_share(spent, microusd(totals['cost_usd']))} and " if spent else "took "
    return f"recovery {money}{time}"


def _share(part: int, whole: int) -> str:
    return f" ({round(100 * part / whole)} %)" if whole else ""


def _next(trace: Trace) -> Iterator[str]:
    """Commands, one on a line and never broken: a line can be pasted."""
    for number, command in enumerate(next_commands(trace)):
        yield f"{'          ' if number else '  next    '}{command}"


def next_commands(trace: Trace) -> list[str]:
    """What to look at or do next, most useful first."""
    workflow = trace.root.id
    waiting = [span.waiting for span in trace.root.walk() if span.waiting is not None]
    commands = [f"surefoot approve {one['approval']}" for one in waiting if one["approval"]]
    if trace.root.ended_at is None:
        commands.append(f"surefoot why {workflow}")
    told = _told(trace.root)
    if told is not None:
        commands.append(f"surefoot show {workflow} {told[0]} --call {told[1]}")
    return [*commands[:3], f"surefoot effects {workflow}", f"surefoot events {workflow}"]


def _told(root: Span) -> tuple[str, int] | None:
    """Step and number of the call that is worth a look: of the failed step its last, else the first tried twice."""
    first: tuple[str, int] | None = None
    for step in (span for span in root.walk() if span.kind == "step"):
        calls = step.calls
        if not calls:
            continue
        if step.status == "failed":
            return step.name, calls[-1].n or 1
        again = next((chain for chain in chains(calls) if sum(len(call.attempts) for call in chain) > 1), None)
        if first is None and again is not None:
            first = step.name, again[0].n or 1
    return first


def _reason(trace: Trace, layout: Layout) -> Iterator[str]:
    """On failure the last lines: how to go on, then why it failed."""
    failure = trace.workflow.get("failure")
    if not failure:
        return
    if failure.get("fix"):
        yield from _wrapped(f"fix     {plain(str(failure['fix']))}", layout, first="  ", rest="          ")
    place = f"{plain(str(failure['step']))}: " if failure.get("step") else ""
    why = f"{place}{plain(str(failure['message']))} ({plain(str(failure['kind']))})"
    yield from _wrapped(why, layout, first=f"{_glyph('✗', layout)} ", rest="  ")


def _wrapped(text: str, layout: Layout, *, first: str, rest: str) -> list[str]:
    hidden = len(first) - len(rest) if layout.color else 0
    lines = textwrap.wrap(
        text,
        width=layout.width + max(hidden, 0),
        initial_indent=first,
        subsequent_indent=rest,
        drop_whitespace=True,
        break_on_hyphens=False,
    )
    return lines or [first.rstrip()]


def _glyph(glyph: str, layout: Layout) -> str:
    code = _COLOURS.get(glyph)
    return f"\x1b[{code}m{glyph}\x1b[0m" if layout.color and code else glyph


def _dim(text: str, layout: Layout) -> str:
    return f"\x1b[2m{text}\x1b[0m" if layout.color and text.strip() else text
