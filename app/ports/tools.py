"""Tools of every kind behind one `send`: which adapter performs a call is said by its tool's declaration."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from app.domain.outcomes import Outcome
from app.domain.servers import McpServer
from app.ports.http_tools import HttpTools
from app.ports.isolated_tools import IsolatedTools
from app.ports.mcp_tools import McpTools
from app.ports.python_tools import PythonTools
from app.ports.world import MaySend, ToolRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class Tools:
    """Implements `ToolPort` and `ToolLister`."""

    http: HttpTools
    python: PythonTools
    isolated: IsolatedTools
    mcp: McpTools

    def send(self, request: ToolRequest, *, seconds: float, may_send: MaySend) -> Coroutine[Any, Any, Outcome]:
        adapter: HttpTools | PythonTools | IsolatedTools | McpTools = self.http
        if request.tool.mcp is not None:
            adapter = self.mcp
        elif request.tool.python is not None:
            adapter = self.isolated if request.tool.python.isolate else self.python
        return adapter.send(request, seconds=seconds, may_send=may_send)

    def discover(self, server: McpServer, *, seconds: float, may_send: MaySend) -> Coroutine[Any, Any, Outcome]:
        return self.mcp.discover(server, seconds=seconds, may_send=may_send)

    async def aclose(self) -> None:
        await self.isolated.aclose()
        await self.mcp.aclose()
        await self.python.aclose()
        await self.http.aclose()
