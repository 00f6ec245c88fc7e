"""`/v1/breakers`: tools and models that keep failing, credentials that are refused, rate limits that are near.

What is listed is or lately was in trouble; an empty list is the normal case. Breakers of models are shared by all
tenants, because the credential is the workers'. A reset says that the trouble is over: the calls that waited go on
within the next sweeps, and if it is not over the breaker opens again.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field
from starlette.responses import Response

from app.api import answering, body
from app.api.authentication import Caller, needs
from app.api.context import services_of
from app.api.documents import accepts, problems_of
from app.api.operating import Words
from app.api.query import NoQuery
from app.api.shapes.breaker import BreakerShape, Reset, breaker_shapes
from app.api.shapes.listing import Page
from app.domain.faults import Fault
from app.engine import depend
from app.errors import InvalidValue

router = APIRouter(tags=["breakers"])

_SCOPE: Final = re.compile(r"tool:[A-Za-z][A-Za-z0-9_.-]{0,63}|model:[a-z0-9]{4,8}/[A-Za-z0-9*._:/@-]{1,200}", re.ASCII)
"""As they are listed."""


class ResetBody(body.Body):
    note: Words | None = Field(default=None)
    """Kept for audit."""


@router.get(
    "/v1/breakers",
    operation_id="list_breakers",
    summary="List what keeps failing",
    response_model=Page[BreakerShape],
    responses=problems_of(401, 403, 422, 503),
)
async def list_breakers(
    request: Request, caller: Annotated[Caller, Depends(needs("read"))], query: Annotated[NoQuery, Query()]
) -> Response:
    """All of them: few things are in trouble at once."""
    services = services_of(request)
    state = await depend.listed(services, caller.tenant_id)
    shapes = breaker_shapes(state, rules=services.rules)
    return answering.answer(request, Page[BreakerShape](data=shapes, next_cursor=None, has_more=False))


@router.post(
    "/v1/breakers/{scope:path}/reset",
    operation_id="reset_breaker",
    summary="Say that the trouble is over",
    response_model=Reset,
    responses=problems_of(400, 401, 403, 413, 415, 422, 503),
    openapi_extra=accepts(ResetBody, key=None, required=False),
)
async def reset_breaker(
    scope: str,
    request: Request,
    caller: Annotated[Caller, Depends(needs("operate"))],
    query: Annotated[NoQuery, Query()],
) -> Response:
    """What waited for it goes on. The same again, and a scope that nothing is known of, change nothing."""
    wanted = _scope(scope)
    checked = body.check(ResetBody, await body.read_object(request, required=False))
    services = services_of(request)
    calls = await depend.reset(services, caller.tenant_id, scope=wanted, by=caller.name, note=checked.note)
    return answering.answer(request, Reset(scope=wanted, reset=calls is not None, released=calls or 0))


def _scope(text: str) -> str:
    if _SCOPE.fullmatch(text) is None:
        detail = f"{text[:80]!a} is no scope of a breaker."
        fix = "Use it as GET /v1/breakers lists it: tool:<name> or model:<credential>/<model id>."
        fault = Fault(code="invalid_value", pointer="scope", detail=detail, fix=fix)
        raise InvalidValue(detail, fix=fix, faults=[fault])
    return text
