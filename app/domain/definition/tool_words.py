"""The words of a tool's declaration: what each place knows, which keys come later, and what people type instead.

Holds words only, as `vocabulary.py` does for the rest of the format; checks nothing.
"""

from __future__ import annotations

from typing import Final

from app.domain.definition.vocabulary import Place

TOOL: Final = Place(
    name="a tool",
    known=(
        "description",
        "input_schema",
        "http",
        "python",
        "isolate",
        "mcp",
        "effect",
        "key_header",
        "key_argument",
        "key_ttl",
        "timeout",
        "settle_time",
        "on_repeat",
        "probe",
        "compensate",
        "on_5xx",
        "on_3xx",
        "on_408",
        "on_repeat_status",
        "on_202",
        "result_within",
        "approve",
        "approver",
        "approval_expires",
        "trusted_output",
        "max_output",
    ),
    typed={
        "parameters": "input_schema",
        "schema": "input_schema",
        "arguments": "input_schema",
        "inputSchema": "input_schema",
        "function": "python",
        "entry_point": "python",
        "entrypoint": "python",
        "module": "python",
        "callable": "python",
        "sandbox": "isolate",
        "subprocess": "isolate",
        "server": "mcp",
        "command": "mcp.command",
        "stdio": "mcp.command",
        "max_response": "max_output",
        "max_bytes": "max_output",
        "url": "http.url",
        "method": "http.method",
        "headers": "http.headers",
        "idempotency_key": "key_header",
        "idempotency_header": "key_header",
        "ttl": "key_ttl",
        "effects": "effect",
        "side_effects": "effect",
        "idempotent": "effect",
        "read_only": "effect",
        "check": "probe",
        "verify": "probe",
        "lookup": "probe",
        "undo": "compensate",
        "rollback": "compensate",
        "compensation": "compensate",
        "on_500": "on_5xx",
        "on_503": "on_5xx",
        "async": "on_202",
        "approval": "approve",
        "requires_approval": "approve",
        "expires": "approval_expires",
        "trusted": "trusted_output",
    },
)

PROBE: Final = Place(
    name="a probe",
    known=("tool", "with", "found", "result", "deadline"),
    typed={
        "args": "with",
        "arguments": "with",
        "params": "with",
        "parameters": "with",
        "input": "with",
        "uses": "tool",
        "call": "tool",
        "exists": "found",
        "if": "found",
        "when": "found",
        "output": "result",
        "timeout": "deadline",
    },
)

COMPENSATE: Final = Place(
    name="a compensation",
    known=("tool", "with"),
    typed={
        "args": "with",
        "arguments": "with",
        "params": "with",
        "parameters": "with",
        "input": "with",
        "uses": "tool",
        "call": "tool",
    },
)

HTTP: Final = Place(
    name="http",
    known=("method", "url", "headers", "path", "query", "body", "output"),
    typed={
        "verb": "method",
        "uri": "url",
        "endpoint": "url",
        "header": "headers",
        "params": "query",
        "json": "body",
        "data": "body",
        "result": "output",
        "response": "output",
    },
)

OF_EACH_TOOL: Final = (
    "effect",
    "key_argument",
    "key_ttl",
    "timeout",
    "settle_time",
    "on_repeat",
    "approve",
    "approver",
    "approval_expires",
    "trusted_output",
    "max_output",
)
"""What may be said of all tools of an MCP server, or of one of them."""

LISTED: Final = ("description", "input_schema", "output_schema", "annotations")
"""What a server says of a tool besides its name, and what of it is frozen."""

_OF_SERVERS: Final[dict[str, str]] = {
    "server": "mcp",
    "command": "mcp.command",
    "url": "mcp.url",
    "trust": "trust_annotations",
    "allow": "include",
    "only": "include",
    "allowed_tools": "include",
    "overrides": "tools",
    "approval": "approve",
    "requires_approval": "approve",
    "expires": "approval_expires",
    "trusted": "trusted_output",
    "ttl": "key_ttl",
    "effects": "effect",
    "side_effects": "effect",
}

SERVER: Final = Place(
    name="an MCP server",
    known=("mcp", "description", "trust_annotations", "include", "tools", "listed", *OF_EACH_TOOL),
    typed=_OF_SERVERS,
)

SERVER_TOOL: Final = Place(name="a tool of an MCP server", known=("description", *OF_EACH_TOOL), typed=_OF_SERVERS)

MCP: Final = Place(
    name="mcp",
    known=("command", "env", "url", "headers"),
    typed={
        "cmd": "command",
        "args": "command",
        "stdio": "command",
        "environment": "env",
        "uri": "url",
        "endpoint": "url",
        "http": "url",
        "header": "headers",
    },
)
