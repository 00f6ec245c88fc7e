"""Answers of the scripted model that are longer than they may be: cut at `max_tokens`, or at the end of the window.

Cut as the real API cuts: text in the middle of a word, a tool use in the middle of its input. What was written of that
input travels in the stream; in the message itself it is empty, because half an object is none.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from app.domain import model_facts
from app.embedded.model_rules import CHARS_PER_TOKEN, ModelRequest
from app.embedded.model_scenarios import Script


def fitted(request: ModelRequest, script: Script) -> Script:
    """The answer as far as there is room for it. One that is scripted to be cut in a tool use loses half of that."""
    if script.stop_reason == "max_tokens" and script.content and script.content[-1]["type"] == "tool_use":
        return _halved(script)
    body = request.body
    window = model_facts.facts(body["model"]).window - request.input_tokens
    room = min(body["max_tokens"], window)
    if sum(_length(block) for block in script.content) <= room * CHARS_PER_TOKEN:
        return script
    return _cut(script, stop="max_tokens" if room == body["max_tokens"] else "model_context_window_exceeded", room=room)


def _halved(script: Script) -> Script:
    """Without the second half of its last tool use."""
    written = json.dumps(script.content[-1]["input"], ensure_ascii=False)
    return _with_half(script, script.content, written[: len(written) // 2])


def _cut(script: Script, *, stop: str, room: int) -> Script:
    left, kept = room * CHARS_PER_TOKEN, list[dict[str, Any]]()
    cutting = replace(script, stop_reason=stop)
    for block in script.content:
        if _length(block) <= left:
            kept.append(block)
            left -= _length(block)
        elif block["type"] == "tool_use":
            written = json.dumps(block["input"], ensure_ascii=False)
            return _with_half(cutting, [*kept, block], written[: max(0, left - len(block["name"]))])
        else:
            return replace(cutting, content=[*kept, *_shortened(block, left)])
    return replace(cutting, content=kept)


def _with_half(script: Script, content: list[dict[str, Any]], half: str) -> Script:
    return replace(script, content=[*content[:-1], {**content[-1], "input": {}}], half=half)


def _shortened(block: dict[str, Any], characters: int) -> list[dict[str, Any]]:
    name = block["type"]
    text = str(block.get(name, ""))[:characters]
    return [{**block, name: text}] if text.strip() else []


def _length(block: dict[str, Any]) -> int:
    if block["type"] in ("text", "thinking"):
        return len(block[block["type"]])
    return len(block["name"]) + len(json.dumps(block["input"], ensure_ascii=False))
