"""`/livez`, `/readyz`, `/version`: for machines, without a key.

Live means the loop turns: no I/O. Ready means Postgres answers and has the migrations this code needs; Redis away is
`degraded` and still ready, because the sweep finds what is due. So is a database that was restored: no effect is made
until `surefoot recover`, everything else goes on.
"""

from __future__ import annotations

import asyncio
from typing import Final

import psycopg
import structlog
from fastapi import APIRouter, Request
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import Response

from app.api import answering, version
from app.api.context import services_of
from app.api.shapes.administration import Live, Ready, Version
from app.domain.states import ENGINE_VERSION
from app.store import durability, identity, migrating

router = APIRouter(tags=["health"])

PATIENCE: Final = 3.0
"""Seconds the database has to answer a readiness probe: probes time out after five or so."""

RESTORED: Final = (
    "The database was restored, or another server took over: run `surefoot recover --since <the instant it was set "
    "back to>`, or `surefoot recover --nothing-lost`; docs/restore.md says which."
)

_log = structlog.get_logger(__name__)


@router.get("/livez", operation_id="livez", summary="Is the process alive?", response_model=Live)
async def livez(request: Request) -> Response:
    return _uncached(request, Live(status="ok"))


@router.get(
    "/readyz",
    operation_id="readyz",
    summary="May traffic come?",
    response_model=Ready,
    responses={503: {"model": Ready, "description": "Not ready."}},
)
async def readyz(request: Request) -> Response:
    services = services_of(request)
    redis_away = services.bell.broker_away
    ready = Ready(
        status="degraded" if redis_away else "ready",
        database="ok",
        redis="away" if redis_away else "ok",
        detail="Redis is away: calls start at the next sweep." if redis_away else "Everything answers.",
        attention=[],
    )
    try:
        async with asyncio.timeout(PATIENCE), services.database.reading() as connection:
            at = await migrating.read_current(connection)
            weak = await durability.weaknesses(connection)
            restored = (await identity.looked_at(connection)).changed if at == migrating.head() else False
    except (SQLAlchemyError, psycopg.Error, TimeoutError, OSError) as error:
        _log.warning("not ready", error=type(error).__name__)
        detail = "Postgres does not answer."
        ready = ready.model_copy(update={"status": "unavailable", "database": "unreachable", "detail": detail})
        return _uncached(request, ready, status=503)
    if at != migrating.head():
        detail = (
            f"The database is at migration {at or 'none'}, this code needs {migrating.head()}: run surefoot migrate."
        )
        ready = ready.model_copy(update={"status": "unavailable", "database": "not_migrated", "detail": detail})
        return _uncached(request, ready, status=503)
    if restored:
        detail = "Reading and submitting work; no effect is made until the lost time is accounted for."
        ready = ready.model_copy(update={"status": "degraded", "database": "restored", "detail": detail})
        weak = [RESTORED, *weak]
    return _uncached(request, ready.model_copy(update={"attention": weak}))


@router.get("/version", operation_id="version", summary="What runs here?", response_model=Version)
async def get_version(request: Request) -> Response:
    shape = Version(
        name="surefoot", version=version.installed(), engine_version=ENGINE_VERSION, migration=migrating.head()
    )
    return _uncached(request, shape)


def _uncached(request: Request, shape: Live | Ready | Version, *, status: int = 200) -> Response:
    response = answering.answer(request, shape, status=status)
    response.headers["Cache-Control"] = "no-store"
    return response
