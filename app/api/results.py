"""`POST /v1/calls/{id}/result`: a tool that answered 202 tells what its work came to.

Authenticated by the one-time token of the very request it answers (`Surefoot-Result-Token`), never by an API key; a
token that is wrong and a call that does not exist are the same 401. The same outcome again is the same answer.

A success must never become a doubt because its report was odd: a `result` that cannot be stored (NUL, a lone
surrogate, nesting, endless digits) is kept as an opaque value, like the odd answer of a tool that answers at once.
Only what decides (`outcome`) is read strictly.
"""

from __future__ import annotations

import json
from typing import Annotated, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request, Security
from fastapi.security import HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials
from starlette.responses import Response

from app.api import answering, body
from app.api.context import services_of
from app.api.documents import accepts, problems_of
from app.api.query import NoQuery
from app.api.shapes.result import Accepted
from app.api.shapes.values import JSON
from app.domain import bodies, ids
from app.engine import accept_result
from app.errors import InvalidValue, ResultTokenInvalid

router = APIRouter(tags=["results"])

TOKEN = HTTPBearer(
    scheme_name="ResultToken",
    description="The value of the header Surefoot-Result-Token of the request that was answered with 202.",
    auto_error=False,
)
LONGEST_MESSAGE: Final = 4_000
"""Letters of `message` that are kept: people read it."""

_ANYTHING: Final = "/result"
"""Where a client may send what we cannot store."""


class ResultBody(body.Body):
    outcome: Literal["succeeded", "failed"]
    result: JSON = None
    """With `succeeded`: what a tool that answers at once would have answered."""
    message: str | None = None
    """With `failed`: why, for people and for the model."""


@router.post(
    "/v1/calls/{call}/result",
    operation_id="post_result",
    summary="Report the result of a call that was accepted with 202",
    response_model=Accepted,
    responses=problems_of(400, 401, 409, 413, 415, 422, 503),
    openapi_extra=accepts(ResultBody, key=None),
)
async def post_result(
    call: str,
    request: Request,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Security(TOKEN)],
    query: Annotated[NoQuery, Query()],
) -> Response:
    """Once, with the token of the request it answers. `failed` means that nothing was changed. The same outcome again
    is the same answer; another one after the call was settled is 409 `already_settled`."""
    if credentials is None:
        raise ResultTokenInvalid("The request carries no Authorization: Bearer header.")
    call_id = _call_id(call)
    told = body.check(ResultBody, await _read(request))
    message = None if told.message is None else bodies.storable_text(told.message, limit=LONGEST_MESSAGE)
    await accept_result.accept(
        services_of(request),
        call_id,
        token=credentials.credentials,
        succeeded=told.outcome == "succeeded",
        result=told.result,
        message=message,
    )
    return answering.answer(request, Accepted(accepted=True))


def _call_id(text: str) -> UUID:
    try:
        return ids.decode("call", text)
    except ids.MalformedId as malformed:
        raise ResultTokenInvalid from malformed


async def _read(request: Request) -> dict[str, JSON]:
    """The body's object; if only its `result` has faults, with an opaque value in its place."""
    try:
        return await body.read_object(request)
    except InvalidValue as invalid:
        odd = [fault for fault in invalid.faults if _inside_result(fault.pointer)]
        if not odd or len(odd) < len(invalid.faults):
            raise
        raw = await request.body()
        # Lenient where the strict reading found nothing wrong but inside `result`, which is not taken from here.
        value: dict[str, JSON] = json.loads(raw, parse_int=str)
        reason = f"{odd[0].detail.rstrip('.')} at {odd[0].pointer}"
        return {**value, "result": bodies.opaque(raw, "application/json", reason=reason)}


def _inside_result(pointer: str) -> bool:
    return pointer == _ANYTHING or pointer.startswith(f"{_ANYTHING}/")
