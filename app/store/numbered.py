"""Long statements, sent with numbered parameters (`$1`): the driver does not look for names in them each time.

psycopg remembers what it made of a statement's `%(name)s` only up to 4,096 characters; the longest of the hot path are
beyond that, and were taken apart anew for each batch (measured: 2 % of a worker).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any, Final

import psycopg

_PLACE: Final = re.compile(r"%(?:\((\w+)\)s|%)")


@functools.lru_cache(maxsize=512)
def numbered(query: str) -> tuple[bytes, tuple[str, ...]]:
    """The statement with `$1` … for its `%(name)s`, and their names in that order; `%%` is one per cent sign."""
    names: dict[str, int] = {}

    def place(found: re.Match[str]) -> str:
        name = found.group(1)
        return "%" if name is None else f"${names.setdefault(name, len(names) + 1)}"

    return _PLACE.sub(place, query).encode(), tuple(names)


async def execute(
    connection: psycopg.AsyncConnection[dict[str, Any]], query: str, values: Mapping[str, Any]
) -> psycopg.AsyncRawCursor[dict[str, Any]]:
    """As `connection.execute(query, values)`."""
    text, names = numbered(query)
    cursor = psycopg.AsyncRawCursor(connection, row_factory=connection.row_factory)
    await cursor.execute(text, [values[name] for name in names])
    return cursor
