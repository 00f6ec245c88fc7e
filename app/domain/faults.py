"""A fault: one thing wrong at one place of a document or a body, with what to do about it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """`pointer` is an RFC 6901 JSON Pointer; `line` counts from 1 where the source was text."""

    code: str
    detail: str
    fix: str
    pointer: str = ""
    line: int | None = None
