"""What a round submits: one workflow for each case, with a tag of its own in every argument that names an effect.

Case        a kind of effect in one round: its workflow, its tag, how to find it in the tools' books
single      one call of that kind
following   a harmless call, and after it one of that kind
undoing     an effect, then a step that fails for certain: its compensation is the call of that kind
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tests.chaos.matrix.boundaries import MODEL
from tests.e2e.catalogue import CATALOGUE, definition

BASE: Final = "base-"
"""Before the tag in the arguments of the call that comes first: another effect than the one that is judged."""


@dataclass(kw_only=True)
class Case:
    effect: str
    """A name in the catalogue, or `model`, or what a delivery is called."""
    tag: str
    key: str
    workflow: str = ""

    @property
    def demo(self) -> str | None:
        """What the demo tools call it."""
        return CATALOGUE[self.effect].demo if self.effect in CATALOGUE else None

    @property
    def where(self) -> Mapping[str, str]:
        """The arguments by which the tools know it."""
        return {CATALOGUE[self.effect].mark: self.tag}


def single(url: str, effect: str, *, timeout: str, settle: str, **step: Any) -> dict[str, Any]:
    """One call. `step`: what else its step says."""
    if effect == MODEL:
        thinking = {"agent": {"model": "fast"}, "prompt": "Say this: ${{ input.tag }}", **step}
        return {"name": "matrix", "input": {"tag": {"type": "string"}}, "steps": {MODEL: thinking}}
    document = definition(url, (effect,), timeout=timeout, settle=settle, name="matrix")
    document["steps"][effect].update(step)
    return document


def following(url: str, effect: str, *, timeout: str, settle: str) -> dict[str, Any]:
    """A harmless call, and after it one of that kind: the worker that records the first goes on with the second."""
    document = single(url, effect, timeout=timeout, settle=settle, needs=["first"])
    look = CATALOGUE["look"]
    first = {
        "description": "looks",
        "http": {"method": look.method, "url": url + look.path},
        "effect": look.effect,
        "timeout": timeout,
        "settle_time": settle,
    }
    document.setdefault("tools", {})["glance"] = first
    document["steps"] = {
        "first": {"tool": "glance", "with": {look.mark: BASE + "${{ input.tag }}", **look.rest}},
        **document["steps"],
    }
    return document


def gated(url: str, effect: str, *, timeout: str, settle: str) -> dict[str, Any]:
    """One call that a person must agree to."""
    document = single(url, effect, timeout=timeout, settle=settle)
    document["tools"][effect]["approve"] = "always"
    return document


def undoing(url: str, effect: str, *, timeout: str, settle: str) -> dict[str, Any]:
    """A meeting that is booked, a step that fails, and the undo of the meeting by a call of that kind."""
    document = definition(url, tuple({"book": 0, effect: 0}), timeout=timeout, settle=settle, name="matrix-undo")
    tool = CATALOGUE[effect]
    base = CATALOGUE["book"]
    document["tools"]["refuse"] = {
        "description": "refuses everything",
        "http": {"method": "GET", "url": f"{url}/nowhere"},
        "effect": "read_only",
    }
    document["steps"] = {
        "base": {
            "tool": "book",
            "with": {base.mark: BASE + "${{ input.tag }}", **base.rest},
            "compensate": {"tool": effect, "with": {tool.mark: "${{ input.tag }}", **tool.rest}},
        },
        "refuse": {"tool": "refuse", "with": {}, "needs": ["base"], "retry": {"any": {"max_retries": 0}}},
    }
    return document
