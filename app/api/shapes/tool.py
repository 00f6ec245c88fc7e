"""A registered tool, as a list shows it: where it is, what it may do, and which of an MCP server's tools are frozen."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from app.api.shapes.values import Shape
from app.engine.registered_tools import Registered

Place = Literal["http", "python", "mcp"]


class Tool(Shape):
    name: str
    kind: Place
    effect: str | None
    """As declared; null if it says nothing, and for an MCP server whose tools differ."""
    digest: str
    """SHA-256 of the declaration's canonical JSON."""
    tools: list[str] | None
    """Of an MCP server whose list is frozen: its tools by the server's names. Null: they are asked for by each workflow
    that needs them, and for other tools."""
    updated_at: datetime


class Removed(Shape):
    removed: str


def tool_shape(tool: Registered) -> Tool:
    declared: Mapping[str, Any] = tool.declaration
    kind: Place = "mcp" if declared.get("mcp") else "python" if declared.get("python") else "http"
    listed = declared.get("listed")
    return Tool(
        name=tool.name,
        kind=kind,
        effect=declared.get("effect"),
        digest=tool.digest,
        tools=[each["name"] for each in listed] if listed is not None else None,
        updated_at=tool.updated_at,
    )
