"""Identifiers as people see them: a prefix and 26 characters, sortable by time, `wf_01K…`.

Inside the engine and the database an id is a `uuid.UUID` (version 7). Outside it is that number in Crockford's
base 32 behind a prefix that says what it names. `encode` and `decode` are the only two doors.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

Prefix = Literal["wf", "call", "evt", "apr", "whe", "whd", "key", "att", "wkr", "req"]

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_VALUES: Final = {letter: value for value, letter in enumerate(_ALPHABET)}
_LENGTH: Final = 26
"""26 characters of 5 bits hold the 128 bits of a UUID; the first character is at most `7`."""

DEFAULT_TENANT: Final = UUID("00000000-0000-7000-8000-000000000001")
"""The one tenant of this version. Every table carries its id from the first migration."""


class MalformedId(ValueError):
    """The text is not an id with that prefix."""


def encode(prefix: Prefix, value: UUID) -> str:
    """`wf`, uuid → `wf_01K…` (26 characters of Crockford base 32, so that text order is time order)."""
    number = value.int
    letters = []
    for _ in range(_LENGTH):
        letters.append(_ALPHABET[number & 31])
        number >>= 5
    return f"{prefix}_{''.join(reversed(letters))}"


def decode(prefix: Prefix, text: str) -> UUID:
    """The inverse of `encode`. Raises `MalformedId` for another prefix, length or alphabet."""
    head, _, letters = text.partition("_")
    if head != prefix or len(letters) != _LENGTH:
        raise MalformedId(text)
    number = 0
    for letter in letters.upper():
        value = _VALUES.get(letter)
        if value is None:
            raise MalformedId(text)
        number = number << 5 | value
    if number >> 128:
        raise MalformedId(text)
    return UUID(int=number)


def derived(*parts: str) -> UUID:
    """An id that follows from its parts: the same parts give the same id in every process.

    For rows whose identity is their content (an event of a workflow's seq, the due of a step's timeout), so that
    deciding stays pure: nothing random is drawn. Shaped as a version 8 UUID (RFC 9562 §5.8).
    """
    digest = bytearray(hashlib.sha256("\x1f".join(parts).encode("utf-8", "surrogatepass")).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x80
    digest[8] = digest[8] & 0x3F | 0x80
    return UUID(bytes=bytes(digest))


def timed(at: datetime, *parts: str) -> UUID:
    """Like `derived`, but sortable by time: the layout of version 7 (RFC 9562 §5.7), its random bits from the parts."""
    value = int(at.timestamp() * 1000) << 80 | derived(*parts).int & (1 << 80) - 1
    value = value & ~(0xF << 76) | 0x7 << 76
    return UUID(int=value & ~(0x3 << 62) | 0x2 << 62)


def floor(at: datetime) -> UUID:
    """Not above any version 7 id made at that instant or later."""
    return UUID(int=max(0, int(at.timestamp() * 1000)) << 80)
