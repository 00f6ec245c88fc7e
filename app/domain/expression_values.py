"""Values on their way between JSON and CEL: measured going in, written out and counted coming back.

Promises: what CEL would change without a word (text after a NUL, numbers beyond 64 bits) is refused; what comes back
is plain JSON (instants as RFC 3339, durations as seconds, bytes as base64), maps sorted, never larger than the bound.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from app.domain.expression_errors import ExpressionError
from app.domain.outcomes import JSON

HANDED_OVER: Final = 8 * 1024 * 1024
"""Most bytes (an element counts 16) of the values that one evaluation converts for CEL."""
RESULT_NODES: Final = 200_000
"""Most elements of a result: CEL shares what it repeats, JSON does not."""
_NODE_COST: Final = 16
_INT64: Final = 2**63


def measure(value: JSON) -> tuple[int, int]:
    """(bytes, longest list) of a value on its way into CEL; refuses what CEL would change without a word."""
    if value is None or value is True or value is False:
        return _NODE_COST, 0
    size = longest = 0
    pending = [value]
    while pending:
        node = pending.pop()
        size += _NODE_COST
        if size > HANDED_OVER:
            return size, longest
        if isinstance(node, str):
            size += len(node)
            _refuse_text(node)
        elif isinstance(node, dict):
            for key in node:
                size += len(key)
                _refuse_text(key)
            pending.extend(node.values())
        elif isinstance(node, list):
            longest = max(longest, len(node))
            pending.extend(node)
        elif isinstance(node, int) and not -_INT64 <= node < _INT64:
            fix = "Pass such a number on whole (`${{ … }}` with nothing else), or as text."
            raise ExpressionError("A number it reads does not fit into 64 bits.", fix)
    return size, longest


def _refuse_text(text: str) -> None:
    # The library ends text at a NUL and fails on half a surrogate pair; `isascii` keeps the common case cheap.
    if "\x00" in text or (not text.isascii() and re.search("[\ud800-\udfff]", text)):
        fix = "Pass such text on whole (`${{ … }}` with nothing else)."
        raise ExpressionError("A text it reads has a NUL or half a character in it.", fix)


def result_json(value: Any, left: list[int]) -> JSON:
    """A CEL value as JSON, element by element: what CEL shares between places is written out, so it is counted."""
    kind = value.type().name()
    left[0] -= 1
    if left[0] < 0:
        raise ExpressionError(f"Its result has more than {RESULT_NODES} elements.", "Let a tool do it.")
    if kind.startswith("LIST"):
        return [result_json(item, left) for item in value.value()]
    if kind.startswith("MAP"):
        # CEL's maps have no order; sorted, the same values give the same bytes each time.
        items = sorted(((_key(key), item) for key, item in value.value().items()), key=_first)
        return {key: result_json(item, left) for key, item in items}
    return from_python(value.plain_value(), left)


def _first(pair: tuple[str, Any]) -> str:
    return pair[0]


def _key(key: Any) -> str:
    if isinstance(key, str):
        return key
    return json.dumps(key) if isinstance(key, bool | int) else str(key)


def from_python(value: Any, left: list[int]) -> JSON:
    """What the library made of a CEL value → plain JSON."""
    left[0] -= 1
    if left[0] < 0:
        raise ExpressionError(f"Its result has more than {RESULT_NODES} elements.", "Let a tool do it.")
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        raise ExpressionError("Its result is not a number (infinite, or 0 / 0).", "Test the divisor first.")
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return f"{value.total_seconds():.6f}".rstrip("0").rstrip(".") + "s"
    if isinstance(value, list):
        return [from_python(item, left) for item in value]
    if isinstance(value, Mapping):
        return {_key(key): from_python(value[key], left) for key in sorted(value, key=_key)}
    raise ExpressionError(f"Its result is a {type(value).__name__}, which is not JSON.", "Give text or a number.")
