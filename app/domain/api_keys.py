"""API keys: how one is made, read and recognised. Pure: the caller brings the randomness.

`sf_<env>_<public id>_<secret><checksum>`, for example `sf_local_5fK2mWq09aB_Qx…`. The prefix lets secret scanners
find a leaked key, the public id names the key in the log and is how its row is found, the checksum tells a mistyped
key from an unknown one without a query. Only the SHA-256 of the whole text is stored: a secret of 256 random bits
needs no slow hash.

Never here: looking a key up, its scopes, its expiry (`app/api/authentication.py`).
"""

from __future__ import annotations

import hashlib
import hmac
import re
import zlib
from typing import Final, NamedTuple

PUBLIC_ID_BYTES: Final = 8
SECRET_BYTES: Final = 32
RANDOM_BYTES: Final = PUBLIC_ID_BYTES + SECRET_BYTES
"""What `new_key` wants: 64 bits that name the key, 256 bits that nobody guesses."""

SCOPES: Final = ("submit", "read", "operate", "approve", "admin")
"""`admin` includes the others (`allows`)."""

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_PUBLIC_ID_LENGTH: Final = 11
"""62^11 > 2^64."""
_SECRET_LENGTH: Final = 43
"""62^43 > 2^256."""
_CHECKSUM_LENGTH: Final = 6
"""62^6 > 2^32, a CRC-32."""
_SHAPE: Final = re.compile(
    rf"sf_(?P<env>[a-z][a-z0-9]{{0,15}})_(?P<public_id>[0-9A-Za-z]{{{_PUBLIC_ID_LENGTH}}})"
    rf"_[0-9A-Za-z]{{{_SECRET_LENGTH}}}(?P<checksum>[0-9A-Za-z]{{{_CHECKSUM_LENGTH}}})",
    re.ASCII,
)


class MalformedKey(ValueError):
    """The text is not a key of ours: wrong shape or wrong checksum."""


class NewKey(NamedTuple):
    text: str
    """Shown once, stored nowhere."""
    public_id: str
    sha256: bytes


class ParsedKey(NamedTuple):
    env: str
    public_id: str
    sha256: bytes


def new_key(env: str, random_bytes: bytes) -> NewKey:
    """A key for `env` (lower-case letters and digits, as `local`) from `RANDOM_BYTES` random bytes."""
    if len(random_bytes) != RANDOM_BYTES:
        raise ValueError(f"a key is made of {RANDOM_BYTES} random bytes")
    public_id = _base62(int.from_bytes(random_bytes[:PUBLIC_ID_BYTES]), _PUBLIC_ID_LENGTH)
    secret = _base62(int.from_bytes(random_bytes[PUBLIC_ID_BYTES:]), _SECRET_LENGTH)
    body = f"sf_{env}_{public_id}_{secret}"
    text = body + _checksum(body)
    if _SHAPE.fullmatch(text) is None:
        raise ValueError(f"{env!r} is not a name of an environment: lower-case letters and digits, at most 16")
    return NewKey(text=text, public_id=public_id, sha256=_sha256(text))


def parse(text: str) -> ParsedKey:
    """Raises `MalformedKey` (whose message never contains the text)."""
    found = _SHAPE.fullmatch(text)
    if found is None:
        raise MalformedKey("not of the form sf_<env>_<id>_<secret>")
    if _checksum(text[:-_CHECKSUM_LENGTH]) != found["checksum"]:
        raise MalformedKey("the checksum does not fit: a character is missing or mistyped")
    return ParsedKey(env=found["env"], public_id=found["public_id"], sha256=_sha256(text))


def same_secret(left: bytes, right: bytes) -> bool:
    """Compares two SHA-256 in constant time."""
    return hmac.compare_digest(left, right)


def allows(scopes: frozenset[str], wanted: str) -> bool:
    return wanted in scopes or "admin" in scopes


def _sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode("ascii")).digest()


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode("ascii", "replace")), _CHECKSUM_LENGTH)


def _base62(number: int, length: int) -> str:
    letters = []
    for _ in range(length):
        number, rest = divmod(number, 62)
        letters.append(_ALPHABET[rest])
    return "".join(reversed(letters))
