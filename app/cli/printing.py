"""How the command line writes: results on stdout, everything else on stderr, plain when it is not a terminal.

Whatever came from outside passes `plain` before it is shown, so that a title cannot move the cursor. Nothing is cut:
a table's last column is as long as it is. Colour only on a terminal and without NO_COLOR.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TextIO

from app.cli.client import Problem
from app.cli.exits import Stop
from app.domain.outcomes import JSON
from app.domain.plain import cells, plain
from app.domain.trace_rows import glyph_of

RED: Final = "31"
YELLOW: Final = "33"
DIM: Final = "2"
NO_TERMINAL_WIDTH: Final = 100
"""Columns for a trace that is written into a file or a pipe."""


def ready_streams() -> None:
    """A terminal that cannot show a glyph shows a question mark instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def coloured(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, code: str, stream: TextIO) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if coloured(stream) else text


def out(text: str = "") -> None:
    print(text, flush=True)


def note(text: str) -> None:
    """Progress and advice, on stderr."""
    print(text, file=sys.stderr, flush=True)


def as_json(value: JSON) -> None:
    out(json.dumps(value, indent=2))


def json_line(value: JSON) -> str:
    return json.dumps(value, separators=(",", ":"))


def pretty(value: JSON) -> list[str]:
    """A JSON value as indented lines that are safe to show."""
    return [_safe(line) for line in json.dumps(value, indent=2, ensure_ascii=False).split("\n")]


def _safe(line: str) -> str:
    text = line.lstrip(" ")
    return " " * (len(line) - len(text)) + plain(text)


def table(rows: Iterable[Sequence[str]], *, head: Sequence[str]) -> None:
    """Columns aligned, two spaces between, the last one free."""
    shown = [[plain(cell) for cell in row] for row in rows]
    widths = [max(cells(row[index]) for row in [list(head), *shown]) for index in range(len(head) - 1)]
    out(paint(_row(list(head), widths), DIM, sys.stdout))
    for row in shown:
        out(_row(row, widths))


def _row(row: list[str], widths: list[int]) -> str:
    padded = [cell + " " * (width - cells(cell)) for cell, width in zip(row[:-1], widths, strict=True)]
    return "  ".join([*padded, row[-1]]).rstrip()


def width(asked: int | None, *, stream: TextIO) -> int:
    if asked is not None:
        return asked
    return shutil.get_terminal_size((NO_TERMINAL_WIDTH, 24)).columns if stream.isatty() else NO_TERMINAL_WIDTH


def headline(workflow: Mapping[str, JSON]) -> str:
    return f"{glyph_of(workflow['status'])} {plain(str(workflow['headline']))}"


def stop(error: Stop) -> None:
    note(f"{paint('error', RED, sys.stderr)}  {plain(error.what)}")
    if error.fix:
        note(f"fix    {plain(error.fix)}")


def problem(error: Problem) -> None:
    """Title and detail, each error with its line or pointer and its fix, then the fix of the whole."""
    document = error.document
    title = plain(str(document.get("title") or f"HTTP {error.status}"))
    note(f"{paint('error', RED, sys.stderr)}  {title}")
    detail = document.get("detail")
    if detail and detail != document.get("title"):
        note(f"       {plain(str(detail))}")
    faults = [fault for fault in document.get("errors") or [] if isinstance(fault, Mapping)]
    for fault in faults:
        place = f"line {fault['line']}, " if fault.get("line") else ""
        note(f"  {paint('✗', RED, sys.stderr)} {place}{plain(str(fault.get('pointer') or '/'))}")
        note(f"      {plain(str(fault.get('detail') or fault.get('code') or ''))}")
        if fault.get("fix"):
            note(f"      fix: {plain(str(fault['fix']))}")
    if document.get("possible"):
        note(f"possible  {plain(', '.join(map(str, document['possible'])))}")
    if document.get("not_before"):
        note(f"not before  {plain(str(document['not_before']))}")
    if document.get("fix"):
        note(f"fix    {plain(str(document['fix']))}")
    named = " · ".join(f"{name} {plain(str(document[name]))}" for name in ("code", "request_id") if document.get(name))
    if named:
        note(paint(f"       {named}", DIM, sys.stderr))
