"""Definitions of every shape, small ones first: what a machine's workflows are made of.

`documents()` draws a definition over five effect classes: chains and joins, for_each, agents, approvals, business keys,
probes, compensations, pivots, gates, timeouts, conditions. `planned` compiles it as the product does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from hypothesis import strategies as st

from app.domain.definition.catalogue import Catalogue
from app.domain.definition.checking import check
from app.domain.definition.compiling import compile_plan
from app.domain.plan import Plan

CLASSES: Final = ("read_only", "idempotent", "keyed", "checkable", "at_most_once")
MODELS: Final = {"fast": "claude-haiku-5-5"}
TOOL_SECONDS: Final = 5
SETTLE_SECONDS: Final = 10
KEY_HOURS: Final = 24
RESULT_MINUTES: Final = 10
MOST_STEPS: Final = 4

Document = dict[str, Any]


@lru_cache(maxsize=4096)
def _compiled(text: str, models: tuple[tuple[str, str], ...]) -> tuple[Plan, str]:
    checked = check(json.loads(text), catalogue=Catalogue(models=dict(models)))
    assert checked.plan_body is not None, [fault.detail for fault in checked.faults]
    return compile_plan(checked.plan_body), checked.digest


def planned(document: Document, *, models: Mapping[str, str] = MODELS) -> tuple[Plan, str]:
    """The plan, and the digest of the definition."""
    return _compiled(json.dumps(document), tuple(sorted(models.items())))


def tool(effect: str, **more: Any) -> Document:
    declared: Document = {
        "description": "A tool.",
        "http": {"method": "POST", "url": "http://127.0.0.1:9/do"},
        "effect": effect,
        "timeout": f"{TOOL_SECONDS}s",
        "settle_time": f"{SETTLE_SECONDS}s",
    }
    if effect == "keyed":
        declared |= {"key_header": "Idempotency-Key", "key_ttl": f"{KEY_HOURS}h"}
    return declared | more


def rarely(draw: st.DrawFn, *, one_in: int = 4) -> bool:
    """Shrinks to no."""
    return draw(st.integers(0, one_in - 1)) == one_in - 1


@st.composite
def documents(draw: st.DrawFn) -> Document:
    tools = {f"do_{effect}": _tool(draw, effect) for effect in CLASSES}
    tools |= {f"undo_{effect}": _undo_tool(draw, effect) for effect in CLASSES[1:]}
    tools["look"] = tool("read_only")
    steps: dict[str, Document] = {}
    for n in range(draw(st.integers(1, MOST_STEPS))):
        step = draw(_KINDS)(draw, tools)
        before = list(steps)
        if before:
            step["needs"] = draw(st.lists(st.sampled_from(before), max_size=2, unique=True))
        _options(draw, step)
        steps[f"s{n}"] = step
    if rarely(draw):
        steps["last"] = {"set": {"x": "${{ input.list[9] }}"}, "needs": list(steps)[-1:]}  # fails
    document: Document = {"name": "machine", "tools": tools, "steps": steps}
    if rarely(draw):
        document["on_failure"] = "hold"
    if rarely(draw):
        document["compensate_on"] = draw(st.sampled_from([[], ["failure"], ["cancel"]]))
    return document


def _tool(draw: st.DrawFn, effect: str) -> Document:
    more: Document = {}
    if effect == "checkable" or (effect == "keyed" and rarely(draw, one_in=2)):
        more["probe"] = {"tool": "look", "with": {}, "found": "output.there", "deadline": "30s"}
    if effect != "read_only":
        if rarely(draw, one_in=2):
            more["compensate"] = _undo(draw)
        if rarely(draw, one_in=6):
            more |= {"on_202": "wait", "result_within": f"{RESULT_MINUTES}m"}
        if rarely(draw, one_in=8):
            more["approve"] = draw(st.sampled_from(["always", "when_tainted"]))
        more["on_repeat"] = draw(st.sampled_from(["ask", "allow", "return_recorded"]))
    return tool(effect, **more)


def _undo_tool(draw: st.DrawFn, effect: str) -> Document:
    more: Document = {}
    if effect == "checkable":
        more["probe"] = {"tool": "look", "with": {}, "found": "output.there", "deadline": "30s"}
    if rarely(draw, one_in=10):
        more["approve"] = "always"
    return tool(effect, **more)


def _undo(draw: st.DrawFn) -> Document:
    """Now and then one whose arguments cannot be made."""
    given = "${{ output.missing.field }}" if rarely(draw, one_in=10) else "${{ output.n }}"
    return {"tool": f"undo_{draw(st.sampled_from(CLASSES[1:]))}", "with": {"n": given}}


def _options(draw: st.DrawFn, step: Document) -> None:
    if rarely(draw):
        step["on_error"] = "continue"
    if rarely(draw) and "set" not in step:
        step["timeout"] = "10m"
    if rarely(draw, one_in=8):
        step["if"] = draw(st.sampled_from(["input.n == 1", "input.n == 2"]))
    if rarely(draw, one_in=6):
        step["pivot"] = True


# --- kinds of steps ------------------------------------------------------------------------------------------------


def _plain(draw: st.DrawFn, tools: Mapping[str, Document]) -> Document:
    effect = draw(st.sampled_from(CLASSES[::-1]))
    step: Document = {"tool": f"do_{effect}", "with": {"n": 1}}
    if effect == "keyed":
        step["retry"] = {"tool_error": {"max_retries": 1}}
        if rarely(draw, one_in=2):
            step |= {"idempotency_key": "key", "with": {"n": draw(st.sampled_from([1, 1, 2]))}}
    if effect != "read_only" and rarely(draw):
        wishes = ["ask", "abandon", *(["probe"] if "probe" in tools[f"do_{effect}"] else [])]
        step["on_unknown_outcome"] = draw(st.sampled_from(wishes))
    if effect != "read_only" and rarely(draw, one_in=3):
        step["compensate"] = _undo(draw)
    return step


def _each(draw: st.DrawFn, tools: Mapping[str, Document]) -> Document:
    items = {"for_each": "${{ input.list }}", "max_parallel": draw(st.integers(1, 2))}
    return _plain(draw, tools) | items


def _agent(draw: st.DrawFn, tools: Mapping[str, Document]) -> Document:
    offered = [f"do_{effect}" for effect in CLASSES]
    return {"agent": {"model": "fast", "tools": offered, "max_turns": 2}, "prompt": "Go."}


def _approval(draw: st.DrawFn, tools: Mapping[str, Document]) -> Document:
    asked: Document = {"title": "Go?", "expires": "1h", "on_reject": draw(st.sampled_from(["continue", "fail"]))}
    return {"approval": asked | ({"on_expire": "fail"} if rarely(draw) else {})}


def _set(draw: st.DrawFn, tools: Mapping[str, Document]) -> Document:
    return {"set": {"x": draw(st.sampled_from(["${{ input.n }}"] * 4 + ["${{ input.list[9] }}"]))}}


_KINDS: Final = st.sampled_from([_plain, _plain, _plain, _each, _agent, _agent, _approval, _set])


def inputs() -> st.SearchStrategy[Document]:
    return st.builds(lambda size: {"n": 1, "list": list(range(size))}, st.integers(0, 3))
