"""Every no, in one shape: RFC 9457 `application/problem+json`, whatever raised it.

    SurefootError                    as it says (`app/errors.py`)
    FastAPI's validation             invalid_value 422, one error per parameter
    Starlette's HTTPException        not_found 404, method_not_allowed 405, …
    a database that does not answer  database_unavailable 503 with Retry-After
    anything else                    internal 500, logged with its stack by `app/api/edge.py`

Problems are pure ASCII JSON, so that no text from outside can make one fail.
"""

from __future__ import annotations

import json
import math
from http import HTTPStatus
from typing import Any, Final

import psycopg
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy import exc as sqlalchemy_errors
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from app.api.context import passage_of
from app.api.faults import faults_of
from app.domain.faults import Fault
from app.errors import DatabaseUnavailable, Internal, InvalidValue, MethodNotAllowed, NotFound, SurefootError

MEDIA_TYPE: Final = "application/problem+json"
DATABASE_RETRY_AFTER: Final = 2.0
"""Seconds: a restart of Postgres takes one or two."""

_METHODS: Final = ("DELETE", "GET", "PATCH", "POST", "PUT")

_log = structlog.get_logger(__name__)


def install(app: FastAPI) -> None:
    app.add_exception_handler(SurefootError, _surefoot)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)
    for unavailable in (
        sqlalchemy_errors.OperationalError,
        sqlalchemy_errors.InterfaceError,
        sqlalchemy_errors.TimeoutError,
        psycopg.OperationalError,
        psycopg.InterfaceError,
    ):
        app.add_exception_handler(unavailable, _database)


def problem(request: Request, error: SurefootError, *, headers: dict[str, str] | None = None) -> Response:
    passage = passage_of(request)
    members: dict[str, Any] = {
        "type": f"/errors/{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "instance": request.scope["path"],
        "code": error.code,
        "fix": error.how,
        "retryable": error.retryable,
        "errors": [_fault(fault) for fault in error.faults],
        "request_id": passage.request_id,
        "trace_id": passage.trace.trace_id,
    }
    extra = {name: value for name, value in error.extra.items() if name not in members}
    return Response(
        json.dumps({**members, **extra}, default=str).encode("ascii"),
        status_code=error.status,
        media_type=MEDIA_TYPE,
        headers={"Cache-Control": "no-store", **_headers(error), **(headers or {})},
    )


def internal(request: Request) -> Response:
    return problem(request, Internal())


def _headers(error: SurefootError) -> dict[str, str]:
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="surefoot"'
    return headers


def _fault(fault: Fault) -> dict[str, Any]:
    return {
        "code": fault.code,
        "pointer": fault.pointer,
        "line": fault.line,
        "detail": fault.detail,
        "fix": fault.fix,
    }


async def _surefoot(request: Request, error: Exception) -> Response:
    assert isinstance(error, SurefootError)
    return problem(request, error)


async def _validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = faults_of(error.errors())
    return problem(request, InvalidValue(faults[0].detail if faults else "", faults=faults))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = {name: value for name, value in (error.headers or {}).items() if name.lower() != "allow"}
    path = request.scope["path"]
    if error.status_code == HTTPStatus.NOT_FOUND:
        gone = NotFound(f"There is no {request.method} {path}.", fix="See /openapi.json for the paths of this version.")
        return problem(request, gone, headers=headers)
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = ", ".join(_allowed(request))
        refusal = MethodNotAllowed(f"{path} knows {allowed}, not {request.method}.")
        return problem(request, refusal, headers=headers | {"Allow": allowed})
    if error.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
        return problem(request, InvalidValue(str(error.detail)), headers=headers)
    _log.error("framework error", status=error.status_code, detail=str(error.detail))
    return problem(request, Internal(), headers=headers)


def _allowed(request: Request) -> list[str]:
    """Every method of the path. Starlette names those of the first route it finds only."""
    app: FastAPI = request.app
    return [
        method
        for method in _METHODS
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in app.router.routes)
    ]


async def _database(request: Request, error: Exception) -> Response:
    _log.warning("database unavailable", error=type(error).__name__, detail=str(error).splitlines()[0:1])
    return problem(request, DatabaseUnavailable(retry_after=DATABASE_RETRY_AFTER))
