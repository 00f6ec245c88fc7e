"""What the scripted model refuses, as the real Messages API does: the rules of API version 2026-10-21.

`read_request(headers, body)` gives the parsed request or raises `Refused` with the status, type and words of the
real error. So a conversation that works here is one that works there: pairing and order of tool uses and results, no
prefill, no forced tool choice, no sampling parameters, names of tools, the subset of JSON Schema, the size of the
prompt, thinking blocks unchanged behind an unchanged prefix. What differs between models (window, most output, system
messages, whose thinking they read) is in `app/domain/model_facts.py`. Three rules are stricter than the real ones,
because breaking them makes models end their turn early or drops what they thought, silently: results stand in the
order of the tool uses, nothing stands beside them, and thinking that a model cannot read is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from app.domain import model_facts

BODY_LIMIT: Final = 32 * 1024 * 1024
"""Bytes of a body: beyond it the real API answers 413."""
CHARS_PER_TOKEN: Final = 4

_FIELDS: Final = frozenset(
    {"cache_control", "container", "diagnostics", "inference_geo", "max_tokens", "messages", "metadata", "model"}
    | {"output_config", "service_tier", "speed", "stop_sequences", "stream", "system", "thinking", "tool_choice"}
    | {"tools", "user_profile_id", "workspace_id"}
)
_SAMPLING: Final = ("temperature", "top_p", "top_k")
_TOOL_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_ID: Final = re.compile(r"[a-zA-Z0-9_-]+")
_MODEL: Final = re.compile(r"claude-[a-z0-9-]+")
_THINKING: Final = frozenset({"adaptive", "between_tools", "disabled", "enabled"})
_UNSUPPORTED: Final = frozenset(
    {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "maxItems"}
    | {"uniqueItems", "patternProperties", "minProperties", "maxProperties", "oneOf", "not"}
)
"""Keywords of JSON Schema that structured outputs refuse."""


class Refused(Exception):
    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelRequest:
    body: Mapping[str, Any]
    messages: list[dict[str, Any]]
    input_tokens: int
    digest: str
    """Of model, system, tools and messages: the same conversation at the same point."""


def read_request(headers: Mapping[str, str], raw: bytes) -> ModelRequest:
    """The request if the real API would take it; else raises `Refused`."""
    _authenticate(headers)
    if len(raw) > BODY_LIMIT:
        raise Refused(413, "request_too_large", "Request exceeds the maximum size")
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _invalid(f"The request body is not valid JSON: {error}") from error
    if not isinstance(body, dict):
        raise _invalid("The request body is not a JSON object")
    try:
        problem = next(_problems(body), None)
    except (AttributeError, TypeError) as error:
        raise _invalid(f"a field has the wrong type: {error}") from error
    if problem is not None:
        raise _invalid(problem)
    if not _MODEL.fullmatch(body["model"]):
        raise Refused(404, "not_found_error", f"model: {body['model']}")
    tokens, window = estimate(body), model_facts.facts(body["model"]).window
    if tokens > window:
        raise _invalid(f"prompt is too long: {tokens} tokens > {window} maximum")
    _check_thinking(body)
    kept = {name: body.get(name) for name in ("model", "system", "tools", "messages")}
    return ModelRequest(body=body, messages=body["messages"], input_tokens=tokens, digest=digest_of(kept))


def digest_of(value: Any) -> str:
    return sha256(json.dumps(value, separators=(",", ":")).encode()).hexdigest()


def estimate(body: Mapping[str, Any]) -> int:
    """Tokens of a prompt, roughly: nobody outside the provider can count them."""
    parts = [body.get("system") or "", body.get("tools") or "", body.get("output_config") or "", body["messages"]]
    return sum(len(json.dumps(part, ensure_ascii=False)) for part in parts) // CHARS_PER_TOKEN


def signature(body: Mapping[str, Any], upto: int, *, thinking: str, maker: str) -> str:
    """What a thinking block is bound to: who made it, itself, system, tools and every message before it."""
    bound = digest_of([maker, thinking, body.get("system"), body.get("tools"), body["messages"][:upto]])
    return f"{maker}.{bound}"


def _authenticate(headers: Mapping[str, str]) -> None:
    key = headers.get("authorization", "").removeprefix("Bearer ") or headers.get("x-api-key", "")
    if not key or key.startswith("sk-invalid"):
        raise Refused(401, "authentication_error", "invalid authorization header" if key else "missing credentials")
    if "anthropic-version" not in headers:
        raise _invalid("anthropic-version: header is required")


def _problems(body: Mapping[str, Any]) -> Iterator[str]:
    for name in ("model", "max_tokens", "messages"):
        if name not in body:
            yield f"{name}: Field required"
    for name in _SAMPLING:
        if name in body:
            yield f"{name}: sampling parameters are not supported by this API version"
    for name in sorted(set(body) - _FIELDS):
        yield f"{name}: Extra inputs are not permitted"
    if not isinstance(body.get("model"), str):
        yield "model: Input should be a valid string"
    most = body.get("max_tokens")
    if not isinstance(most, int) or isinstance(most, bool) or most < 1:
        yield "max_tokens: Input should be greater than or equal to 1"
    elif most > (limit := model_facts.facts(str(body.get("model"))).max_output):
        yield (
            f"max_tokens: {most} > {limit}, which is the maximum allowed number of output tokens for "
            f"{body.get('model')}"
        )
    if (body.get("thinking") or {}).get("type", "adaptive") not in _THINKING:
        yield "thinking.type: Input should be 'adaptive', 'between_tools', 'disabled' or 'enabled'"
    if (body.get("tool_choice") or {}).get("type") in ("any", "tool"):
        yield "tool_choice: forced tool use is not supported on this model"
    yield from _tool_problems(body.get("tools") or [])
    yield from _format_problems(body.get("output_config"))
    yield from _message_problems(body)


def _tool_problems(tools: Any) -> Iterator[str]:
    names = [tool.get("name") for tool in tools if isinstance(tool, dict)]
    if len(set(names)) < len(names):
        yield "tools: Tool names must be unique."
    for index, tool in enumerate(tools):
        if not isinstance(tool, dict) or not _TOOL_NAME.fullmatch(str(tool.get("name", ""))):
            yield f"tools.{index}.custom.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'"
        elif (tool.get("input_schema") or {}).get("type") != "object":
            yield f"tools.{index}.custom.input_schema.type: Input should be 'object'"


def _format_problems(config: Any) -> Iterator[str]:
    if config is None:
        return
    if not isinstance(config, dict) or not set(config) <= {"effort", "format"}:
        yield "output_config: Extra inputs are not permitted"
        return
    if config.get("effort", "high") not in ("low", "medium", "high", "xhigh", "max"):
        yield "output_config.effort: Input should be 'low', 'medium', 'high', 'xhigh' or 'max'"
    wanted = config.get("format")
    if wanted is None:
        return
    if (
        not isinstance(wanted, dict)
        or wanted.get("type") != "json_schema"
        or not isinstance(wanted.get("schema"), dict)
    ):
        yield "output_config.format: Input should be of type 'json_schema' with a schema"
    else:
        yield from _schema_problems(wanted["schema"])


def _schema_problems(schema: Any) -> Iterator[str]:
    """The subset of JSON Schema that structured outputs take."""
    place = "output_config.format.schema"
    if isinstance(schema, list):
        for part in schema:
            yield from _schema_problems(part)
    if not isinstance(schema, dict):
        return
    kind = schema.get("type")
    if kind == "object" and schema.get("additionalProperties") is not False:
        yield f"{place}: For 'object' type, 'additionalProperties' must be explicitly set to false"
    for keyword in sorted(_UNSUPPORTED & set(schema)):
        yield f"{place}: For '{kind}' type, property '{keyword}' is not supported"
    if schema.get("minItems", 0) not in (0, 1):
        yield f"{place}: For 'array' type, 'minItems' values other than 0 or 1 are not supported"
    for name in ("properties", "$defs"):
        for part in (schema.get(name) or {}).values():
            yield from _schema_problems(part)
    for name in ("items", "anyOf", "allOf"):
        yield from _schema_problems(schema.get(name))


def _message_problems(body: Mapping[str, Any]) -> Iterator[str]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        yield "messages: at least one message is required"
        return
    if not isinstance(messages[0], dict) or messages[0].get("role") != "user":
        yield 'messages: first message must use the "user" role'
    used: dict[str, None] = {}
    seen: set[str] = set()
    for index, message in enumerate(messages):
        place = f"messages.{index}"
        if not isinstance(message, dict) or set(message) != {"role", "content"}:
            yield f"{place}: a message has a role and a content"
            return
        blocks = _blocks(message["content"])
        yield from _content_problems(place, message["content"], blocks)
        yield from _role_problems(
            place, message["role"], messages[index - 1] if index else None, str(body.get("model"))
        )
        yield from _result_problems(place, message["role"], blocks, list(used), index)
        used = {}
        for number, block in enumerate(blocks):
            if block.get("type") != "tool_use":
                continue
            name = str(block.get("id"))
            if name in seen or not _ID.fullmatch(name):
                yield f"{place}.content.{number}.tool_use.id: ids must be unique and of the form ^[a-zA-Z0-9_-]+$"
            seen.add(name)
            used[name] = None
    if used:
        yield _unanswered(len(messages) - 1, list(used))
    if messages[-1]["role"] == "assistant" and not paused(messages[-1]):
        yield ("This model does not support assistant message prefill. The conversation must end with a user message.")


def paused(message: Mapping[str, Any]) -> bool:
    """Whether a turn was paused after this message: then it goes on from there, and it alone may stand at the end."""
    blocks = _blocks(message["content"])
    return bool(blocks) and blocks[-1].get("type") == "server_tool_use"


def _role_problems(place: str, role: Any, before: Mapping[str, Any] | None, model: str) -> Iterator[str]:
    if role not in ("user", "assistant", "system"):
        yield f"{place}.role: Input should be 'user', 'assistant' or 'system'"
    if role == "system":
        if not model_facts.facts(model).system_messages:
            yield f"{place}: role 'system' is not supported on this model"
        if before is None or before["role"] != "user":
            yield f"{place}: a 'system' message must follow a 'user' message"


def _content_problems(place: str, content: Any, blocks: list[dict[str, Any]]) -> Iterator[str]:
    if isinstance(content, list):
        if len(blocks) < len(content):
            yield f"{place}.content: Input should be a valid dictionary"
        for number, block in enumerate(blocks):
            if block.get("type") == "text" and not str(block.get("text", "")).strip():
                yield f"{place}.content.{number}: text content blocks must contain non-whitespace text"
    if not content or not isinstance(content, str | list) or (isinstance(content, str) and not content.strip()):
        yield f"{place}: all messages must have non-empty content"


def _result_problems(
    place: str, role: Any, blocks: list[dict[str, Any]], awaited: list[str], index: int
) -> Iterator[str]:
    given = [str(block.get("tool_use_id")) for block in blocks if block.get("type") == "tool_result"]
    for name in given:
        if name not in awaited:
            yield (
                f"{place}.content: unexpected `tool_use_id` found in `tool_result` blocks: {name}. Each `tool_result` "
                "block must have a corresponding `tool_use` block in the previous message."
            )
    if len(set(given)) < len(given):
        yield f"{place}.content: each tool_use must have a single result"
    if [name for name in awaited if name not in given] or (awaited and role != "user"):
        yield _unanswered(index - 1, [name for name in awaited if name not in given])
    if awaited and given and (given != awaited or len(blocks) > len(given)):
        yield f"{place}.content: `tool_result` blocks must stand alone and in the order of their `tool_use` blocks"


def _unanswered(index: int, names: list[str]) -> str:
    return (
        f"messages.{index}: `tool_use` ids were found without `tool_result` blocks immediately after: "
        f"{', '.join(names)}. Each `tool_use` block must have a corresponding `tool_result` block in the next message."
    )


def _check_thinking(body: Mapping[str, Any]) -> None:
    for index, message in enumerate(body["messages"]):
        for number, block in enumerate(_blocks(message["content"])):
            if block.get("type") != "thinking":
                continue
            place = f"messages.{index}.content.{number}: Invalid `signature` in `thinking` block."
            given = str(block.get("signature"))
            maker = given.partition(".")[0]
            if given != signature(body, index, thinking=str(block.get("thinking")), maker=maker):
                raise _invalid(
                    f"{place} The block is bound to a different conversation: system, tools and every earlier message "
                    "must be sent unchanged."
                )
            if not model_facts.reads_thinking(body["model"], of=maker):
                raise _invalid(f"{place} The block was made by {maker}, whose thinking {body['model']} cannot read.")


def _blocks(content: Any) -> list[dict[str, Any]]:
    return [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []


def _invalid(message: str) -> Refused:
    return Refused(400, "invalid_request_error", message)
