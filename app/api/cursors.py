"""Cursors: where a page ended, opaque to clients, good only for the list and the filters it came from."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from typing import Final
from uuid import UUID

from app.api.shapes.values import JSON
from app.domain.faults import Fault
from app.errors import InvalidValue

_LONGEST: Final = 1024


def encode(place: JSON, *, of: JSON) -> str:
    """`place` is JSON; `of` names the list and its filters."""
    text = json.dumps([_mark(of), place], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode(cursor: str, *, of: JSON) -> JSON:
    """Raises InvalidValue for anything that `encode` did not make for this list."""
    if len(cursor) <= _LONGEST and cursor.isascii():
        try:
            decoded = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        except (ValueError, binascii.Error, RecursionError):
            decoded = None
        if isinstance(decoded, list) and len(decoded) == 2 and decoded[0] == _mark(of):
            return decoded[1]
    raise _refused()


def decode_id(cursor: str | None, *, of: JSON) -> UUID | None:
    if cursor is None:
        return None
    try:
        return UUID(hex=str(decode(cursor, of=of)))
    except ValueError as not_ours:
        raise _refused() from not_ours


def _refused() -> InvalidValue:
    detail = "The cursor is not one that this list gave out with these filters."
    fault = Fault(code="invalid_value", pointer="?cursor", detail=detail, fix="Start again without a cursor.")
    return InvalidValue(detail, faults=[fault])


def _mark(of: JSON) -> str:
    return hashlib.sha256(json.dumps(of, sort_keys=True, default=str).encode()).hexdigest()[:12]
