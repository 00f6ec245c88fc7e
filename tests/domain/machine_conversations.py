"""Agents, and whatever befalls their conversations: a machine whose every request is judged as the provider does it.

`agents()` draws definitions of one or two agents; `Conversations` is the machine of `machine.py` with a model as strict
and as difficult as the real one (`machine_models.py`), and the law that what is stored is well formed at every moment.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from app.domain import conversation
from tests.domain.machine import MOST_WORKFLOWS, Histories
from tests.domain.machine_models import Models
from tests.domain.machine_plans import CLASSES, Document, inputs, rarely, tool

MODELS = ("fast", "claude-haiku-4-5", "claude-sonnet-5")
"""One that takes system messages, and two that do not."""
SHAPE = {"done": {"type": "boolean"}}


@st.composite
def agents(draw: st.DrawFn) -> Document:
    tools = {f"do_{effect}": _tool(draw, effect) for effect in CLASSES}
    steps: dict[str, Document] = {"a": _agent(draw, list(tools))}
    if rarely(draw):
        steps["b"] = _agent(draw, list(tools))
    if rarely(draw):
        steps["a"] |= {"for_each": "${{ input.list }}", "max_parallel": 2}
    return {"name": "machine", "tools": tools, "steps": steps}


def _tool(draw: st.DrawFn, effect: str) -> Document:
    more: Document = {"input_schema": {"n": {"type": "integer"}}} if rarely(draw, one_in=2) else {}
    if effect != "read_only":
        more["on_repeat"] = draw(st.sampled_from(["ask", "allow", "return_recorded"]))
        if rarely(draw, one_in=8):
            more["approve"] = "always"
    if effect == "checkable":
        more["probe"] = {"tool": "do_read_only", "with": {"n": 1}, "found": "output.there", "deadline": "30s"}
    return tool(effect, **more)


def _agent(draw: st.DrawFn, tools: list[str]) -> Document:
    turns = draw(st.sampled_from([20, 8, 1]))
    asked: Document = {"model": draw(st.sampled_from(MODELS)), "tools": tools, "max_turns": turns}
    if rarely(draw):
        asked["instructions"] = "You help."
    if rarely(draw):
        asked["finish"] = "gracefully"
    step: Document = {"agent": asked, "prompt": "Go."}
    if rarely(draw):
        step["output_schema"] = SHAPE
    if rarely(draw, one_in=3):
        step["timeout"] = "10m"
    if rarely(draw, one_in=2):
        step["retry"] = {"refused": {"switch_model": draw(st.sampled_from(MODELS[1:]))}}
    if rarely(draw):
        step["on_error"] = "continue"
    return step


class Conversations(Histories):
    def __init__(self) -> None:
        super().__init__()
        self.tools = self.models = Models(store=lambda: self.store)

    @initialize(document=agents(), given=inputs())
    def begins(self, document: Any, given: Any) -> None:
        self.workers = [self.engine.worker(), self.engine.worker()]
        self._submit(document, given)

    @precondition(lambda self: len(self.names) < MOST_WORKFLOWS)
    @rule(data=st.data())
    def submits(self, data: st.DataObject) -> None:
        self._submit(data.draw(agents()), data.draw(inputs()))

    @invariant()
    def stores_well_formed_conversations(self) -> None:
        """Also those that nothing will be sent of any more; only their last message may want an answer."""
        places = sorted({place[:3] for place in self.store.messages}, key=str)
        for place in places:
            ordinals = sorted(key[3] for key in self.store.messages if key[:3] == place)
            assert ordinals == list(range(len(ordinals)))
            bodies = [self.store.messages[(*place, ordinal)].body for ordinal in ordinals]
            last = conversation.parsed(bodies[-1:])[0]
            complete = bodies[:-1] if last["role"] == "assistant" else bodies
            assert conversation.check(complete) == [], place
