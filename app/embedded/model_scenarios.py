"""What the scripted model answers. It decides from the conversation alone, so a restart changes nothing.

1. The demo's two prompts. `Extract the meeting from: …` is first answered with JSON that lacks a comma, then, after
   any reminder, with the right JSON; `Pick a start. Busy times: …` is answered with the first free half hour.
2. A directive in the first user message, for tests and for people who try things out (`docs/scripted_model.md`):

       [[scripted: {"turns": [{"tools": [{"name": "calendar.free_busy", "input": {"email": "a@x.io"}}]},
                              {"fail": [{"status": 529}], "json": {"found": true}}]}]]

   One turn per answer of the model, the last one repeated (a list is short for `{"turns": list}`):
     text | json | tools            what it says; a tool's id and position follow from the turn unless `id` is given
     thinking                       a signed thinking block before it
     stop, category                 the stop reason, else end_turn or tool_use; the category of a refusal
     fail                           what happens instead to the first requests of this turn (`model_reply.py`)
     latency_ms                     how long it takes
   `"loop": true` begins again after the last turn. `"on": [{"says": "…", "model": "…", …turn}]` comes first: that turn
   is answered whenever the words stand in what was said to the model last (the directive itself does not count), or
   the model's id holds those letters. An answer that is longer than `max_tokens`, or than the window, is cut there.
   A summary that Surefoot asks for is given without a turn of its own, and the script goes on after it; where
   `tool_choice` forbids tools, a turn of tools is answered as under 3.
3. Anything else: a minimal instance of the output format's schema, or one sentence that says what this is.

Pure: bytes in, a script out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import pairwise
from typing import Any, Final

from app.domain import summaries
from app.domain.conversation import wire_name
from app.embedded.model_rules import ModelRequest, Refused, signature

MEETING: Final = "Extract the meeting from:"
CHOICE: Final = "Busy times:"
_DIRECTIVE: Final = "[[scripted:"
_ADDRESS: Final = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*-?\s*(h(?:ours?|rs?)?|min(?:ute)?s?|m)\b", re.IGNORECASE)
_SUBJECT: Final = re.compile(r"\b(?:about|to discuss|titled|called)\s+[\"']?([^\"'.,;\n]+)", re.IGNORECASE)
_SUMMARISED: Final = re.compile(r"Scripted summary after (\d+) answers")
"""So that a script goes on where it was, in a conversation that begins with the model's own summary."""
_HEADS: Final = re.compile(r"^\[(assistant|user|system|result)\b.*\]$", re.MULTILINE)
"""The heads of a transcript's entries (`app/domain/transcripts.py`)."""
_LIMIT: Final = re.compile(r"(minimum|minLength|minItems): (-?\d+)")
"""Limits that the format cannot say are written into the description by the SDK: `{minimum: 15, maximum: 240}`."""
_EXAMPLES: Final = {
    "date-time": "2026-01-05T09:00:00Z",
    "date": "2026-01-05",
    "time": "09:00:00Z",
    "duration": "PT30M",
    "email": "someone@example.com",
    "hostname": "example.com",
    "uri": "https://example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Script:
    """One answer, and what goes wrong before it is given."""

    content: list[dict[str, Any]]
    stop_reason: str
    category: str | None = None
    fail: list[dict[str, Any]] = field(default_factory=list)
    latency_ms: int | None = None
    half: str | None = None
    """Of a last tool use that was cut: what was written of its input."""


def script(request: ModelRequest) -> Script:
    """What follows in this conversation. Raises `Refused` for a directive that cannot be read."""
    prompt = text_of(request.messages[0]["content"])
    turn = sum(message["role"] == "assistant" for message in request.messages)
    turn += max((int(n) for n in _SUMMARISED.findall(prompt)), default=0)
    if prompt.startswith(summaries.TRANSCRIPT_HEAD):  # whatever was a directive in it may be cut
        return _unscripted(request, prompt, turn + _answers_of(prompt))
    if _DIRECTIVE in prompt:
        return _scripted(request, prompt, turn)
    return _unscripted(request, prompt, turn)


def _answers_of(transcript: str) -> int:
    """How many answers of the model a transcript holds: one may ask for several tools."""
    heads = ["", *_HEADS.findall(transcript)]
    return sum(one == "assistant" != before for before, one in pairwise(heads))


def _unscripted(request: ModelRequest, prompt: str, turn: int) -> Script:
    if summaries.INSTRUCTION in text_of(request.messages[-1]["content"]):
        return _say(f"Scripted summary after {turn} answers. Facts: none that the scripted model would know of.")
    if MEETING in prompt:
        return _say(_meeting(prompt.split(MEETING, 1)[1], well_formed=turn > 0))
    if CHOICE in prompt and "start" in prompt:
        return _say(_choice(prompt.split(CHOICE, 1)[1]))
    schema = ((request.body.get("output_config") or {}).get("format") or {}).get("schema")
    if schema is not None:
        return _say(json.dumps(instance(schema, schema), indent=2))
    return _say(
        f"This is the scripted model, not Claude. It read {request.input_tokens} tokens: {prompt.strip()[:200]}"
    )


def text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(str(block.get("text", "")) for block in content if block.get("type") == "text")


def instance(schema: Any, root: Mapping[str, Any]) -> Any:
    """A minimal value that fits the schema, as far as the subset for structured outputs goes."""
    if "$ref" in schema:
        return instance(root.get("$defs", {}).get(schema["$ref"].rsplit("/", 1)[-1], {}), root)
    for word in ("const", "default"):
        if word in schema:
            return schema[word]
    for word in ("enum", "examples"):
        if schema.get(word):
            return schema[word][0]
    for word in ("anyOf", "allOf", "oneOf"):
        if schema.get(word):
            return instance(schema[word][0], root)
    limits = {name: int(number) for name, number in _LIMIT.findall(schema.get("description", ""))}
    match schema.get("type"):
        case "object":
            needed = schema.get("required", [])
            return {name: instance(part, root) for name, part in schema.get("properties", {}).items() if name in needed}
        case "array":
            least = max(limits.get("minItems", 0), schema.get("minItems", 0))
            return [instance(schema.get("items", {}), root) for _ in range(least)]
        case "string":
            return _EXAMPLES.get(schema.get("format", ""), "text".ljust(limits.get("minLength", 0), "."))
        case "integer" | "number":
            return limits.get("minimum", 0)
        case "boolean":
            return True
    return None


def _scripted(request: ModelRequest, prompt: str, turn: int) -> Script:
    try:
        told, end = _directive(prompt)
        if not prompt[end:].lstrip().startswith("]]"):
            raise ValueError("it does not end with ]]")
        chosen = _chosen(request, told if isinstance(told, dict) else {"turns": told}, turn)
        return _unscripted(request, prompt[end:], turn) if chosen is None else _turn(request, chosen, turn)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        # A typing error in a test's directive is answered in words, like any other bad request.
        words = f"[[scripted: …]] cannot be read: {type(error).__name__}: {error}"
        raise Refused(400, "invalid_request_error", words) from error


def _directive(prompt: str) -> tuple[Any, int]:
    """What it says, and where it ends. Raises ValueError."""
    begin = prompt.index(_DIRECTIVE) + len(_DIRECTIVE)
    begin += len(prompt[begin:]) - len(prompt[begin:].lstrip())
    return json.JSONDecoder().raw_decode(prompt, begin)


def _chosen(request: ModelRequest, told: Mapping[str, Any], turn: int) -> Mapping[str, Any] | None:
    """The turn that is to be answered now. None if no turn fits: a summary is asked for, or no tool may be used."""
    said: str | None = None
    for rule in told.get("on", ()):
        said = _said_last(request) if said is None else said
        if rule.get("says", "") in said and rule.get("model", "") in request.body["model"]:
            return dict(rule)
    if summaries.INSTRUCTION in text_of(request.messages[-1]["content"]):
        return None
    turns = told["turns"]
    chosen = dict(turns[turn % len(turns) if told.get("loop") else min(turn, len(turns) - 1)])
    forbidden = (request.body.get("tool_choice") or {}).get("type") == "none"
    return None if forbidden and chosen.get("tools") else chosen


def _said_last(request: ModelRequest) -> str:
    """Every text since the model's last answer: of users, of the system, of tools; the directives left out."""
    texts: list[str] = []
    for index in range(len(request.messages) - 1, -1, -1):
        message = request.messages[index]
        if message["role"] == "assistant":
            break
        content = message["content"]
        blocks = [] if isinstance(content, str) else content
        texts += [str(block.get("content", "")) for block in blocks if block.get("type") == "tool_result"]
        texts.append(text_of(content) if index else _undirected(text_of(content)))
    return "\n".join(texts)


def _undirected(text: str) -> str:
    while _DIRECTIVE in text:
        text = text[: text.index(_DIRECTIVE)] + text[_directive(text)[1] :]
    return text


def _turn(request: ModelRequest, turn: Mapping[str, Any], number: int) -> Script:
    content: list[dict[str, Any]] = []
    if "thinking" in turn:
        content.append(_thinking(request, turn["thinking"]))
    text = json.dumps(turn["json"], indent=2) if "json" in turn else turn.get("text")
    if text:
        content.append({"type": "text", "text": text})
    for ordinal, tool in enumerate(turn.get("tools", [])):
        made = "toolu_" + sha256(f"{request.digest}/{number}/{ordinal}".encode()).hexdigest()[:20]
        name = tool["name"] if tool.get("verbatim") else wire_name(tool["name"])
        content.append({"type": "tool_use", "id": tool.get("id", made), "name": name, "input": tool.get("input", {})})
    stop = turn.get("stop", "tool_use" if turn.get("tools") else "end_turn")
    if stop == "pause_turn":  # only a tool of the provider's own pauses a turn
        made = "srvtoolu_" + sha256(f"{request.digest}/{number}".encode()).hexdigest()[:20]
        content.append({"type": "server_tool_use", "id": made, "name": "web_search", "input": {"query": "scripted"}})
    return Script(
        content=content,
        stop_reason=stop,
        category=turn.get("category"),
        fail=list(turn.get("fail", [])),
        latency_ms=turn.get("latency_ms"),
    )


def _thinking(request: ModelRequest, thinking: str) -> dict[str, Any]:
    bound = signature(request.body, len(request.messages), thinking=thinking, maker=request.body["model"])
    return {"type": "thinking", "thinking": thinking, "signature": bound}


def _say(text: str) -> Script:
    return Script(content=[{"type": "text", "text": text}], stop_reason="end_turn")


def _meeting(text: str, *, well_formed: bool) -> str:
    """The meeting as JSON, a comma missing between the attendees (or before them) unless it is well formed."""
    attendees = list(dict.fromkeys(address.rstrip(".") for address in _ADDRESS.findall(text)))
    subject = _SUBJECT.search(_ADDRESS.sub("", text))
    title = subject.group(1).strip() if subject else "Meeting with " + ", ".join(a.split("@")[0] for a in attendees)
    listed = (", " if well_formed else " ").join(json.dumps(address) for address in attendees)
    after = "," if well_formed or len(attendees) > 1 else ""
    return f'{{\n  "title": {json.dumps(title)},\n  "minutes": {_minutes(text)}{after}\n  "attendees": [{listed}]\n}}'


def _minutes(text: str) -> int:
    """The meeting's length, between a quarter of an hour and four hours."""
    found = _DURATION.search(text)
    if found is None:
        return 60 if re.search(r"\ban hour\b", text) else 30
    number = float(found.group(1)) * (60 if found.group(2).lower().startswith("h") else 1)
    return int(min(240, max(15, number)))


def _choice(text: str) -> str:
    """The first half hour, from 13:00 on, in which nobody is busy on the day that the busy times are about."""
    try:
        people, _ = json.JSONDecoder().raw_decode(text.lstrip())
        busy = [(_instant(b["start"]), _instant(b["end"])) for p in people for b in (p or {}).get("busy", [])]
    except (ValueError, KeyError, TypeError, AttributeError):
        busy = []
    if not busy:
        return json.dumps({"found": False, "start": "1970-01-01T00:00:00Z"}, indent=2)
    noon = min(start for start, _ in busy).replace(hour=13, minute=0, second=0)
    for step in range(10):
        start = noon + timedelta(minutes=30 * step)
        if all(end <= start or begin >= start + timedelta(minutes=30) for begin, end in busy):
            found = start.isoformat().replace("+00:00", "Z")
            return json.dumps({"found": True, "start": found}, indent=2)
    return json.dumps({"found": False, "start": noon.isoformat().replace("+00:00", "Z")}, indent=2)


def _instant(text: str) -> datetime:
    instant = datetime.fromisoformat(text)
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)
