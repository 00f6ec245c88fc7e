"""MCP servers and their tools as a plan holds them: where a server is, and what a tool of it was when it was listed.

A server's list is frozen: in its declaration (`listed`, which `surefoot tool register` writes), or by the first
`discover` call of the step that uses it. What was frozen is known by the SHA-256 of its canonical JSON (`sha256_of`);
a tool that is no longer that is not called before a person has said so (`app/domain/drifting.py`).

Pure data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from app.domain import canonical

if TYPE_CHECKING:
    from app.domain.plan import Template

Definition = Mapping[str, Any]
"""A tool as its server describes it: `name`, `description`, `input_schema`, `output_schema`, `annotations`; what it
leaves out is left out here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class McpServer:
    """Where an MCP server is: a program that a worker starts, or a URL (streamable HTTP). Exactly one of the two."""

    name: str
    """As the definition calls it: its tools are `<name>.<tool>`."""
    timeout: timedelta
    """Of one attempt at listing its tools."""
    command: tuple[str, ...] | None = None
    """Program and arguments; run only where the operator allows the program (`SUREFOOT_MCP_COMMANDS`)."""
    environment: Mapping[str, Template] | None = None
    """What the program finds in its environment besides PATH, HOME and the like; sees `secrets`."""
    url: Template | None = None
    headers: Mapping[str, Template] | None = None
    """Of every request to the URL; they see `secrets`."""

    def __post_init__(self) -> None:
        if (self.command is None) == (self.url is None):
            raise ValueError(f"the MCP server {self.name} is exactly one of command and url")


@dataclass(frozen=True, kw_only=True, slots=True)
class McpTool:
    server: McpServer
    definition: Definition
    """As it was frozen."""
    sha256: str
    """Of the definition."""

    @property
    def name(self) -> str:
        """What the server calls it."""
        return str(self.definition["name"])


def sha256_of(definition: Definition) -> str:
    return canonical.sha256_hex(canonical.canonical_json(dict(definition)))
