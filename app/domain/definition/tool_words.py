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
    ),
    later={
        "mcp": "Put an HTTP endpoint in front of the server and declare it with http.",
        "trust_annotations": "It belongs to mcp, which is not built yet.",
        "include": "It belongs to mcp, which is not built yet.",
    },
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
    known=("method", "url", "headers", "path", "query", "body"),
    typed={
        "verb": "method",
        "uri": "url",
        "endpoint": "url",
        "header": "headers",
        "params": "query",
        "json": "body",
        "data": "body",
    },
)
