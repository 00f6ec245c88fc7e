"""What the world answered, as values: `Failure`, `Evidence`, `Outcome`.

A port returns an `Outcome` and never raises for what the world does; foreign exceptions stop there. The outcome says
how certain we are (`app/domain/states.py::AttemptOutcome`), carries the bytes that arrived, and never a parsed
result: what the bytes mean is read by `app/domain/bodies.py` in the decision, so that evidence committed without its
decision can be decided later from the row alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from app.domain.quotas import Allowances
from app.domain.states import AttemptOutcome, FailureKind

JSON = Any
"""A JSON value: None, bool, int, float, str, list, dict with string keys."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """One failure, in words people can act on."""

    kind: FailureKind
    message: str
    """One sentence, what happened, with the number that matters. No secrets, no payloads."""
    fix: str | None = None
    """What to do, in the imperative."""
    status_code: int | None = None
    retry_after: timedelta | None = None
    """How long the other side asked us to wait."""
    detail: Mapping[str, JSON] = field(default_factory=dict)
    """Machine-readable extras: `errors` of a schema check, the provider's request id."""

    def to_json(self) -> dict[str, JSON]:
        return {
            "kind": self.kind.value,
            "message": _storable(self.message),
            "fix": self.fix,
            "status_code": self.status_code,
            "retry_after_ms": None if self.retry_after is None else int(self.retry_after.total_seconds() * 1000),
            "detail": dict(self.detail),
        }

    @staticmethod
    def from_json(value: Mapping[str, JSON]) -> Failure:
        wait = value.get("retry_after_ms")
        return Failure(
            kind=FailureKind(value["kind"]),
            message=value["message"],
            fix=value.get("fix"),
            status_code=value.get("status_code"),
            retry_after=None if wait is None else timedelta(milliseconds=wait),
            detail=value.get("detail") or {},
        )


def _storable(text: str) -> str:
    """Words of the world may hold what Postgres cannot: NUL, half a surrogate pair."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """The bytes the world sent, as they arrived (secrets masked), before anything is parsed."""

    body: bytes
    media_type: str | None = None
    truncated: bool = False
    """True if the body was cut at the cap; then it is opaque."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """Tokens of one model attempt, as the provider counts them (input exclusive of cache), and what they cost."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    model: str | None = None
    cost_microusd: int | None = None
    """None if the price is unknown: shown as unknown, never as zero."""
    price_version: str | None = None

    def to_json(self) -> dict[str, JSON]:
        return {
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cache_read_tokens": self.cache_read_tokens,
            "cache_write_tokens": self.cache_write_tokens,
            "model": self.model,
            "price_version": self.price_version,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What one attempt came to. Times are seconds after `perform` began, None if it never came to that."""

    certainty: AttemptOutcome
    failure: Failure | None = None
    """None exactly if succeeded."""
    evidence: Evidence | None = None
    status_code: int | None = None
    sent_after: float | None = None
    received_after: float | None = None
    usage: Usage | None = None
    request_id: str | None = None
    """The provider's own id of the request, for their support."""
    pending: bool = False
    """The tool has taken the request on (202) and will tell its result later; until then the outcome is unknown. The
    failure's `detail["pending"]` says the same in the stored row."""
    limits: Allowances | None = None
    """What the answer said about the provider's rate limits; not stored with the attempt."""

    def __post_init__(self) -> None:
        if (self.failure is None) != (self.certainty is AttemptOutcome.SUCCEEDED):
            raise ValueError("an outcome carries a failure unless it succeeded")
        if self.pending and self.certainty is not AttemptOutcome.UNKNOWN:
            raise ValueError("an outcome whose result is waited for is unknown until then")
