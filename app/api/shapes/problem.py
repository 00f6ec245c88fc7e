"""A problem (RFC 9457): what went wrong, where, and what to do about it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from app.api.shapes.values import Shape


class ProblemFault(Shape):
    """One thing wrong at one place: `pointer` is a JSON Pointer into the body, or `?name` for a query parameter."""

    code: str
    pointer: str
    line: int | None
    detail: str
    fix: str


class Problem(BaseModel):
    """Some codes add members: `possible`, `not_before`, …"""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    fix: str
    retryable: bool
    """True if the same request may succeed later."""
    errors: list[ProblemFault]
    request_id: str
    trace_id: str
