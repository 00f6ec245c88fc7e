"""`/metrics`: what an operator's monitoring asks, in Prometheus's text format. Without a key, and of no tenant.

One read of the database serves everybody who asks within `KEPT` seconds, and only one runs at a time, so that a busy
scraper costs nothing. What could not be counted in time is left out, and `surefoot_checked` says 0: a wrong 0 would
be believed. `surefoot_orphans` is the checker of the first promise (`app/store/orphans.py`); which workflows they are
is in the log, not here.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Final, cast

import psycopg
import structlog
from fastapi import APIRouter, Query, Request
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import Response

from app.api.context import services_of
from app.api.query import NoQuery
from app.domain import ids
from app.domain.states import FINAL_STATUSES, DueKind, HeldReason, WorkflowStatus
from app.store import gauges, orphans, snapshots
from app.store.database import Database
from app.store.gauges import Gauges
from app.store.orphans import Orphans

router = APIRouter(tags=["health"])

KEPT: Final = 5.0
"""Seconds the gauges are kept: scrapers ask every 15 or so."""
ORPHANS_KEPT: Final = 30.0
"""Seconds the count of orphans is kept: it looks at every workflow that has not ended."""
PATIENCE: Final = orphans.LONGEST + 1.0
"""Seconds for all of one reading; a scraper gives up after ten."""

_log = structlog.get_logger(__name__)


class Readings:
    """The last numbers, and when they were read. One for each application."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._gauges: Gauges | None = None
        self._gauges_at = 0.0
        self._orphans: Orphans | None = None
        self._orphans_at: float | None = None

    async def text(self, database: Database) -> bytes:
        async with self._lock:
            now = asyncio.get_running_loop().time()
            if self._gauges is None or now - self._gauges_at >= KEPT:
                self._gauges = await _read(database)
                self._gauges_at = asyncio.get_running_loop().time()
            if self._gauges is None:
                self._orphans = None
            elif self._orphans_at is None or now - self._orphans_at >= ORPHANS_KEPT:
                self._orphans, self._orphans_at = await _count(database), now
            return render(self._gauges, self._orphans, age=asyncio.get_running_loop().time() - self._gauges_at)


@router.get(
    "/metrics",
    operation_id="metrics",
    summary="Numbers for monitoring",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus text."}},
)
async def get_metrics(request: Request, query: Annotated[NoQuery, Query()]) -> Response:
    """Also answers while the database is away: then `surefoot_checked` is 0 and the other numbers are left out."""
    body = await cast(Readings, request.app.state.readings).text(services_of(request).database)
    return Response(body, headers={"Content-Type": CONTENT_TYPE_LATEST, "Cache-Control": "no-store"})


def render(found: Gauges | None, wrong: Orphans | None, *, age: float) -> bytes:
    """`age`: seconds since the gauges were read, so that the database's time is told as of now."""
    registry = CollectorRegistry()
    checked = found is not None and wrong is not None
    _gauge(registry, "checked", "1: all numbers could be read; 0: some are missing.", 1 if checked else 0)
    if wrong is not None:
        _gauge(
            registry,
            "orphans",
            "Workflows that nothing would wake or whose rows disagree. Expected: 0.",
            wrong.workflows,
        )
    if found is None:
        return generate_latest(registry)
    statuses = Gauge("surefoot_workflows", "Workflows that have not ended.", ["status"], registry=registry)
    for status in WorkflowStatus:
        if status not in FINAL_STATUSES:
            statuses.labels(status.value).set(found.workflows.get(status.value, 0))
    dues = Gauge("surefoot_dues", "Rows that want attention at a time.", ["kind"], registry=registry)
    for kind in DueKind:
        dues.labels(kind.value).set(found.dues.get(kind.value, 0))
    _gauge(registry, "doubts", "Effects of which nobody knows whether they happened.", found.doubts)
    _gauge(registry, "oldest_doubt_seconds", "Age of the oldest of them; 0 without one.", found.oldest_doubt)
    _gauge(registry, "undos_failed", "Effects whose undo failed and that wait for an operator.", found.undos_failed)
    _gauge(registry, "backlog", "Calls that are due and not claimed.", found.backlog)
    _gauge(
        registry, "oldest_due_seconds", "For how long the oldest of them has been due; 0 without one.", found.oldest_due
    )
    held = Gauge("surefoot_calls_held", "Calls that are held, by what they wait for.", ["reason"], registry=registry)
    for reason in HeldReason:
        held.labels(reason.value).set(found.held.get(reason.value, 0))
    _gauge(registry, "breakers_open", "Tools, models and credentials that nothing is sent to.", found.breakers_open)
    _gauge(registry, "workers", "Worker processes that are alive.", found.workers)
    _gauge(registry, "database_time_seconds", "Unix time by the database's clock.", found.database_time + age)
    return generate_latest(registry)


def _gauge(registry: CollectorRegistry, name: str, says: str, value: float) -> None:
    Gauge(f"surefoot_{name}", says, registry=registry).set(value)


async def _read(database: Database) -> Gauges | None:
    try:
        async with asyncio.timeout(PATIENCE), database.reading() as connection:
            return await gauges.read(connection)
    except (SQLAlchemyError, psycopg.Error, TimeoutError, OSError) as error:
        _log.warning("numbers not read", error=type(error).__name__)
        return None


async def _count(database: Database) -> Orphans | None:
    try:
        async with asyncio.timeout(PATIENCE), snapshots.one_instant(database) as connection:
            found = await orphans.count(connection)
    except (SQLAlchemyError, psycopg.Error, TimeoutError, OSError) as error:
        _log.warning("orphans not counted", error=type(error).__name__)
        return None
    if found.workflows:
        _log.error(
            "orphans",
            unwoken=found.unwoken,
            disagreeing=found.disagreeing,
            left_over=found.left_over,
            workflows=[ids.encode("wf", workflow_id) for workflow_id in found.examples],
        )
    return found
