"""How an answer of the scripted model travels: as one JSON message or as server-sent events, whole or broken.

A failure of a script (`fail`) or of `/behave` is one of:

    {"status": 429, "type": "rate_limit_error", "retry_after": 2, "error_code": …, "message": …}   an error response
    {"sse_error": "overloaded_error", "after": 300}     an error event inside the stream, after so many bytes
    {"cut_after": 300, "reset": true}                   the connection ends after so many bytes, orderly or with RST
    {"unfinished": true}                                the stream ends in good order, but without a stop reason
    {"stall_after": 300}                                nothing more comes after so many bytes
    {"bad_chunk": true}                                 an event whose data is no JSON
    {"empty": true} · {"html": true}                    200 with nothing, 200 with a web page
    {"text": "…", "stop": "…", "category": …}           another answer: malformed text, max_tokens, a refusal

Nothing here decides when a failure happens: `app/embedded/model.py` counts requests.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from app.embedded import model_usage
from app.embedded.model_rules import ModelRequest, Refused
from app.embedded.model_scenarios import Script
from app.embedded.wire import Hangup, Reply, json_reply

PIECE: Final = 24
"""Characters of one delta: several tokens, as the real API sends them."""

FIRST_TOKEN: Final = 0.5
"""The part of an answer's time that passes before its first event."""

_HALF_PAIR: Final = re.compile("[\ud800-\udfff]")
"""What UTF-8 cannot carry: a model writes it as an escape."""

TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def message_of(
    request: ModelRequest, script: Script, *, number: int, prompt: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """The answer in the provider's shape. Its id follows from the conversation and the number of the request;
    `prompt` says what of the prompt's tokens the cache had."""
    read: Mapping[str, int] = prompt or {
        "input_tokens": request.input_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
    }
    written = read["cache_creation_input_tokens"]
    return {
        "id": f"msg_{request.digest[:20]}{number:04d}",
        "type": "message",
        "role": "assistant",
        "model": request.body["model"],
        "content": script.content,
        "stop_reason": script.stop_reason,
        "stop_sequence": None,
        "stop_details": {"type": "refusal", "category": script.category} if script.stop_reason == "refusal" else None,
        "usage": {
            **read,
            "cache_creation": {"ephemeral_5m_input_tokens": written, "ephemeral_1h_input_tokens": 0},
            "output_tokens": min(request.body["max_tokens"], model_usage.written_tokens(script)),
            "service_tier": "standard",
        },
    }


def error_reply(
    refused: Refused,
    *,
    request_id: str,
    told: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """An error in the provider's shape. `told` may add an error code and `retry_after`."""
    told = told or {}
    error: dict[str, Any] = {"type": refused.kind, "message": refused.message}
    if "error_code" in told:
        error["details"] = {"error_code": told["error_code"]}
    named = {"request-id": request_id, **(headers or {})}
    if "retry_after" in told:
        named["retry-after"] = str(told["retry_after"])
    return json_reply({"type": "error", "error": error, "request_id": request_id}, status=refused.status, headers=named)


def failed(failure: Mapping[str, Any], *, request_id: str) -> Reply | None:
    """The answer to a request that fails before there is a stream; None for failures inside one."""
    headers = {"request-id": request_id}
    if "status" in failure:
        status = int(failure["status"])
        kind = failure.get("type", TYPES.get(status, "api_error"))
        words = failure.get("message", f"scripted {kind}")
        return error_reply(Refused(status, kind, words), request_id=request_id, told=failure)
    if failure.get("empty"):
        return Reply(headers={**headers, "content-type": "text/event-stream"})
    if failure.get("html"):
        return Reply(body=b"<html>bad gateway</html>", headers={**headers, "content-type": "text/html"})
    return None


def altered(script: Script, failure: Mapping[str, Any]) -> Script:
    """Another answer instead of the right one, for failures that are answers."""
    if "text" not in failure and "stop" not in failure:
        return script
    content = [{"type": "text", "text": failure["text"]}] if "text" in failure else script.content
    stop = failure.get("stop", script.stop_reason)
    return replace(script, content=content, stop_reason=stop, category=failure.get("category"))


async def stream(
    message: dict[str, Any], *, seconds: float, failure: Mapping[str, Any], half: str | None = None
) -> AsyncIterator[bytes]:
    """The message as events, spread over its time; broken where `failure` says so. `half`: of `Script`."""
    events = list(_events(message, half=half))
    if failure.get("unfinished"):
        del events[-2:]
    if failure.get("bad_chunk"):
        events.insert(2, b'event: content_block_delta\ndata: {"type": "content_bl\n\n')
    pause = seconds * (1 - FIRST_TOKEN) / len(events)
    await asyncio.sleep(seconds * FIRST_TOKEN)
    left = next((int(failure[name]) for name in ("cut_after", "stall_after", "after") if name in failure), None)
    if left is None and "sse_error" in failure:
        left = len(events[0])
    for event in events:
        if left is not None and len(event) >= left:
            # An error event begins on its own; a cut happens anywhere.
            yield event if "sse_error" in failure else event[:left]
            await _break(failure)
            yield _event("error", {"error": {"type": failure["sse_error"], "message": "scripted"}, "type": "error"})
            return
        yield event
        left = None if left is None else left - len(event)
        if pause:
            await asyncio.sleep(pause)


async def _break(failure: Mapping[str, Any]) -> None:
    """How the stream ends here; returns only if an error event follows."""
    if "cut_after" in failure:
        await asyncio.sleep(0)  # lets the transport write what was yielded
        raise Hangup(reset=bool(failure.get("reset")))
    if "stall_after" in failure:
        await asyncio.get_running_loop().create_future()


def _events(message: Mapping[str, Any], *, half: str | None) -> Iterator[bytes]:
    usage = {**message["usage"], "output_tokens": 1}
    start = {**message, "content": [], "stop_reason": None, "stop_details": None, "usage": usage}
    yield _event("message_start", {"message": start})
    for index, block in enumerate(message["content"]):
        yield from _block_events(index, block, half=half if index == len(message["content"]) - 1 else None)
        if index == 0:
            yield _event("ping", {})
    delta = {name: message[name] for name in ("stop_reason", "stop_sequence", "stop_details")}
    yield _event("message_delta", {"delta": delta, "usage": {"output_tokens": message["usage"]["output_tokens"]}})
    yield _event("message_stop", {})


def _block_events(index: int, block: Mapping[str, Any], *, half: str | None) -> Iterator[bytes]:
    match block["type"]:
        case "text":
            empty: dict[str, Any] = {"type": "text", "text": ""}
            deltas = [{"type": "text_delta", "text": piece} for piece in _pieces(block["text"])]
        case "thinking":
            empty = {"type": "thinking", "thinking": "", "signature": ""}
            deltas = [{"type": "thinking_delta", "thinking": piece} for piece in _pieces(block["thinking"])]
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        case _:
            empty = {**block, "input": {}}
            written = _HALF_PAIR.sub(_escaped, json.dumps(block["input"], ensure_ascii=False) if half is None else half)
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in _pieces(written)]
    yield _event("content_block_start", {"index": index, "content_block": empty})
    for delta in deltas:
        yield _event("content_block_delta", {"index": index, "delta": delta})
    yield _event("content_block_stop", {"index": index})


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def _pieces(text: str) -> list[str]:
    return [text[begin : begin + PIECE] for begin in range(0, len(text), PIECE)]


def _event(name: str, data: Mapping[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n".encode()
