"""Validation errors of pydantic, told as our faults: where, what, and what to do. Unknown names get a suggestion."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from app.domain.faults import Fault

_SHOWN: Final = 80
"""Characters of a wrong value that a message repeats."""


def faults_of(errors: Iterable[Mapping[str, Any]], *, known: Sequence[str] = ()) -> list[Fault]:
    """`errors` as `ValidationError.errors()` lists them; `known` are the field names a misspelt one may have meant."""
    return [_fault(error, known=known) for error in errors]


def pointer(parts: Iterable[str | int]) -> str:
    """RFC 6901."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def unknown_field(place: str, name: str, *, known: Sequence[str]) -> Fault:
    """`place` is a pointer, or `?name`."""
    near = difflib.get_close_matches(name, known, n=1)
    fix = f"Did you mean {near[0]}?" if near else f"Leave it out; known are: {', '.join(known) or 'none'}."
    return Fault(code="unknown_field", pointer=place, detail=f"{_shown(name)} is not known here.", fix=fix)


def _fault(error: Mapping[str, Any], *, known: Sequence[str]) -> Fault:
    place, name = _place(error["loc"])
    kind = error["type"]
    if kind == "extra_forbidden":
        return unknown_field(place, name, known=known)
    if kind == "missing":
        return Fault(code="missing_field", pointer=place, detail=f"{name} is missing.", fix=f"Send {name}.")
    message = error["msg"].removeprefix("Value error, ").rstrip(".")
    shown = _shown(error.get("input"))
    return Fault(
        code="invalid_value",
        pointer=place,
        detail=f"{name}: {message}." if shown in message else f"{name}: {message}, not {shown}.",
        fix=f"Correct {name}.",
    )


def _place(loc: Sequence[str | int]) -> tuple[str, str]:
    """(pointer, name): a parameter is `?name`, a path or header its own name, the rest points into the body."""
    parts = list(loc)
    if parts and parts[0] == "query":
        name = ".".join(str(part) for part in parts[1:2])
        return f"?{name}", name
    if parts and parts[0] in ("path", "header", "cookie"):
        name = ".".join(str(part) for part in parts[1:])
        return name, name
    if parts and isinstance(parts[-1], int):  # an item is called after its list: events.0
        return pointer(parts), ".".join(str(part) for part in parts[-2:])
    return pointer(parts), str(parts[-1]) if parts else "the body"


def _shown(value: object) -> str:
    text = ascii(value) if isinstance(value, str | int | float | bool | None) else f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
