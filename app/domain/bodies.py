"""Bytes from outside, made into JSON values that can be stored, or said no to, without ever raising.

`read_body` reads what a tool answered: a value, or an *opaque* value that says why it is none. `parse_strict_json`
reads what a client sent: a value, or every fault with its JSON Pointer. `hygiene` lists what of a value Postgres's
jsonb, or a reader of ours, could not hold. A success must never become a doubt because a reply was odd, so none of
these raises, recurses by the depth of its input, or takes more than linear time. Nothing here repairs a value.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from app.domain.faults import Fault
from app.domain.outcomes import JSON

MAX_DEPTH: Final = 64
"""Levels of arrays and objects. More is no data but an attack on recursive readers."""

MAX_DIGITS: Final = 1000
"""Digits of an integer. jsonb holds 131,072, but Python refuses to print more than 4,300 and JavaScript loses 17."""

_MAX_FAULTS: Final = 50
"""Enough to mend a body by; a hostile one is not worth a longer answer."""

_ODD_TEXT: Final = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])|\x00")
"""Only these spellings can put a NUL or a surrogate into a parsed string."""

_ODD_NUMBER: Final = re.compile(rb"[0-9]{200}|[eE][+-]?[0-9]{3}|NaN|Infinity")
"""Only numbers spelled like this can be beyond a double or too long; a match inside a string merely costs a walk."""

_BINARY: Final = re.compile(
    r"(?:image|audio|video|font)/|application/(?:octet-stream|pdf|zip|gzip|x-tar|wasm|protobuf)"
)
"""Media types that are never text, even if their bytes happen to be valid UTF-8."""

_UNDECLARED: Final = "undeclared"


@dataclass(frozen=True, kw_only=True, slots=True)
class Parsed:
    """What a client's body came to. `value` means something only without `malformed` and `faults`."""

    value: JSON = None
    malformed: str | None = None
    """Why it is no JSON at all, with line and column: a 400."""
    faults: tuple[Fault, ...] = ()
    """What is wrong with well-formed JSON, with pointers: a 422."""


def read_body(body: bytes, media_type: str | None, *, truncated: bool) -> JSON:
    """The value of a reply: parsed JSON, text, null if empty, else an opaque value naming the reason."""
    if truncated:
        return opaque(body, media_type, reason="the answer was cut before its end")
    if not body:
        return None
    essence, charset = _media_type(media_type)
    if essence == _UNDECLARED:
        # RFC 9110 §8.3: without a Content-Type the recipient may examine the data.
        value, reason = _json(body)
        return value if reason is None else _text(body, media_type, charset)
    if _is_json(essence):
        value, reason = _json(body)
        return value if reason is None else opaque(body, media_type, reason=reason)
    if _BINARY.match(essence):
        return opaque(body, media_type, reason="not text")
    return _text(body, media_type, charset)


def opaque(body: bytes, media_type: str | None, *, reason: str) -> dict[str, JSON]:
    """The stand-in for bytes that cannot be a value; the bytes themselves stay as evidence."""
    return {
        "opaque": True,
        "reason": reason,
        "media_type": None if media_type is None else storable_text(media_type, limit=200),
        "bytes": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
    }


def storable_text(text: str, *, limit: int) -> str:
    """At most `limit` characters, control characters and lone surrogates replaced: for excerpts shown to people."""
    return "".join(
        letter if letter in "\n\t" or (letter.isprintable() and not "\ud800" <= letter <= "\udfff") else "\ufffd"
        for letter in text[:limit]
    )


def hygiene(value: JSON) -> list[tuple[str, str]]:
    """Every place of a value that cannot be stored: (JSON Pointer, reason), at most 50."""
    found: list[tuple[str, str]] = []
    for place in _places(value):
        found.append(place)
        if len(found) == _MAX_FAULTS:
            break
    return found


