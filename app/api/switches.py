"""`/v1/switches`: the operator's switches: hold back one tool, one model or everything of the tenant, and let go.

A held scope sends nothing new; what is in flight is settled. Held calls wait (`waiting_on: held, operator`) and go
when the switch is released. A scope is `tenant`, `tool:<name>` or `model:<id or alias>`, URL-encoded in the path.
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
from app.api.shapes.listing import Page
from app.api.shapes.switch import Released, Switch, switch_shape
from app.domain.faults import Fault
from app.engine import switch
from app.errors import InvalidValue, NotFound

router = APIRouter(tags=["switches"])

_SCOPE: Final = re.compile(
    r"tenant|tool:[A-Za-z][A-Za-z0-9_.-]{0,63}|model:[A-Za-z0-9][A-Za-z0-9._:/@-]{0,199}", re.ASCII
)
"""Names as definitions may write them."""


class HoldBody(body.Body):
    reason: Words | None = Field(default=None)


@router.get(
    "/v1/switches",
    operation_id="list_switches",
    summary="List what an operator holds back",
    response_model=Page[Switch],
    responses=problems_of(401, 403, 422, 503),
)
async def list_switches(
    request: Request, caller: Annotated[Caller, Depends(needs("read"))], query: Annotated[NoQuery, Query()]
) -> Response:
    """All of them: a tenant has few."""
    held = await switch.listed(services_of(request), caller.tenant_id)
    page = Page[Switch](data=[switch_shape(one) for one in held], next_cursor=None, has_more=False)
    return answering.answer(request, page)


@router.put(
    "/v1/switches/{scope:path}",
    operation_id="hold_scope",
    summary="Hold back a tool, a model or everything",
    response_model=Switch,
    responses=problems_of(400, 401, 403, 413, 415, 422, 503),
    openapi_extra=accepts(HoldBody, key=None, required=False),
)
async def hold_scope(
    scope: str,
    request: Request,
    caller: Annotated[Caller, Depends(needs("operate"))],
    query: Annotated[NoQuery, Query()],
) -> Response:
    """Nothing new of it is sent from now on, in any workflow. Holding again changes nothing."""
    wanted = _scope(scope)
    checked = body.check(HoldBody, await body.read_object(request, required=False))
    services = services_of(request)
    await switch.hold(services, caller.tenant_id, scope=wanted, reason=checked.reason, by=caller.name)
    held = next((one for one in await switch.listed(services, caller.tenant_id) if one.scope == wanted), None)
    if held is None:
        raise NotFound(f"{wanted} was held, and released by somebody else at once.", fix="Hold it again.")
    return answering.answer(request, switch_shape(held))


@router.delete(
    "/v1/switches/{scope:path}",
    operation_id="release_scope",
    summary="Release what was held back",
    response_model=Released,
    responses=problems_of(401, 403, 422, 503),
)
async def release_scope(
    scope: str,
    request: Request,
    caller: Annotated[Caller, Depends(needs("operate"))],
    query: Annotated[NoQuery, Query()],
) -> Response:
    """The calls it held are due again. Releasing what is not held is the same answer with `released: 0`."""
    released = await switch.release(services_of(request), caller.tenant_id, scope=_scope(scope), by=caller.name)
    return answering.answer(request, Released(released=released))


def _scope(text: str) -> str:
    if _SCOPE.fullmatch(text) is None:
        detail = f"{text[:80]!a} is no scope."
        fix = "Use tenant, tool:<name> or model:<id or alias>; in a URL the colon is %3A or itself."
        fault = Fault(code="invalid_value", pointer="scope", detail=detail, fix=fix)
        raise InvalidValue(detail, fix=fix, faults=[fault])
    return text
