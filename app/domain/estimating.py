"""The worst case of a call, before it is made: what a budget sets aside for it.

    weigh(draft)            counts what was appended to conversations since, on the rows of their steps
    learn(row, call, usage) the provider has counted a whole conversation: its count stands for ours
    worst(draft, call)      tokens and money that the call may take at most, one turn or one tool call

The estimate must be an upper bound, because only what was set aside can be spent: two bytes for a token (no text is
shorter in any tokenizer we know; English has four), every output token that the request allows, the dearest price that
its tokens may be billed at. What a later answer counts exactly replaces the guess for everything before it.

Only workflows with a budget are weighed; the counts are three numbers in `StepRow.counters`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from app.domain import canonical
from app.domain.aggregate import Call, Message, StepRow
from app.domain.outcomes import Usage
from app.domain.states import CallKind

if TYPE_CHECKING:
    from app.domain.transition import Draft

BYTES_A_TOKEN: Final = 2
"""Fewer bytes than any token of text has on average, JSON around it included."""
MESSAGE: Final = 16
"""Tokens around each message: its role and frame."""
SYSTEM: Final = 1_000
"""Tokens that the provider adds to a request by itself: its own prompt for tools, and for an output format."""
INSTRUCTION: Final = 2_000
"""Tokens of an instruction that is sent and not stored: that of a summary."""

CONVERSATION: Final = "weighed_conversation"
TOKENS: Final = "weighed_tokens"
ANSWER: Final = "weighed_answer"
WEIGHED: Final = (CONVERSATION, TOKENS, ANSWER)
"""Counters of an agent step: which conversation, its tokens, and the ordinal of the answer that they include."""
_ASIDE: Final = "summary"
"""A call that is not one of the conversation it reads."""


def tokens_of(size: int) -> int:
    """Of that many bytes, at most."""
    return -(-size // BYTES_A_TOKEN)


def weigh(draft: Draft) -> None:
    """Count the messages that this decision has appended and not counted yet."""
    messages = draft.transition.messages
    for message in messages[draft.weighed :]:
        row = draft.snapshot.steps.get(message.step)
        if row is not None:
            _add(draft, row, message)
    draft.weighed = len(messages)


def _add(draft: Draft, row: StepRow, message: Message) -> None:
    counters = row.counters
    if counters.get(CONVERSATION) != message.conversation:
        counters = {**counters, CONVERSATION: message.conversation, TOKENS: _frame(draft, row), ANSWER: -1}
    known = message.role == "assistant" and message.ordinal == counters[ANSWER]
    more = 0 if known else tokens_of(len(message.body)) + MESSAGE
    row.counters = {**counters, TOKENS: counters[TOKENS] + more}
    draft.touch(row)


def _frame(draft: Draft, row: StepRow) -> int:
    """Instructions, tools and the output's schema: sent with every request."""
    step = draft.plan.steps[row.name]
    agent = step.agent
    if agent is None:
        return SYSTEM
    found = draft.plan.tools
    declared = [
        {"name": name, "description": found[name].description, "input_schema": found[name].input_schema}
        for name in agent.tools
        if name in found
    ]
    fixed = [agent.instructions or "", step.output_schema, declared]
    return SYSTEM + tokens_of(len(canonical.canonical_json(fixed)))


def learn(row: StepRow, call: Call, usage: Usage) -> None:
    """An answer came, with the provider's count of all that was sent and of itself."""
    conversation = call.request.get("conversation")
    if call.request.get("purpose") == _ASIDE or row.counters.get(CONVERSATION) != conversation:
        return
    row.counters = {**row.counters, TOKENS: counted(usage), ANSWER: call.request["messages"]}


def counted(usage: Usage) -> int:
    """Every token of an attempt, however it was billed."""
    return usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens + usage.output_tokens


def worst(draft: Draft, call: Call) -> dict[str, int]:
    """Measure → amount; for a model call also `input`, its tokens without the answer."""
    if call.kind != CallKind.MODEL:
        return {"tool_calls": 1}
    weigh(draft)
    read = _input(draft.step(call.step), call)
    output = int(call.request["max_tokens"])
    return {"turns": _turns(draft, call), "input": read, **spent_by(draft, call, input=read, output=output)}


def _input(row: StepRow, call: Call) -> int:
    aside = INSTRUCTION if call.request.get("purpose") == _ASIDE else 0
    return row.counters.get(TOKENS, SYSTEM) + aside


def spent_by(draft: Draft, call: Call, *, input: int, output: int) -> dict[str, int]:
    """What those tokens of that call come to. Money only if the plan pins a price."""
    rate = draft.plan.rates.get(call.request["model"])
    cost = 0 if rate is None else rate.cost(input=input, output=output)
    return {"tokens": input + output, "microusd": cost}


def _turns(draft: Draft, call: Call) -> int:
    """A new turn is one; a changed request of the same turn is none, unless the one before it was never sent. Neither
    a summary nor a last answer without tools is a turn of its own."""
    if call.request.get("purpose", "answer") != "answer":
        return 0
    if call.retry_of is None:
        return 1
    before = draft.snapshot.calls.get(call.retry_of)
    return 0 if before is None or before.budget is None else before.budget.get("turns", 0)
