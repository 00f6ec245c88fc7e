"""What an MCP server replied to `tools/call`: found in its bytes, judged, and made into an output.

    read_reply(raw)       one JSON-RPC message → `Reply`, or None if it is no reply
    replies_in(body)      the messages of an event stream (WHATWG HTML §9.2.6)
    output_of(result)     `result` of a call → what the step or the model gets

A reply that no JSON reader takes (a lone surrogate, 20,000 brackets, a number of 5,000 digits) is still a reply: its
outer keys are found by scanning, so that a success never becomes a doubt because its content is odd. Nothing here
raises, or recurses by the depth of its input.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from app.domain.outcomes import JSON

_TOKEN: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[{}\[\]]|[^\s{}\[\],:"]++', re.DOTALL)
"""Each byte is looked at once (`++`, `*+`: nothing is given back), also of a string that never ends."""
_OPEN: Final = (b"{", b"[")
_CLOSE: Final = (b"}", b"]")
_LEVELS: Final = 2
"""`result` is on the first level of a message, `isError` on the second."""

_LINES: Final = re.compile(rb"\r\n|\r|\n")
_SAID: Final = 2_000
"""Letters of a tool's own error in a message: the model reads it, and the whole is in the evidence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """A response of JSON-RPC 2.0 (§5): a result or an error."""

    id: JSON
    result: JSON = None
    error: JSON = None
    is_error: bool = False
    """`isError` of the result: the tool's own word that it failed."""
    asks_back: bool = False
    """The result is none yet: the server wants its caller to answer something (MCP 2026-07-28, input_required)."""
    readable: bool = True
    """False: only its outer keys are known, and `result` is not."""

    @property
    def failed(self) -> bool:
        return self.error is not None


def read_reply(raw: bytes) -> Reply | None:
    try:
        message = json.loads(raw)
    except (ValueError, RecursionError):
        return _scanned(raw)
    if not isinstance(message, dict) or "method" in message:
        return None
    if isinstance(message.get("error"), dict):
        return Reply(id=message.get("id"), error=message["error"])
    if "result" not in message:
        return None
    result = message["result"]
    said: Mapping[str, JSON] = result if isinstance(result, dict) else {}
    return Reply(
        id=message.get("id"),
        result=result,
        is_error=said.get("isError") is True,
        asks_back=said.get("resultType") == "input_required",
    )


def _scanned(raw: bytes) -> Reply | None:
    """Its outer keys, of a message that cannot be read."""
    if not raw.lstrip().startswith(b"{"):
        return None
    found: dict[bytes, bytes] = {}
    """Outer key, or `result/…`, → its value's token; of an object or a list its bracket."""
    depth, open_object, keys, expects_value = 0, [False] * (_LEVELS + 1), [b""] * (_LEVELS + 1), False
    for match in _TOKEN.finditer(raw):
        token = match.group()
        level = depth if depth <= _LEVELS and open_object[depth] else 0
        if token in _CLOSE:
            depth, expects_value = depth - 1, False
        elif level and not expects_value:
            keys[level], expects_value = token.strip(b'"'), True
        else:
            if level:
                found.setdefault(b"/".join(keys[1 : level + 1]), token)
            expects_value = False
            if token in _OPEN:
                depth += 1
                if depth <= _LEVELS:
                    open_object[depth] = token == b"{"
    if depth:
        return None  # cut: whether it was going to say `isError`, nobody knows
    if b"method" in found or not {b"result", b"error"} & found.keys():
        return None
    return Reply(
        id=_scalar(found.get(b"id", b"null")),
        error={"message": "it cannot be read"} if b"result" not in found else None,
        is_error=found.get(b"result/isError") == b"true",
        readable=False,
    )


def _scalar(token: bytes) -> JSON:
    try:
        return json.loads(token)
    except ValueError:
        return None


def replies_in(body: bytes) -> Iterator[bytes]:
    """The data of each event. An event that is not ended by an empty line is not complete, and is left out."""
    data: list[bytes] = []
    for line in _LINES.split(body)[:-1]:
        if not line:
            if data:
                yield b"\n".join(data)
            data = []
        elif line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))


# --- what it means -------------------------------------------------------------------------------------------------


def output_of(result: JSON) -> JSON:
    """`structuredContent` if the tool gave it, else its text; what is no text is told by a descriptor."""
    if not isinstance(result, Mapping):
        return result
    if result.get("opaque") is True and "sha256" in result:  # what was stored could not be read
        return result
    if result.get("structuredContent") is not None:
        return result["structuredContent"]
    content = result.get("content")
    parts = [_part(block) for block in content if isinstance(block, Mapping)] if isinstance(content, list) else []
    if all(isinstance(part, str) for part in parts):
        return "\n".join(parts) if parts else None
    return parts


def _part(block: Mapping[str, JSON]) -> JSON:
    kind = block.get("type")
    if kind == "text":
        return str(block.get("text", ""))
    resource = block.get("resource")
    if kind == "resource" and isinstance(resource, Mapping):
        told = {"type": "resource", "uri": resource.get("uri"), "media_type": resource.get("mimeType")}
        if isinstance(resource.get("text"), str):
            return {**told, "text": resource["text"]}
        return {**told, "base64_characters": len(str(resource.get("blob") or ""))}
    told = {"type": kind, "uri": block.get("uri"), "name": block.get("name"), "media_type": block.get("mimeType")}
    if isinstance(block.get("data"), str):
        told["base64_characters"] = len(block["data"])
    return {key: value for key, value in told.items() if value is not None}


def said(reply: Reply) -> str:
    """Why it failed, in the tool's or the server's own words."""
    if reply.error is not None:
        code, message = reply.error.get("code"), reply.error.get("message")
        return f"{code}: {message}"[:_SAID] if code is not None else str(message)[:_SAID]
    if not reply.readable:
        return "its words cannot be read"
    output = output_of(reply.result)
    if output is None:
        return "it does not say more"
    text = output if isinstance(output, str) else json.dumps(output, ensure_ascii=False, default=str)
    return text[:_SAID]


def code(reply: Reply) -> int | None:
    value = None if reply.error is None else reply.error.get("code")
    return value if isinstance(value, int) else None
