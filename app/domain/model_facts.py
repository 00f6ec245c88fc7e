"""What a conversation needs to know of the model that it is held with: sizes, roles, whose thinking it can read.

    facts(model)                    by the model's id; a date or `-latest` behind the id changes nothing
    reads_thinking(model, of=…)     whether thinking blocks made by `of` may be sent to `model`

Sources: context windows and output limits from the provider's models overview and migration pages of November 2026,
ids from the installed SDK's `anthropic.types.Model`, windows compared with the installed `genai-prices` table; which
models take `role: "system"` inside `messages` from the SDK's types and the provider's prompting pages.

The table is fixed in code, not asked over the network: a decision must come out the same when it is replayed. An id
that is not in it gets conservative numbers, so the worst that happens is a summary too early; the setting
`model_windows` says it better for a server of one's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFacts:
    window: int
    """Tokens of a request's input and its answer together."""
    max_output: int
    """The largest `max_tokens` that the model takes."""
    system_messages: bool
    """Whether a `role: "system"` message may follow the latest user message."""
    generation: int
    """Place in the order of release. Thinking made by a model is only sent to models of the same or a later one; 0 is
    a model of which that is not known."""


MILLION: Final = 1_000_000
_LARGE: Final = 128_000


def _wide(generation: int, *, system_messages: bool = True) -> ModelFacts:
    return ModelFacts(window=MILLION, max_output=_LARGE, system_messages=system_messages, generation=generation)


def _early(generation: int, *, window: int = 200_000, max_output: int = 64_000) -> ModelFacts:
    return ModelFacts(window=window, max_output=max_output, system_messages=False, generation=generation)


FACTS: Final[Mapping[str, ModelFacts]] = {
    "claude-3-haiku": _early(1, max_output=4_096),
    "claude-3-opus": _early(2, max_output=4_096),
    "claude-3-5-sonnet": _early(3, max_output=8_192),
    "claude-3-5-haiku": _early(4, max_output=8_192),
    "claude-3-7-sonnet": _early(5),
    "claude-sonnet-4": _early(6),
    "claude-sonnet-4-0": _early(6),
    "claude-opus-4": _early(7, max_output=32_000),
    "claude-opus-4-0": _early(7, max_output=32_000),
    "claude-opus-4-1": _early(8, max_output=32_000),
    "claude-sonnet-4-5": _early(9),
    "claude-haiku-4-5": _early(10),
    "claude-opus-4-5": _early(11),
    "claude-opus-4-6": _early(12, window=MILLION, max_output=_LARGE),
    "claude-sonnet-4-6": _early(13, window=MILLION),
    "claude-mythos-preview": _early(14, window=MILLION),
    "claude-opus-4-7": _early(15, window=MILLION, max_output=_LARGE),
    "claude-opus-4-8": _wide(16),
    "claude-mythos-5": _wide(17),
    "claude-fable-5": _wide(18),
    "claude-sonnet-5": _wide(19, system_messages=False),
    "claude-opus-5": _wide(20),
    "claude-opus-5-5": _wide(21),
    "claude-mythos-5-1": _wide(22),
    "claude-fable-5-1": _wide(23),
    "claude-sonnet-5-5": _wide(24),
    "claude-haiku-5-5": _wide(25),
    "claude-mythos-5-2": _wide(26),
    "claude-fable-5-2": _wide(27),
    # The scripted model's own id, small enough that a test or a demonstration fills its window in a few turns.
    "claude-scripted-small": _early(10, window=8_000, max_output=2_000),
}

UNKNOWN: Final = ModelFacts(window=128_000, max_output=16_384, system_messages=False, generation=0)
"""Of any other id: less than what today's servers of this API have. Too small costs a summary; too large would cost a
refused request."""

_SUFFIX: Final = re.compile(r"(?:[-@]\d{8}|[-@]\d{4}-\d{2}-\d{2}|-latest|\[1m\]|-v\d+(?::\d+)?)+")
"""What may stand behind an id and means the same model. Another number does not: `claude-opus-5-9` is unknown."""


@cache
def facts(model: str) -> ModelFacts:
    """Never raises: what is not in the table has the facts of `UNKNOWN`."""
    name = _known(model)
    return UNKNOWN if name is None else FACTS[name]


def reads_thinking(model: str, *, of: str) -> bool:
    """Its own, and that of known models released before it. (What it cannot read a provider drops or refuses.)"""
    if model == of:
        return True
    reader, maker = facts(model), facts(of)
    return 0 < maker.generation <= reader.generation


def _known(model: str) -> str | None:
    # Cloud platforms put their own words before the id: `us.anthropic.claude-…`.
    name = model[model.find("claude-") :] if "claude-" in model else model
    found = [known for known in FACTS if name == known or _is_dated(name, known)]
    return max(found, key=len, default=None)


def _is_dated(name: str, known: str) -> bool:
    return name.startswith(known) and _SUFFIX.fullmatch(name[len(known) :]) is not None
