"""Whether a document is a JSON value we can hold at all: depth, size, numbers, text. Asked before anything is read.

Promises: iterative and linear, so that it can be asked of anything; names the first place of each kind of trouble.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Final

from app.domain.faults import Fault
from app.domain.outcomes import JSON
from app.domain.schemas import escape

DEPTH: Final = 64
NODES: Final = 200_000
"""A definition of a mebibyte has fewer values; a small text with aliases can have any number."""
DIGITS: Final = 1000
"""Longest whole number: beyond 4,300 digits Python refuses to print one, and jsonb has its own bounds."""

_LARGEST: Final = 10**DIGITS
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")


def shape_faults(document: JSON, *, size_limit: int) -> list[Fault]:
    """Empty if the document is JSON of at most 64 levels and `size_limit` bytes, with text that can be stored."""
    faults = list(_walk(document))
    if faults:
        return faults
    size = len(json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode("utf-8"))
    if size > size_limit:
        detail = f"The definition has {size} bytes; {size_limit} are allowed."
        return [_fault("too_large", "", detail, "Pass large data as input, or let a tool read it.")]
    return []


def _walk(document: JSON) -> Iterator[Fault]:
    pending: list[tuple[JSON, str, int]] = [(document, "", 1)]
    nodes = 0
    while pending:
        value, pointer, depth = pending.pop()
        nodes += 1
        if depth > DEPTH:
            yield _fault("too_deep", pointer, f"The definition has more than {DEPTH} levels.", "Nest less.")
            return
        if nodes > NODES:
            yield _fault("too_large", "", f"The definition has more than {NODES} values.", "Pass large data as input.")
            return
        if isinstance(value, str):
            if _UNSTORABLE.search(value):
                yield _text_fault(pointer)
        elif isinstance(value, dict):
            for key, inner in value.items():
                if not isinstance(key, str) or _UNSTORABLE.search(key):
                    yield _text_fault(pointer)
                    return
                pending.append((inner, f"{pointer}/{escape(key)}", depth + 1))
        elif isinstance(value, list):
            pending.extend((inner, f"{pointer}/{index}", depth + 1) for index, inner in enumerate(value))
        elif isinstance(value, float) and not math.isfinite(value):
            yield _fault("not_json", pointer, "NaN and Infinity are not JSON.", "Write null or a number.")
        elif isinstance(value, int) and not -_LARGEST < value < _LARGEST:
            yield _fault("not_json", pointer, f"The number has more than {DIGITS} digits.", "Write it as text.")
        elif value is not None and not isinstance(value, int | float):
            yield _fault("not_json", pointer, f"A {type(value).__name__} is not JSON.", "Write text or a number.")


def _text_fault(pointer: str) -> Fault:
    return _fault("not_json", pointer, "The text has a NUL or half a character in it.", "Remove that character.")


def _fault(code: str, pointer: str, detail: str, fix: str) -> Fault:
    return Fault(code=code, pointer=pointer, detail=detail, fix=fix)
