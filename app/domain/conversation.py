"""A conversation with a model, as bytes that never change once written.

Every message is the bytes of one JSON object `{"role": …, "content": …}`. A request is rendered from these bytes, so
its prefix is the same in every attempt and every turn: newer models sign each thinking block over all that came
before it, and a later edit is refused. Hence nothing here trims, reorders or edits a message: it only makes new ones.

    user_message            the prompt
    assistant_message       the model's answer, its content verbatim
    tool_results_message    one result per tool use, in their order, nothing after them
    format_reminder         what was wrong with a final answer
    repair                  the messages to append after an invalid final answer
    continue_message        asks for the rest of an answer that was cut
    note                    something the engine has to say in mid-conversation
    without_thinking        a message as a model gets it that cannot read another's thinking
    in_role                 a note as a model gets it that takes no system messages
    check                   every rule a request would break, in words; empty if it may be sent
    wire_name, tool_param   a tool as the provider wants to see it

Pure: no clock, no randomness, no I/O. It never decides what happens next (`app/domain/answers.py` judges answers).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from app.domain.outcomes import JSON

RESULT_HEAD: Final = 40_000
RESULT_TAIL: Final = 8_000
"""Characters of a tool's result that the model sees: some 12,000 tokens, so that one careless tool cannot fill the
window. The head has the structure and the tail the newest lines; the whole result stays in the evidence."""

REMINDER_ERRORS: Final = 20
"""Errors listed in a reminder: beyond that the list helps nobody and costs tokens."""

_THINKING: Final = ("thinking", "redacted_thinking")

_WIRE_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
"""What the Messages API accepts as the name of a tool; the stricter of its limits on length."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolResult:
    tool_use_id: str
    value: JSON
    """The tool's output, or the sentence that says why there is none."""
    is_error: bool = False


def user_message(text: str) -> bytes:
    return _message("user", _clean(text))


def assistant_message(message: Mapping[str, JSON]) -> bytes:
    """The answer as it goes into the conversation: `message` is the provider's, its content is kept verbatim."""
    return _message("assistant", message["content"])


def tool_results_message(results: Sequence[ToolResult]) -> bytes:
    """One user message with every result. The caller gives them in the order of the tool uses they answer."""
    return _message("user", [_result_block(result) for result in results])


def results_and_digests(results: Sequence[ToolResult]) -> tuple[bytes, list[bytes]]:
    """That message, and of each result what tells it from another as the model sees it."""
    blocks = [_result_block(result) for result in results]
    seen = [hashlib.sha256(f"{bool(block.get('is_error'))}{block['content']}".encode()).digest() for block in blocks]
    return _message("user", blocks), seen


def continue_message() -> bytes:
    """Asks for the rest of an answer that was cut. The parts are joined as they are: hence the exactness."""
    return user_message(
        "Your reply was cut off at its length limit. Continue it exactly where it stopped, in the middle of a word if "
        "need be: repeat nothing, and add no introduction."
    )


def note(text: str, *, role: str) -> bytes:
    """Something the engine has to say: a `system` message where the model takes one there, else a `user` message."""
    return _message(role, _clean(text))


def without_thinking(body: bytes) -> bytes | None:
    """The message without its thinking blocks; None if nothing else was in it."""
    message = json.loads(body)
    content = message["content"]
    if not isinstance(content, list) or not holds_thinking(content):
        return body
    kept = [block for block in content if block.get("type") not in _THINKING]
    return _message(message["role"], kept) if kept else None


def in_role(body: bytes, *, role: str) -> bytes:
    """The message as one of that role; the same bytes if it is."""
    message = json.loads(body)
    return body if message["role"] == role else _message(role, message["content"])


def holds_thinking(content: JSON) -> bool:
    blocks = content if isinstance(content, list) else []
    return any(isinstance(block, Mapping) and block.get("type") in _THINKING for block in blocks)


def format_reminder(errors: Sequence[Mapping[str, JSON]], schema: Mapping[str, JSON] | None) -> bytes:
    """Asks again after an invalid final answer. `errors` are `{"pointer", "message"}` as `answers.judge` lists them."""
    listed = [_error_line(error) for error in errors[:REMINDER_ERRORS]]
    if len(errors) > REMINDER_ERRORS:
        listed.append(f"- and {len(errors) - REMINDER_ERRORS} more")
    if schema is None:
        text = "Your last reply could not be used:\n" + "\n".join(listed) + "\nReply again, with your answer only."
    else:
        text = (
            "Your last reply could not be used:\n" + "\n".join(listed) + "\n\n"
            "Reply again with one JSON value that fits this JSON Schema, and nothing else: no prose, no code fence.\n"
            + json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
        )
    return user_message(text)


def repair(
    message: Mapping[str, JSON], *, errors: Sequence[Mapping[str, JSON]], schema: Mapping[str, JSON] | None
) -> tuple[bytes, ...]:
    """What to append after an invalid final answer: the answer and the reminder.

    An answer that is empty or asks for tools cannot stay in a well-formed conversation without results: then the
    reminder alone follows, as a second user message (the provider joins consecutive user turns).
    """
    reminder = format_reminder(errors, schema)
    return (assistant_message(message), reminder) if can_stay(message.get("content")) else (reminder,)


def can_stay(content: JSON) -> bool:
    """Whether an answer with that content may be followed by a message that holds no results."""
    blocks = content if isinstance(content, list) else []
    return bool(blocks) and all(_can_stay(block) for block in blocks)


