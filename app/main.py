"""The ASGI application: routes, problem answers, the edge around them.

`create_app(services)` serves what it is given and owns nothing: whoever built the services closes them. `stopping` is
set by the server at a stop signal, so that held requests let go.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.middleware import Middleware

from app.api import (
    administration,
    approvals,
    breakers,
    budgeting,
    effects,
    error_pages,
    events,
    health,
    metrics,
    openapi,
    operating,
    problems,
    resolving,
    results,
    step_operating,
    steps,
    switches,
    tools,
    traces,
    version,
    why,
    workflows,
)
from app.api.authentication import KnownKeys
from app.api.edge import Edge
from app.engine.services import Services

ROUTERS = (
    workflows.router,
    operating.router,
    budgeting.router,
    steps.router,
    step_operating.router,
    effects.router,
    resolving.router,
    results.router,
    switches.router,
    tools.router,
    breakers.router,
    events.router,
    traces.router,
    why.router,
    approvals.router,
    administration.router,
    health.router,
    metrics.router,
    error_pages.router,
)


def create_app(services: Services, *, stopping: asyncio.Event | None = None) -> FastAPI:
    app = FastAPI(
        title="Surefoot",
        version=version.installed(),
        docs_url=None,  # FastAPI's pages load scripts from another host
        redoc_url=None,
        redirect_slashes=False,  # a redirect is built from the Host header, which anybody may write
        generate_unique_id_function=_operation_id,
        middleware=[Middleware(Edge, body_limit=services.settings.body_limit)],
    )
    app.state.services = services
    app.state.stopping = stopping or asyncio.Event()
    app.state.known_keys = KnownKeys()
    app.state.readings = metrics.Readings()
    problems.install(app)
    for router in ROUTERS:
        app.include_router(router)
    openapi.install(app)
    return app


def _operation_id(route: APIRoute | Any) -> str:
    return str(route.operation_id or route.name)
