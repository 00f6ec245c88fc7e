"""A model's answer: what it says (`read_answer`) and what follows from it (`judge`).

    stop_reason None                  → network: the stream ended early; never look at its tools
    max_tokens                        → output_truncated, with or without half a tool use
    model_context_window_exceeded     → context_too_long
    refusal · pause_turn              → refused (with the category) · paused_turn
    tool uses                         → ToolCalls; what cannot be executed is listed in `refused`
    text, no output_schema            → Final(text)
    text, output_schema               → Final(value), or malformed_output (not JSON), wrong_shape (breaks the schema)
    the rest of an answer that was cut → as one text with the parts before it
    anything that breaks the protocol → malformed_output

JSON is read as RFC 8259 has it, with one liberty (§9 allows it): an answer that is, as a whole, one Markdown fence
around JSON is read as that JSON, because asking again would cost money and tell us nothing. JSON amid prose, several
fences, NaN or a trailing comma are malformed.

Pure. It never executes, retries or counts: `app/domain/recovery.py` says what is done about a failure.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from app.domain import bodies, schemas
from app.domain.conversation import wire_name
from app.domain.outcomes import JSON, Failure
from app.domain.states import FailureKind

MAX_TOOL_USES = 64
"""Tool uses in one answer: more is a model gone astray, and each is a row, a task and perhaps an effect."""

_FENCE = re.compile(r"\s*```(?:json)?[ \t]*\n(.*?)\n?[ \t]*```\s*", re.DOTALL | re.IGNORECASE)
_CALLING = frozenset({"tool_use", "end_turn", "stop_sequence"})
_FINISHED = frozenset({"end_turn", "stop_sequence"})


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolUse:
    id: str
    """The provider's id, which its result must carry."""
    name: str
    """As the model said it; in `ToolCalls` the tool's own name, if it was offered."""
    input: JSON
    ordinal: int
    """Position among the answer's tool uses, from 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    stop_reason: str | None
    text: str
    """Its text blocks, joined."""
    tool_uses: tuple[ToolUse, ...]
    problems: tuple[str, ...]
    """How it breaks the protocol; then nothing of it is executed."""
    refusal: str | None = None
    """The category of a refusal, if the provider names one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Final:
    value: JSON


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolCalls:
    uses: tuple[ToolUse, ...]
    refused: Mapping[int, Failure] = field(default_factory=dict)
    """By ordinal: what is not executed, and the sentence the model gets instead (`is_error`)."""


def read_answer(message: JSON) -> Answer:
    """Reads the provider's message as `to_dict(mode="json")` gave it. Never raises: what is odd is a problem."""
    if not isinstance(message, Mapping):
        return Answer(stop_reason=None, text="", tool_uses=(), problems=("the answer is not a message",))
    if message.get("opaque") is True:  # its bytes could not be read as JSON that can be stored (`bodies.read_body`)
        problem = f"The answer holds text that cannot be stored: {_text(message.get('reason')) or 'unreadable'}."
        return Answer(stop_reason="end_turn", text="", tool_uses=(), problems=(problem,))
    content = message.get("content")
    blocks = [block for block in content if isinstance(block, Mapping)] if isinstance(content, list) else []
    uses = tuple(
        ToolUse(id=_text(block.get("id")), name=_text(block.get("name")), input=block.get("input"), ordinal=ordinal)
        for ordinal, block in enumerate(block for block in blocks if block.get("type") == "tool_use")
    )
    details = message.get("stop_details")
    stop_reason = message.get("stop_reason")
    return Answer(
        stop_reason=stop_reason if isinstance(stop_reason, str) else None,
        text="".join(_text(block.get("text")) for block in blocks if block.get("type") == "text"),
        tool_uses=uses,
        problems=tuple(_protocol_problems(content, stop_reason, uses)),
        refusal=(_text(details.get("category")) or None) if isinstance(details, Mapping) else None,
    )


def judge(
    answer: Answer,
    *,
    output_schema: Mapping[str, JSON] | None,
    offered: frozenset[str],
    max_tool_uses: int = MAX_TOOL_USES,
    before: str = "",
) -> Final | ToolCalls | Failure:
    """What follows from the answer. `offered` are the tools' own names; `output_schema` is a full JSON Schema; `before`
    the text of the parts that came before it, where an answer was cut and continued."""
    stopped = _stopped(answer)
    if stopped is not None:
        return stopped
    if answer.problems:
        return _malformed(answer.problems[0], "Ask again; if it stays, look at the server behind ANTHROPIC_BASE_URL.")
    if len(answer.tool_uses) > max_tool_uses:
        return _malformed(f"The model asked for {len(answer.tool_uses)} tools at once, {max_tool_uses} are allowed.")
    if answer.tool_uses:
        return _tool_calls(answer.tool_uses, offered)
    text = before + answer.text
    if not text.strip():
        return _malformed("The model ended its turn without an answer.")
    if output_schema is None:
        return _storable(text)
    joined = _structured(text, output_schema)
    if before and isinstance(joined, Failure):
        # A model whose output is held to a schema cannot begin in the middle: it says the whole again.
        alone = _structured(answer.text, output_schema)
        return alone if isinstance(alone, Final) else joined
    return joined