def is_paused(content: JSON) -> bool:
    """Whether a turn was paused after it: its last block asks for a tool of the provider's own. Only such a message may
    stand at the end of a request, and the answer to it stands right behind it."""
    blocks = content if isinstance(content, list) else []
    last = blocks[-1] if blocks else None
    return isinstance(last, Mapping) and last.get("type") == "server_tool_use"


def result_text(value: JSON) -> str:
    """A result as the model reads it: text as it is, anything else as compact JSON, the middle left out if long."""
    text = _clean(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":")))
    left_out = len(text) - RESULT_HEAD - RESULT_TAIL
    if left_out <= 0:
        return text
    note = f"\n[… {left_out:,} of {len(text):,} characters left out here …]\n"
    return text[:RESULT_HEAD] + note + text[-RESULT_TAIL:]


def wire_name(name: str) -> str:
    """The name under which a tool is offered to the model: `calendar.free_busy` → `calendar-free_busy`.

    The provider refuses dots. No two names become one: a name that holds a hyphen already, or anything else that
    the provider refuses, carries a digest of itself.
    """
    dashed = name.replace(".", "-")
    if "-" not in name and _WIRE_NAME.fullmatch(dashed):
        return dashed
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return re.sub(r"[^a-zA-Z0-9_-]", "_", dashed)[:54] + "-" + digest


def tool_param(*, name: str, description: str, input_schema: Mapping[str, JSON] | None) -> dict[str, JSON]:
    """A tool as the Messages API declares it. `input_schema` is a full JSON Schema; None accepts any object."""
    return {
        "name": wire_name(name),
        "description": description,
        "input_schema": {"type": "object"} if input_schema is None else dict(input_schema),
    }


def check(messages: Sequence[bytes]) -> list[str]:
    """Every rule of the Messages API that a request with these messages would break; empty if it may be sent."""
    read = parsed(messages)
    if not read:
        return ["a conversation needs at least one message"]
    problems = list(_problems(read))
    if read[-1].get("role") == "assistant" and not is_paused(read[-1].get("content")):
        problems.append(f"messages.{len(read) - 1}: nothing follows the assistant's last message")
    return problems


def parsed(messages: Sequence[bytes]) -> list[dict[str, JSON]]:
    """The messages as values. Read as one text: 400 of them take less than half of the time of 400 texts."""
    read: list[dict[str, JSON]] = json.loads(b"[" + b",".join(messages) + b"]")
    if len(read) != len(messages):
        raise ValueError(f"{len(messages)} messages are {len(read)} values")
    return read


def _problems(messages: Sequence[Mapping[str, JSON]]) -> Iterator[str]:
    awaited: list[str] = []
    """Ids of the tool uses of the previous message: this one must answer them, in this order, and nothing else."""
    seen: set[str] = set()
    before = "none"
    for index, message in enumerate(messages):
        role, content, place = message.get("role"), message.get("content"), f"messages.{index}"
        blocks = content if isinstance(content, list) else []
        if set(message) != {"role", "content"} or role not in ("user", "assistant", "system"):
            yield f"{place}: a message has a role (user, assistant or system) and a content, nothing else"
        if not content or not isinstance(content, str | list):
            yield f"{place}: the content is empty"
        if role == "assistant" and before not in ("user", "system", "paused"):
            yield f"{place}: an assistant message follows a user message"
        if role == "system" and before != "user":
            yield f"{place}: a system message follows a user message"
        yield from _result_problems(place, role, blocks, awaited)
        awaited = _ids(blocks, "tool_use", "id") if role == "assistant" else []
        for used in awaited:
            if used in seen:
                yield f"{place}: tool use {used} occurs twice"
            seen.add(used)
        before = "paused" if role == "assistant" and is_paused(content) else str(role)


def _result_problems(place: str, role: JSON, blocks: Sequence[JSON], awaited: Sequence[str]) -> Iterator[str]:
    given = _ids(blocks, "tool_result", "tool_use_id")
    if not given and not awaited:
        return
    if role != "user" or sorted(given) != sorted(awaited):
        yield f"{place}: expected results of {list(awaited)}, found {given}"
    elif given != list(awaited):
        yield f"{place}: the results are not in the order of the tool uses"
    elif len(blocks) > len(given):
        yield f"{place}: something stands beside the tool results"


def _ids(blocks: Sequence[JSON], kind: str, field: str) -> list[str]:
    return [str(block.get(field)) for block in blocks if isinstance(block, Mapping) and block.get("type") == kind]


def _can_stay(block: JSON) -> bool:
    """A block that the provider takes back without a result to it: it refuses empty text and unanswered tool uses."""
    if not isinstance(block, Mapping) or block.get("type") in ("tool_use", "server_tool_use"):
        return False
    return block.get("type") != "text" or bool(str(block.get("text", "")).strip())


def _result_block(result: ToolResult) -> dict[str, JSON]:
    block: dict[str, JSON] = {
        "type": "tool_result",
        "tool_use_id": result.tool_use_id,
        "content": result_text(result.value),
    }
    if result.is_error:
        block["is_error"] = True
    return block


def _error_line(error: Mapping[str, JSON]) -> str:
    pointer, message = error.get("pointer") or "", error.get("message")
    return f"- {pointer}: {message}" if pointer else f"- {message}"


def _clean(text: str) -> str:
    """Text that every receiver takes: NUL and lone surrogates (which UTF-8 cannot carry) become U+FFFD."""
    joined = text.replace("\x00", "\ufffd").encode("utf-16-le", "surrogatepass")
    return joined.decode("utf-16-le", "replace")


def _message(role: str, content: JSON) -> bytes:
    return json.dumps({"role": role, "content": content}, ensure_ascii=False, separators=(",", ":")).encode()
