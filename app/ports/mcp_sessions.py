"""One session with an MCP server through the SDK's client: opened, asked for its tools, asked to call one, closed.

    session(place, wire, …)                          the client, after the handshake
    listed(client)                                   every tool, in the SDK's words made ours
    called(client, name, arguments, meta)            waits for the reply, which the wire has

A session serves one attempt: a client is dead after any transport error, and there is nothing in the protocol that a
longer one would give. Sampling, elicitation and roots are not offered: a server gets nothing from its caller but the
arguments. Imported only when a worker calls an MCP tool; the SDK takes a second and 40 MB.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from mcp import Client, MCPError, types
from mcp.client.streamable_http import streamable_http_client

from app.domain.outcomes import JSON
from app.ports import mcp_http, mcp_stdio
from app.ports.connecting import Connector
from app.ports.mcp_wire import LONGEST_MESSAGE, Wire
from app.ports.secrets import Secrets

__all__ = ["MCPError", "Place", "TooManyTools", "called", "listed", "session"]

MOST_PAGES: Final = 50
MOST_TOOLS: Final = 1000
"""What a list may come to; a server whose list has no end must not hold a worker."""

_CLIENT: Final = types.Implementation(name="surefoot", version="1")

for _name in ("mcp", "client"):  # the SDK's loggers: they quote messages, and with them arguments and answers
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)


class TooManyTools(Exception):
    """The list goes on beyond what is read. The message is a fragment."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where the server is, secrets filled in: never shown."""

    command: Sequence[str] | None
    environment: Mapping[str, str]
    url: str | None
    headers: Sequence[tuple[str, str]]


@asynccontextmanager
async def session(place: Place, wire: Wire, *, connector: Connector, secrets: Secrets) -> AsyncIterator[Client]:
    if place.command is not None:
        transport = mcp_stdio.stdio(place.command, place.environment, wire=wire, secrets=secrets)
        async with Client(transport, cache=None, client_info=_CLIENT) as client:
            yield client
        return
    async with mcp_http.client(connector, wire, place.headers) as http:
        streams = streamable_http_client(
            place.url or "", http_client=http, terminate_on_close=False, max_sse_event_size=LONGEST_MESSAGE
        )
        async with Client(streams, cache=None, client_info=_CLIENT) as client:
            yield client


async def listed(client: Client) -> list[dict[str, JSON]]:
    """Raises `TooManyTools`, and what the SDK raises."""
    found: list[dict[str, JSON]] = []
    cursor: str | None = None
    for _ in range(MOST_PAGES):
        page = await client.session.list_tools(params=types.PaginatedRequestParams(cursor=cursor))
        found += [_definition(tool) for tool in page.tools]
        if len(found) > MOST_TOOLS:
            raise TooManyTools(f"its server lists more than {MOST_TOOLS} tools")
        cursor = page.next_cursor
        if not cursor:
            return found
    raise TooManyTools(f"its server's list has more than {MOST_PAGES} pages")


def _definition(tool: types.Tool) -> dict[str, JSON]:
    """As it is frozen and compared: what it leaves out is left out."""
    hints = None if tool.annotations is None else tool.annotations.model_dump(mode="json", exclude_none=True)
    said = {
        "name": tool.name,
        "description": tool.description,
        "input_schema": tool.input_schema,
        "output_schema": tool.output_schema,
        "annotations": hints,
    }
    return {key: value for key, value in said.items() if value is not None}


async def called(client: Client, *, name: str, arguments: Mapping[str, JSON], meta: Mapping[str, str]) -> None:
    """Returns once the server has replied. What it replied is on the wire: nothing is validated here, because an
    answer that does not fit its own schema is an answer."""
    params: dict[str, Any] = {"name": name, "arguments": dict(arguments), "_meta": dict(meta)}
    request = types.CallToolRequest(params=types.CallToolRequestParams.model_validate(params))
    await client.session.send_request(request, types.EmptyResult)
