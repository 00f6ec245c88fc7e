"""`Idempotency-Key`: read, and the fingerprint of the request it stands for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from starlette.datastructures import Headers

from app.api.shapes.values import JSON
from app.domain.canonical import canonical_json, sha256_hex
from app.errors import IdempotencyKeyInvalid, IdempotencyKeyMissing

LONGEST: Final = 255
_PRINTABLE: Final = re.compile(r"[\x20-\x7e]+", re.ASCII)
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\["\\])*)"')
"""An sf-string (RFC 8941 §3.3.3)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fingerprint:
    """What a key is bound to. A hash per top-level field, so that a refusal can name what differs."""

    whole: str
    fields: Mapping[str, str]


def read_key(headers: Headers) -> str | None:
    """The key, bare or quoted; None if there is no header. Raises IdempotencyKeyInvalid."""
    found = headers.getlist("idempotency-key")
    if not found:
        return None
    if len(found) > 1:
        raise IdempotencyKeyInvalid("There are several Idempotency-Key headers.")
    key = found[0].strip()
    if key.startswith('"'):
        quoted = _QUOTED.fullmatch(key)
        if quoted is None:
            raise IdempotencyKeyInvalid("The quotes of the Idempotency-Key do not match.")
        key = re.sub(r"\\(.)", r"\1", quoted[1])
    if not key:
        raise IdempotencyKeyInvalid("The Idempotency-Key is empty.")
    if len(key) > LONGEST:
        raise IdempotencyKeyInvalid(f"The Idempotency-Key has {len(key)} characters; {LONGEST} is the limit.")
    if _PRINTABLE.fullmatch(key) is None:
        raise IdempotencyKeyInvalid("The Idempotency-Key has characters that are not printable ASCII.")
    return key


def required_key(headers: Headers) -> str:
    key = read_key(headers)
    if key is None:
        raise IdempotencyKeyMissing("The header Idempotency-Key is missing.")
    return key


def fingerprint(*, route: str, body: Mapping[str, JSON]) -> Fingerprint:
    """SHA-256 of method and route and the canonical JSON of the body (sorted keys, no spaces, numbers as written)."""
    fields = {name: canonical_json(part) for name, part in body.items()}
    # The canonical JSON of the body, made of that of its fields: a large definition is written once and not twice.
    whole = b",".join(canonical_json(name) + b":" + fields[name] for name in sorted(fields))
    return Fingerprint(
        whole=sha256_hex(route.encode() + b"\n{" + whole + b"}"),
        fields={name: sha256_hex(part) for name, part in fields.items()},
    )
