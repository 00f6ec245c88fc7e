"""W3C Trace Context: reading and making a `traceparent`. Pure: the caller brings the randomness.

Read as the recommendation has it (Trace Context §3.2): lower-case hex, not all zeros, version ff is invalid, a
later version may carry more fields after the flags. What cannot be read is as if it were absent (§4.2).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

RANDOM_BYTES: Final = 24
"""16 for the trace, 8 for the span."""

_FORM: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class TraceParent:
    trace_id: str
    span_id: str
    flags: str

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"


def parse(text: str) -> TraceParent | None:
    found = _FORM.fullmatch(text.strip())
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more is not None):
        return None
    if not trace_id.strip("0") or not span_id.strip("0"):
        return None
    return TraceParent(trace_id=trace_id, span_id=span_id, flags=flags)


def new(random_bytes: bytes) -> TraceParent:
    """A trace of our own from `RANDOM_BYTES` random bytes, not sampled: nobody asked for it."""
    if len(random_bytes) != RANDOM_BYTES:
        raise ValueError(f"a traceparent is made of {RANDOM_BYTES} random bytes")
    return TraceParent(trace_id=random_bytes[:16].hex(), span_id=random_bytes[16:].hex(), flags="00")
