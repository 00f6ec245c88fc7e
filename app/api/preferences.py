"""Headers that say how to answer: `Prefer: wait=N` (RFC 7240), `If-None-Match` (RFC 9110 §13.1.2)."""

from __future__ import annotations

from typing import Final

from starlette.datastructures import Headers

LONGEST_WAIT: Final = 60
"""Seconds a request is held at most: below the idle timeout of common proxies."""


def wait_seconds(headers: Headers) -> int | None:
    """The `wait` preference, capped; None if absent. What cannot be read is ignored, as RFC 7240 §2 asks."""
    for header in headers.getlist("prefer"):
        for preference in header.split(","):
            name, _, value = preference.partition(";")[0].partition("=")
            value = value.strip().strip('"')
            if name.strip().lower() == "wait" and value.isascii() and value.isdecimal():
                return min(int(value[:9]), LONGEST_WAIT)
    return None


def known_etag(headers: Headers, etag: str) -> bool:
    """True if If-None-Match names this entity tag (or `*`): the client has it already. Compared weakly."""
    for header in headers.getlist("if-none-match"):
        for candidate in header.split(","):
            tag = candidate.strip().removeprefix("W/")
            if tag in ("*", etag):
                return True
    return False
