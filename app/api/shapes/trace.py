"""The trace's outline for OpenAPI; the spans themselves are made by `app/domain/trace.py`."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from app.api.shapes.values import JSON


class Span(BaseModel):
    """One bar of the picture; what a kind does not have is null. A call holds its attempts, and the probes and
    compensations that are about it (their `role` says which). A recovery record with `source: ledger` is something that
    was found out: a probe's or a person's verdict, another call's result taken, a duplicate prevented."""

    model_config = ConfigDict(extra="allow")

    id: str
    kind: Literal["workflow", "step", "call", "attempt"]
    name: str
    headline: str
    status: str
    started_at: datetime | None
    ended_at: datetime | None
    duration_ms: int | None
    cost_usd: str | None
    usage: JSON
    effect: str | None
    key: str | None
    recovery: list[JSON]
    role: Literal["probe", "compensation"] | None
    children: list[Span]


class Trace(BaseModel):
    model_config = ConfigDict(extra="allow")

    workflow: dict[str, JSON]
    spans: list[Span]
