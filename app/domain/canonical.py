"""One value, one text: canonical JSON and digests, so that equal things are found equal.

Promises: the same value gives the same bytes in every process and version. Keys are sorted by code point, there is no
white space, numbers keep the literal Python gives them (`1` and `1.0` differ, as they do in the request that was
sent), text is UTF-8. Lone surrogates are encoded, not refused: a digest must never fail on what the world sent.
Never: parses, validates or normalises (NFC, number forms) anything.
"""

from __future__ import annotations

import hashlib
import json

from app.domain.outcomes import JSON


def canonical_json(value: JSON) -> bytes:
    """Sorted keys, no spaces, UTF-8. The value's depth must have been bounded before (64 levels at every door)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass")


def sha256_hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def digest(value: JSON) -> str:
    """`sha256:…` of the canonical JSON: for values whose key order means nothing (arguments, schemas, bodies)."""
    return f"sha256:{sha256_hex(canonical_json(value))}"


def document_digest(document: JSON) -> str:
    """`sha256:…` that keeps key order: in a definition the order of `steps` is what people see and how it starts."""
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    return f"sha256:{sha256_hex(text.encode('utf-8', 'surrogatepass'))}"
