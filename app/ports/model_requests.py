"""A request of the Messages API as bytes, and how an answer's shape is asked of the provider: as an output format where
its subset of JSON Schema can say it, else in words, after the agent's instructions.

    body     the whole request
    shape    what of it asks for the answer's shape

Both are functions of the request alone, and the shape is the same for every call of a conversation: what it adds to
`system` is part of the prefix. Imports anthropic when it is called.
"""

from __future__ import annotations

import json

from app.domain.outcomes import JSON
from app.ports.world import ModelRequest


def body(request: ModelRequest) -> bytes:
    """What the SDK would make of the same values, field for field and byte for byte. It would read, copy and write
    the conversation anew for each call; here its messages are put in as they were stored."""
    config, system = shape(request)
    rest: dict[str, JSON] = {"model": request.model}
    if config:
        rest["output_config"] = config
    if system:
        rest["system"] = system
    if request.tools:
        rest["tools"] = [dict(tool) for tool in request.tools]
    if request.tools and request.tools_forbidden:
        rest["tool_choice"] = {"type": "none"}
    rest["stream"] = True
    return b'{"max_tokens":%d,"messages":[%b],%b' % (
        request.max_tokens,
        b",".join(request.messages),
        json.dumps(rest, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()[1:],
    )


def shape(request: ModelRequest) -> tuple[dict[str, JSON], str]:
    """(`output_config`, `system`). Of a free answer only the format is left out: what was said in `system` because of
    the schema stays, for it is part of the prefix that thinking blocks are signed over."""
    config = _output_config(request)
    unshaped = request.output_schema is not None and "format" not in config
    system = "\n\n".join(part for part in (request.system, _spoken_schema(request) if unshaped else None) if part)
    if request.free_form:
        config.pop("format", None)
    return config, system


def _output_config(request: ModelRequest) -> dict[str, JSON]:
    """Effort and format. The provider knows a subset of JSON Schema: what it does not know goes into descriptions,
    and the answer is checked against the whole schema afterwards."""
    import anthropic

    config: dict[str, JSON] = {} if request.effort is None else {"effort": request.effort}
    if request.output_schema is not None and not _loses_meaning(request.output_schema):
        try:
            schema = anthropic.transform_schema(dict(request.output_schema))
        except (ValueError, AssertionError, TypeError, AttributeError):
            # The SDK's words for a schema that the subset cannot say (no type, a list of types): it is spoken instead.
            return config
        config["format"] = {"type": "json_schema", "schema": schema}
    return config


def _loses_meaning(schema: JSON) -> bool:
    """True if the subset would forbid what the schema allows: objects with names that are not known beforehand."""
    if isinstance(schema, list):
        return any(_loses_meaning(part) for part in schema)
    if not isinstance(schema, dict):
        return False
    if isinstance(schema.get("additionalProperties"), dict) or "patternProperties" in schema:
        return True
    if schema.get("type") == "object" and "properties" not in schema:
        return True
    return any(_loses_meaning(part) for part in schema.values())


def _spoken_schema(request: ModelRequest) -> str:
    text = json.dumps(request.output_schema, ensure_ascii=False, separators=(",", ":"))
    return f"Answer with one JSON value that fits this JSON Schema, and nothing else:\n{text}"
