"""Tools of every kind behind one `send`: which adapter performs a call is said by its tool's declaration."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from app.domain.outcomes import Outcome
from app.ports.http_tools import HttpTools
from app.ports.python_tools import PythonTools
from app.ports.world import MaySend, ToolRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class Tools:
    """Implements `ToolPort`."""

    http: HttpTools
    python: PythonTools

    def send(self, request: ToolRequest, *, seconds: float, may_send: MaySend) -> Coroutine[Any, Any, Outcome]:
        adapter = self.http if request.tool.python is None else self.python
        return adapter.send(request, seconds=seconds, may_send=may_send)

    async def aclose(self) -> None:
        await self.python.aclose()
        await self.http.aclose()
