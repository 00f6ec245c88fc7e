"""Text from outside, made safe to show on a terminal: one line, no control characters, no surprises of direction.

Titles, outputs and failure messages are written by clients, tools and models. `plain` shows what could act on a
terminal or hide in it (escape sequences, carriage returns, bidirectional overrides, zero-width characters, lone
surrogates) as a visible escape and keeps everything else as it is. Pure; nothing is dropped silently: what is cut is
cut with an ellipsis.
"""

from __future__ import annotations

import unicodedata
from typing import Final

_NEVER_SHOWN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
"""Unicode categories that act instead of being seen: control, format, surrogate, private use, separators."""

ELLIPSIS: Final = "…"


def plain(text: str) -> str:
    """One line without control characters: an escape becomes the four characters `\\x1b`, a line break a space."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_visible(character) for character in " ".join(_lines(text)))


def clipped(text: str, limit: int) -> str:
    """`plain`, at most `limit` characters, the cut marked by an ellipsis."""
    shown = plain(text)
    return shown if len(shown) <= limit else shown[: limit - 1].rstrip() + ELLIPSIS


def cells(text: str) -> int:
    """Columns the text takes on a terminal: wide East Asian characters take two, combining marks none."""
    if text.isascii():
        return len(text)
    return sum(_cells(character) for character in text)


def _lines(text: str) -> list[str]:
    return [line.replace("\t", " ").strip(" ") for line in text.replace("\r\n", "\n").split("\n")]


def _visible(character: str) -> str:
    if unicodedata.category(character) not in _NEVER_SHOWN:
        return character
    code = ord(character)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _cells(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1
