"""`/v1/tools`: the tenant's registered tools, which definitions may name without declaring them.

The body of a PUT is a declaration as it stands under `tools:` in a definition. A workflow pins what it uses when it is
accepted: what is registered or removed later changes nothing that runs.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from app.api import answering, body
from app.api.authentication import Caller, needs
from app.api.context import services_of
from app.api.documents import accepts, problems_of
from app.api.query import NoQuery
from app.api.shapes.listing import Page
from app.api.shapes.tool import Removed, Tool, tool_shape
from app.engine import registered_tools

router = APIRouter(tags=["tools"])


class ToolDeclaration(BaseModel):
    """As under `tools:` of a definition (docs/definitions.md). Judged by the definition's own check, which tells every
    fault with its place; here it stands for the document only."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {
                    "description": "Book one event.",
                    "http": {"method": "POST", "url": "https://calendar.example.com/events"},
                    "effect": "at_most_once",
                },
                {"mcp": {"url": "https://search.example.com/mcp"}, "effect": "read_only"},
            ]
        },
    )


@router.get(
    "/v1/tools",
    operation_id="list_tools",
    summary="List the registered tools",
    response_model=Page[Tool],
    responses=problems_of(401, 403, 422, 503),
)
async def list_tools(
    request: Request, caller: Annotated[Caller, Depends(needs("read"))], query: Annotated[NoQuery, Query()]
) -> Response:
    """All of them: a tenant has few."""
    found = await registered_tools.listed(services_of(request), caller.tenant_id)
    page = Page[Tool](data=[tool_shape(each) for each in found], next_cursor=None, has_more=False)
    return answering.answer(request, page)


@router.put(
    "/v1/tools/{name}",
    operation_id="put_tool",
    summary="Register a tool, or replace it",
    response_model=Tool,
    responses=problems_of(400, 401, 403, 413, 415, 422, 503),
    openapi_extra=accepts(ToolDeclaration, key=None),
)
async def put_tool(
    name: str,
    request: Request,
    caller: Annotated[Caller, Depends(needs("operate"))],
    query: Annotated[NoQuery, Query()],
) -> Response:
    """Everything wrong with the declaration is told at once. Putting the same again changes nothing."""
    declaration = await body.read_object(request)
    put = await registered_tools.put(
        services_of(request), caller.tenant_id, name=name, declaration=declaration, by=caller.name
    )
    return answering.answer(request, tool_shape(put))


@router.delete(
    "/v1/tools/{name}",
    operation_id="remove_tool",
    summary="Remove a registered tool",
    response_model=Removed,
    responses=problems_of(401, 403, 404, 422, 503),
)
async def remove_tool(
    name: str,
    request: Request,
    caller: Annotated[Caller, Depends(needs("operate"))],
    query: Annotated[NoQuery, Query()],
) -> Response:
    """Definitions that name it are refused from now on; workflows that run go on."""
    await registered_tools.remove(services_of(request), caller.tenant_id, name=name, by=caller.name)
    return answering.answer(request, Removed(removed=name))