def parse_strict_json(body: bytes) -> Parsed:
    """One JSON text of a client, read strictly: UTF-8, no duplicate keys, nothing that `hygiene` would name."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        return Parsed(malformed=f"not UTF-8 at byte {error.start}")
    text = text.removeprefix("\ufeff")
    try:
        value = _loads_strictly(text)
    except json.JSONDecodeError as error:
        return Parsed(malformed=f"{error.msg} at line {error.lineno}, column {error.colno}")
    except RecursionError:
        return Parsed(faults=(_fault("", f"nested deeper than {MAX_DEPTH} levels"),))
    faults = tuple(_fault(pointer, reason) for pointer, reason in hygiene(value))
    return Parsed(faults=faults) if faults else Parsed(value=value)


def _loads_strictly(text: str) -> JSON:
    try:
        return json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError:
        raise
    except ValueError:
        # An integer of more digits than Python converts. A hook for every integer is slow, so only now.
        return json.loads(text, object_pairs_hook=_object, parse_int=_integer)


# --- reading -------------------------------------------------------------------------------------------------------


def _media_type(header: str | None) -> tuple[str, str]:
    """(essence, charset), both lower case; the charset of RFC 9110 §8.3.2 is utf-8 unless declared otherwise."""
    if header is None or not header.strip():
        return _UNDECLARED, "utf-8"
    essence, *parameters = header.split(";")
    charset = "utf-8"
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            charset = value.strip().strip('"').lower()
    return essence.strip().lower(), charset


def _is_json(essence: str) -> bool:
    """RFC 8259 §11 and the `+json` suffix of RFC 6839 §3.1."""
    return essence in ("application/json", "text/json") or essence.endswith("+json")


def _json(body: bytes) -> tuple[JSON, str | None]:
    """(value, None) or (None, why it is not one)."""
    try:
        value = json.loads(body.decode("utf-8").removeprefix("\ufeff"))
    except UnicodeDecodeError as error:
        return None, f"not UTF-8 at byte {error.start}"
    except json.JSONDecodeError as error:
        return None, f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
    except RecursionError:
        return None, f"nested deeper than {MAX_DEPTH} levels"
    except ValueError:
        # The one other ValueError of json.loads: an integer of more digits than Python converts.
        return None, f"an integer of more than {MAX_DIGITS} digits"
    if _ODD_TEXT.search(body) or _ODD_NUMBER.search(body):
        place = next(_places(value), None)
        if place is not None:
            return None, f"{place[1]} at {place[0] or 'the top'}"
    elif _too_deep(value):
        return None, f"nested deeper than {MAX_DEPTH} levels"
    return value, None


def _text(body: bytes, media_type: str | None, charset: str) -> JSON:
    try:
        text = body.decode(charset)
    except UnicodeDecodeError as error:
        return opaque(body, media_type, reason=f"not {charset} at byte {error.start}")
    except (LookupError, ValueError):
        return opaque(body, media_type, reason="its charset is not known")
    reason = _text_reason(text)
    return text if reason is None else opaque(body, media_type, reason=reason)


def _too_deep(value: JSON) -> bool:
    """Level by level, so that the depth of the value is never the depth of our stack."""
    level = [value]
    for _ in range(MAX_DEPTH):
        deeper: list[JSON] = []
        for container in level:
            if isinstance(container, dict):
                deeper.extend(container.values())
            elif isinstance(container, list):
                deeper.extend(container)
        level = [child for child in deeper if isinstance(child, (dict, list))]
        if not level:
            return False
    return True


# --- judging values ------------------------------------------------------------------------------------------------


class _Flawed(dict[str, JSON]):
    """An object whose text named a key twice; kept only until the fault has its pointer."""

    doubled: str


class _LongInteger:
    """Stands for an integer that was not converted: converting takes quadratic time."""


def _object(pairs: list[tuple[str, JSON]]) -> dict[str, JSON]:
    value = dict(pairs)
    if len(value) == len(pairs):
        return value
    flawed = _Flawed(value)
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            flawed.doubled = key
            break
        seen.add(key)
    return flawed


def _integer(literal: str) -> int | _LongInteger:
    return int(literal) if len(literal.lstrip("-")) <= MAX_DIGITS else _LongInteger()


_TOO_LONG: Final = 10**MAX_DIGITS


def _places(value: JSON) -> Iterator[tuple[str, str]]:
    """Faults, outer ones first. A pointer is a linked list until it is needed: most values have no fault."""
    if not isinstance(value, (dict, list)):
        reason = _scalar_reason(value)
        if reason is not None:
            yield "", reason
        return
    stack: list[tuple[dict[str, JSON] | list[JSON], _Path | None, int]] = [(value, None, 1)]
    while stack:
        container, path, depth = stack.pop()
        if depth > MAX_DEPTH:
            yield _pointer(path), f"nested deeper than {MAX_DEPTH} levels"
            continue
        if isinstance(container, dict):
            yield from _key_faults(container, path)
        deeper: list[tuple[dict[str, JSON] | list[JSON], _Path | None, int]] = []
        for key, child in container.items() if isinstance(container, dict) else enumerate(container):
            if isinstance(child, (dict, list)):
                deeper.append((child, _Path(path, key), depth + 1))
            elif (reason := _scalar_reason(child)) is not None:
                yield _pointer(_Path(path, key)), reason
        stack.extend(reversed(deeper))


class _Path:
    __slots__ = ("key", "parent")

    def __init__(self, parent: _Path | None, key: str | int) -> None:
        self.parent = parent
        self.key = key


def _pointer(path: _Path | None) -> str:
    """RFC 6901. What cannot be printed in a key is shown as U+FFFD, so that the pointer itself can be sent."""
    parts: list[str] = []
    while path is not None:
        key = storable_text(str(path.key), limit=200)
        parts.append("/" + key.replace("~", "~0").replace("/", "~1"))
        path = path.parent
    return "".join(reversed(parts))


def _key_faults(item: Mapping[Any, JSON], path: _Path | None) -> Iterator[tuple[str, str]]:
    if isinstance(item, _Flawed):
        yield _pointer(_Path(path, item.doubled)), "the key is there twice"
    for key in item:
        if not isinstance(key, str):
            yield _pointer(_Path(path, str(key))), "the key is not text"
        elif (reason := _text_reason(key)) is not None:
            yield _pointer(_Path(path, key)), f"the key holds {reason}"


def _text_reason(text: str) -> str | None:
    if "\x00" in text:
        return "a NUL character"
    if text.isascii():
        return None
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "a lone surrogate"
    return None


def _scalar_reason(item: JSON) -> str | None:
    if isinstance(item, str):
        return _text_reason(item)
    if item is None or isinstance(item, bool):
        return None
    if isinstance(item, int):
        return None if -_TOO_LONG < item < _TOO_LONG else f"an integer of more than {MAX_DIGITS} digits"
    if isinstance(item, float):
        return None if math.isfinite(item) else "a number that is not finite or too large"
    if isinstance(item, _LongInteger):
        return f"an integer of more than {MAX_DIGITS} digits"
    return "not a JSON value"


def _fault(pointer: str, reason: str) -> Fault:
    return Fault(code="invalid_value", detail=f"{reason[:1].upper()}{reason[1:]}.", fix=_fix(reason), pointer=pointer)


def _fix(reason: str) -> str:
    if "twice" in reason:
        return "Name each key of an object once."
    if "digits" in reason or "finite" in reason:
        return "Send it as a string."
    if "nested" in reason:
        return f"Nest at most {MAX_DEPTH} levels."
    return "Leave that character out."
