"""The words of the format: which keys each place knows, which come later, and what people type instead.

Promises: a key is `known`, `later` (of the format, not built yet: fault `unsupported`) or unknown; for an unknown one
there is an answer, from the table of words people bring along or by likeness. Holds words only; checks nothing. The
words of tools are in `tool_words.py`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """One kind of map in a definition."""

    name: str
    """As a message says it: "a step"."""
    known: tuple[str, ...]
    later: Mapping[str, str] = field(default_factory=dict)
    """Key of the format that this version does not carry out → what to do meanwhile."""
    typed: Mapping[str, str] = field(default_factory=dict)
    """What people type → what it is called here."""


DEFINITION: Final = Place(
    name="a definition",
    known=(
        "name",
        "description",
        "labels",
        "input",
        "agents",
        "tools",
        "defaults",
        "budget",
        "compensate_on",
        "on_failure",
        "output",
        "steps",
    ),
    typed={
        "jobs": "steps",
        "tasks": "steps",
        "nodes": "steps",
        "stages": "steps",
        "inputs": "input",
        "parameters": "input",
        "outputs": "output",
        "result": "output",
        "title": "name",
        "tags": "labels",
        "metadata": "labels",
        "agent": "agents",
        "tool": "tools",
        "functions": "tools",
        "rollback_on": "compensate_on",
        "on_error": "on_failure",
    },
)

BUDGET: Final = Place(
    name="a budget",
    known=("usd", "tokens", "turns", "tool_calls", "duration", "recovery_usd", "on_exceeded"),
    typed={
        "cost": "usd",
        "dollars": "usd",
        "money": "usd",
        "max_usd": "usd",
        "max_cost": "usd",
        "max_tokens": "tokens",
        "max_turns": "turns",
        "steps": "turns",
        "calls": "tool_calls",
        "max_tool_calls": "tool_calls",
        "time": "duration",
        "timeout": "duration",
        "max_recovery_usd": "recovery_usd",
        "on_limit": "on_exceeded",
        "on_error": "on_exceeded",
    },
)

KINDS: Final = ("agent", "tool", "set", "approval")
"""The kinds of step this version carries out; exactly one of them in each step."""
LATER_KINDS: Final = ("wait", "workflow", "steps")

STEP: Final = Place(
    name="a step",
    known=(
        *KINDS,
        "with",
        "prompt",
        "output_schema",
        "idempotency_key",
        "compensate",
        "on_unknown_outcome",
        "pivot",
        "title",
        "needs",
        "if",
        "for_each",
        "max_parallel",
        "timeout",
        "retry",
        "on_error",
        "budget",
    ),
    later={
        "wait": "Use an approval with `expires`, or let a tool wait.",
        "workflow": "Submit the other workflow from a tool, or write its steps here.",
        "steps": "Write the group's steps beside the others, with needs and for_each on each.",
        "output": "Groups are not built yet; a step's output is what its tool, model or person gave.",
        "repeat": "Let an agent loop over its tools, or a tool repeat.",
        "allow_failures": "Use on_error: continue on the step.",
    },
    typed={
        "depends_on": "needs",
        "dependson": "needs",
        "dependencies": "needs",
        "requires": "needs",
        "after": "needs",
        "when": "if",
        "condition": "if",
        "unless": "if",
        "foreach": "for_each",
        "map": "for_each",
        "loop": "for_each",
        "with_items": "for_each",
        "items": "for_each",
        "args": "with",
        "arguments": "with",
        "params": "with",
        "parameters": "with",
        "input": "with",
        "inputs": "with",
        "uses": "tool",
        "call": "tool",
        "action": "tool",
        "function": "tool",
        "response_format": "output_schema",
        "schema": "output_schema",
        "retries": "retry.<kind>.max_retries",
        "max_retries": "retry.<kind>.max_retries",
        "max_attempts": "retry.<kind>.max_retries",
        "attempts": "retry.<kind>.max_retries",
        "sleep": "wait",
        "delay": "wait",
        "undo": "compensate",
        "rollback": "compensate",
        "compensation": "compensate",
        "point_of_no_return": "pivot",
        "human": "approval",
        "manual": "approval",
        "approve": "approval",
        "jobs": "steps",
        "tasks": "steps",
        "name": "title",
        "label": "title",
        "description": "title",
        "concurrency": "max_parallel",
        "parallelism": "max_parallel",
        "key": "idempotency_key",
        "dedup_key": "idempotency_key",
        "continue_on_error": "on_error",
        "on_failure": "on_error",
        "vars": "set",
        "values": "set",
        "model": "agent.model",
        "instructions": "agent.instructions",
        "system": "agent.instructions",
    },
)

AGENT: Final = Place(
    name="an agent",
    known=("model", "instructions", "tools", "max_tokens", "effort", "max_turns", "finish"),
    later={"budget": "Write the budget on the step that uses the agent, or on the whole definition."},
    typed={
        "system": "instructions",
        "system_prompt": "instructions",
        "functions": "tools",
        "max_output_tokens": "max_tokens",
        "max_iterations": "max_turns",
        "max_steps": "max_turns",
        "reasoning_effort": "effort",
        "on_limit": "finish",
        "early_stopping_method": "finish",
    },
)

APPROVAL: Final = Place(
    name="an approval",
    known=("title", "show", "allow", "approver", "expires", "on_expire", "on_reject"),
    later={
        "editable": "Leave it out; a decision is approve or reject.",
        "assign": "Leave it out; anyone with a key that may decide can decide.",
    },
    typed={
        "message": "title",
        "prompt": "title",
        "question": "title",
        "data": "show",
        "context": "show",
        "options": "allow",
        "timeout": "expires",
        "expires_in": "expires",
    },
)

POLICY: Final = Place(
    name="a retry policy",
    known=("max_retries", "backoff", "repair", "switch_model", "after"),
    typed={
        "retries": "max_retries",
        "attempts": "max_retries",
        "max_attempts": "max_retries",
        "max": "max_retries",
        "delay": "backoff.first",
        "interval": "backoff.first",
        "first": "backoff.first",
        "factor": "backoff.factor",
        "fallback": "switch_model",
        "fallback_model": "switch_model",
        "model": "switch_model",
        "in_a_row": "after",
        "threshold": "after",
    },
)

DEFAULTS: Final = Place(
    name="`defaults`",
    known=("agent", "retry", "timeout"),
    typed={"agents": "agent", "retries": "retry", "model": "agent.model", "max_retries": "retry.<kind>.max_retries"},
)

BACKOFF: Final = Place(
    name="a backoff",
    known=("first", "factor", "max"),
    typed={"initial": "first", "multiplier": "factor", "cap": "max", "max_delay": "max", "limit": "max"},
)


def meant(word: str, place: Place) -> str | None:
    """What an unknown key was probably meant to be, or None."""
    typed = place.typed.get(word) or place.typed.get(word.lower().replace("-", "_"))
    return typed or nearest(word, (*place.known, *place.later))


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word most like `word`, if one is like it."""
    # Beyond this length it is no slip of the finger, and comparing costs the product of the lengths.
    if len(word) > 80:
        return None
    candidates = list(known)
    folded = word.lower().replace("-", "_")
    if folded in candidates:
        return folded
    found = difflib.get_close_matches(word, candidates, n=1, cutoff=0.6)
    return found[0] if found else None