def _stopped(answer: Answer) -> Failure | None:
    """The failure that the stop reason alone decides."""
    match answer.stop_reason:
        case None:
            return Failure(
                kind=FailureKind.NETWORK,
                message="The model's answer ended early; nothing of it was used.",
                fix="Nothing to do: the same request is sent again.",
            )
        case "max_tokens":
            half = bool(answer.tool_uses)
            return Failure(
                kind=FailureKind.OUTPUT_TRUNCATED,
                message="The answer was cut at max_tokens" + (" in the middle of a tool call." if half else "."),
                fix="Raise the agent's `max_tokens`, or ask for less at once.",
                detail={"half_tool_call": half},
            )
        case "model_context_window_exceeded":
            return Failure(
                kind=FailureKind.CONTEXT_TOO_LONG,
                message="The conversation no longer fits the model's window.",
                fix="Split the task into steps, or let its tools return less.",
            )
        case "refusal":
            category = answer.refusal if answer.refusal and _sane(answer.refusal) else "unnamed"
            return Failure(
                kind=FailureKind.REFUSED,
                message=f"The model refused to answer (category: {category}).",
                fix="Change the prompt or the model; the same request would be refused again.",
                detail={"category": category},
            )
        case "pause_turn":
            return Failure(
                kind=FailureKind.PAUSED_TURN,
                message="The provider paused a long turn.",
                fix="Nothing to do: the turn is continued.",
            )
    return None


def _protocol_problems(content: JSON, stop_reason: JSON, uses: Sequence[ToolUse]) -> Iterator[str]:
    if not isinstance(content, list) or not all(isinstance(block, Mapping) for block in content):
        yield "The answer's content is not a list of blocks."
    if stop_reason == "tool_use" and not uses:
        yield "The model stopped to use a tool but named none."
    if uses and isinstance(stop_reason, str) and stop_reason not in _CALLING:
        yield f"The answer asks for tools but its stop reason is {stop_reason!r:.60}."
    if not uses and isinstance(stop_reason, str) and stop_reason not in _FINISHED | {"tool_use"}:
        yield f"The stop reason {stop_reason!r:.60} is not known."
    if any(not _sane(use.id) or not _sane(use.name) for use in uses):
        yield "A tool use has no id or no name that could be stored."
    twice = [used for used, times in Counter(use.id for use in uses).items() if times > 1]
    if twice:
        yield f"Tool use id {twice[0]!r:.80} occurs more than once."


def _tool_calls(uses: Sequence[ToolUse], offered: frozenset[str]) -> ToolCalls:
    names = {wire_name(name): name for name in offered}
    known = tuple(
        ToolUse(id=use.id, name=names.get(use.name, use.name), input=use.input, ordinal=use.ordinal) for use in uses
    )
    refused = {use.ordinal: failure for use in uses if (failure := _refusal(use, names)) is not None}
    return ToolCalls(uses=known, refused=refused)


def _refusal(use: ToolUse, names: Mapping[str, str]) -> Failure | None:
    if use.name not in names:
        listed = ", ".join(sorted(names)) or "none"
        return Failure(
            kind=FailureKind.TOOL_UNKNOWN,
            message=f"There is no tool named {use.name!r:.80}. Available: {listed}.",
            fix="List the tool under the agent's `tools`, or name the right one in its instructions.",
        )
    if not isinstance(use.input, Mapping):
        return _invalid_arguments([{"pointer": "", "message": "the arguments are not a JSON object"}])
    unstorable = bodies.hygiene(use.input)
    if unstorable:
        return _invalid_arguments([{"pointer": pointer, "message": reason} for pointer, reason in unstorable])
    return None


def _invalid_arguments(errors: list[dict[str, JSON]]) -> Failure:
    return Failure(
        kind=FailureKind.TOOL_ARGUMENTS_INVALID,
        message=_first(errors),
        fix="Describe the tool's arguments more exactly in its `description` and `input_schema`.",
        detail={"errors": errors},
    )


def _structured(text: str, schema: Mapping[str, JSON]) -> Final | Failure:
    fenced = _FENCE.fullmatch(text)
    try:
        value = json.loads(fenced.group(1) if fenced else text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        return _malformed(f"{error.msg}, line {error.lineno} col {error.colno}")
    except (ValueError, RecursionError) as error:
        return _malformed("The JSON is nested too deeply." if isinstance(error, RecursionError) else str(error)[:200])
    unstorable = _storable(value)
    if isinstance(unstorable, Failure):
        return unstorable
    errors: list[dict[str, JSON]] = [
        {"pointer": error.pointer, "message": error.message} for error in schemas.validate(schema, value)
    ]
    if errors:
        return Failure(
            kind=FailureKind.WRONG_SHAPE,
            message=_first(errors),
            fix="Say in the prompt what is wanted, or loosen the step's `output_schema`.",
            detail={"errors": errors},
        )
    return Final(value=value)


def _storable(value: JSON) -> Final | Failure:
    """A value that could not be stored is asked for again, like any other that cannot be read."""
    unstorable = bodies.hygiene(value)
    if not unstorable:
        return Final(value=value)
    pointer, reason = unstorable[0]
    return _malformed(f"{pointer}: {reason}" if pointer else reason)


def _malformed(message: str, fix: str = "Say in the prompt what is wanted, and show an example.") -> Failure:
    return Failure(
        kind=FailureKind.MALFORMED_OUTPUT,
        message=message,
        fix=fix,
        detail={"errors": [{"pointer": "", "message": message}]},
    )


def _first(errors: Sequence[Mapping[str, JSON]]) -> str:
    pointer, message = errors[0]["pointer"], errors[0]["message"]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return (f"{pointer}: {message}" if pointer else str(message)) + more


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")


def _sane(name: str) -> bool:
    """A name that any log, row or header can hold."""
    return bool(name) and name.isascii() and name.isprintable()


def _text(value: JSON) -> str:
    return value if isinstance(value, str) else ""
