"""What an operator reads: workers, the signing secret, health, version."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from app.api.shapes.values import Shape
from app.domain import ids

Row = Mapping[str, Any]


class Worker(Shape):
    """One incarnation of a worker process."""

    id: str
    name: str
    state: Literal["alive", "silent", "lost", "stopped"]
    """`silent`: its lease is over and nobody has judged it yet."""
    host: str
    pid: int
    slots: int
    engine_version: int
    started_at: datetime
    beat_at: datetime
    lease_until: datetime
    lost_at: datetime | None
    stopped_at: datetime | None


class SigningSecret(Shape):
    secret: str
    """The one that signs; `whsec_` and base64."""
    secrets: list[str]
    """All that are valid now: two while rotating, newest first."""


class Live(Shape):
    status: Literal["ok"]


class Ready(Shape):
    status: Literal["ready", "degraded", "unavailable"]
    database: Literal["ok", "restored", "unreachable", "not_migrated"]
    """`restored`: effects wait for `surefoot recover`."""
    redis: Literal["ok", "away"]
    """`away` only slows things down: the sweep finds what is due."""
    detail: str
    attention: list[str]
    """A restored or weakly durable database, one sentence each: ready all the same, and somebody should know."""


class Version(Shape):
    name: str
    version: str
    engine_version: int
    migration: str


def worker_shape(row: Row) -> Worker:
    return Worker(
        id=ids.encode("wkr", row["id"]),
        name=row["name"],
        state=_state(row),
        host=row["host"],
        pid=row["pid"],
        slots=row["slots"],
        engine_version=row["engine_version"],
        started_at=row["started_at"],
        beat_at=row["beat_at"],
        lease_until=row["lease_until"],
        lost_at=row["lost_at"],
        stopped_at=row["stopped_at"],
    )


def _state(row: Row) -> Literal["alive", "silent", "lost", "stopped"]:
    if row["lost_at"] is not None:
        return "lost"
    if row["stopped_at"] is not None:
        return "stopped"
    return "alive" if row["alive"] else "silent"
