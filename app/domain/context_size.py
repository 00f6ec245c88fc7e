"""How full the model's window is, by our own accounting: no network, no tokenizer, no row read for it.

    used       tokens of the conversation as it stands, as the provider counted its last answer, and what came since
    fresh      tokens of a conversation that begins with this message
    limit      from where on a summary is due
    room       bytes of a transcript that certainly fits
    window     of the model that the step's calls are made with

The provider's count of the last call covers system, tools and every message it was sent; what was appended since is
estimated from its bytes, too high rather than too low.
"""

from __future__ import annotations

import json
from typing import Final

from app.domain import calling, model_facts
from app.domain.aggregate import Call, StepRow
from app.domain.plan import Step, Tool
from app.domain.states import CallKind
from app.domain.summaries import estimate
from app.domain.transition import Draft

FULL: Final = 0.7
"""Of the window: beyond it the answer, its tools' results and the summary itself would soon not fit any more."""
LEAST: Final = 0.25
"""Of the window: an agent whose `max_tokens` nearly fill it is not summarised before every call."""
DENSE_BYTES: Final = 2
"""Bytes of a token in the densest text: where too much is refused, the estimate must not be too low."""
LEAST_ROOM: Final = 2_000


def window(draft: Draft, row: StepRow, step: Step) -> int:
    name = calling.model_of(row, step)
    return draft.rules.model_windows.get(name) or model_facts.facts(name).window


def limit(draft: Draft, row: StepRow, step: Step) -> int:
    """A request and the answer to it must fit together."""
    whole = window(draft, row, step)
    return max(int(whole * LEAST), min(int(whole * FULL), whole - calling.max_tokens_of(row, step)))


def room(draft: Draft, row: StepRow, step: Step, *, answer: int) -> int:
    """Bytes of a text that fits into the window beside system, tools and that answer, however dense it is."""
    tokens = window(draft, row, step) - answer - _fixed(draft, step)
    return max(tokens * DENSE_BYTES, LEAST_ROOM)


def used(draft: Draft, row: StepRow, step: Step) -> int:
    last = _last_answered(draft, row)
    appended = [
        message
        for message in draft.transition.messages
        if (message.step, message.conversation) == (row.path, row.conversation)
        and (last is None or message.ordinal >= last[0].request["messages"])
        # The answer itself was counted, as output.
        and not (last is not None and message.role == "assistant" and message.ordinal == last[0].request["messages"])
    ]
    counted = _fixed(draft, step) if last is None else last[1]
    return counted + estimate(sum(len(message.body) for message in appended))


def fresh(draft: Draft, step: Step, body: bytes) -> int:
    return _fixed(draft, step) + estimate(len(body))


def _last_answered(draft: Draft, row: StepRow) -> tuple[Call, int] | None:
    """The last call of this conversation whose tokens the provider has counted, and how many. It belongs to the turn
    whose tools have just been settled, so it is among the rows that were read."""
    found = None
    for call in draft.snapshot.calls.values():
        if call.step != row.path or call.kind != CallKind.MODEL or (found is not None and call.n < found[0].n):
            continue
        if call.request.get("conversation") != row.conversation or call.request.get("purpose") == "summary":
            continue
        tokens = _counted(call)
        if tokens:
            found = call, tokens
    return found


def _counted(call: Call) -> int:
    usages = [attempt.usage for attempt in call.history if attempt.usage]
    if not usages:
        return 0
    names = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens")
    return sum(int(usages[-1].get(name) or 0) for name in names)


def _fixed(draft: Draft, step: Step) -> int:
    """System and tools: they are sent with every request."""
    if step.agent is None:
        return 0
    tools = (draft.plan.tools[name] for name in step.agent.tools)
    return estimate(len(step.agent.instructions or "") + sum(_declared(tool) for tool in tools))


def _declared(tool: Tool) -> int:
    return sum(len(text.encode()) for text in (tool.name, tool.description, json.dumps(tool.input_schema)))
