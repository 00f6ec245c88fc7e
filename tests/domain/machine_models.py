"""A model as strict as the real one, and as difficult: what it was sent is checked, what it answers is drawn.

Models.depart      a model call leaves: its request is rendered from the rows as the engine does it, and must keep
                   every rule of `app/domain/conversation.py` and of the scripted model; its messages begin with
                   the bytes of every earlier request of the same conversation
Models.outcomes    what may be heard of it: answers with text, thinking and tools in parallel, cut and paused ones,
                   refusals, nearly full windows, summaries good and bad, failures
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from app.domain import compacting, conversation
from app.domain.facts import name_of
from app.domain.outcomes import Outcome, Usage
from app.domain.plan import Plan
from app.domain.states import AttemptOutcome, CallKind, FailureKind
from app.embedded import model_rules
from tests.domain.machine_memory import Flight
from tests.domain.machine_plans import CLASSES
from tests.domain.machine_store import Store
from tests.domain.machine_tools import Airborne, Tools, failed, ok

FULL: Final = 720_000
"""Tokens: more than seven tenths of a million."""
HEADERS: Final = {"authorization": "Bearer sk-test", "anthropic-version": "2026-10-21"}
MOST_ANSWERS: Final = 12
"""Answers of one step after which the usual one is the last: without that few histories would end."""

Place = tuple[UUID, str, int]
"""Workflow, step, conversation."""

ANSWERS: Final = (
    "uses", "uses", "uses", "uses", "again", "again", "again", "again", "uses_all", "nearly_full", "nearly_full",
    "nearly_full", "nearly_full", "says", "cut_text", "cut_tool", "paused", "prose", "nothing", "refuses", "window",
    "too_long", "unknown", "rate_limited", "not_sent", "fenced",
)  # fmt: skip
USUAL: Final = ("uses", "again", "again", "again", "nearly_full", "again", "uses_all", "nearly_full")
"""What is heard in a stretch in which little goes wrong, in this order."""
SUMMARIES: Final = (
    "summary", "summary", "long_summary", "cut_text", "uses", "nothing", "refuses", "window", "too_long", "unknown",
    "fenced",
)  # fmt: skip


@dataclass(kw_only=True)
class Models(Tools):
    store: Callable[[], Store]
    bodies: dict[UUID, dict[str, Any]] = field(default_factory=dict)
    """Attempt → the request it left with."""
    sent: dict[Place, list[bytes]] = field(default_factory=dict)
    """The longest list of messages that was sent of a conversation."""
    first: dict[UUID, bytes] = field(default_factory=dict)
    """Call → what its first attempt sent."""
    answered: dict[tuple[UUID, str], int] = field(default_factory=dict)
    compacted: int = 0
    """Conversations after the first that something was sent of."""

    def depart(self, flight: Flight, *, target: UUID | None) -> Airborne:
        if flight.kind == CallKind.MODEL:
            self.bodies[flight.attempt_id] = self._request(flight)
        return super().depart(flight, target=target)

    # --- what is sent --------------------------------------------------------------------------------------------

    def _request(self, flight: Flight) -> dict[str, Any]:
        store = self.store()
        call = store.call(flight.call_id)
        wanted, plan = call.request, store.plans[flight.workflow_id]
        agent = plan.steps[name_of(flight.step)].agent
        assert agent is not None
        number = wanted["conversation"]
        place = (flight.workflow_id, flight.step, number)
        stored = [store.messages[(*place, ordinal)].body for ordinal in range(wanted["messages"])]
        messages = list(compacting.sent(wanted, stored))
        self._same_bytes(place, stored, messages, transcript=wanted.get("over") == compacting.TRANSCRIPT)
        body: dict[str, Any] = {
            "model": wanted["model"],
            "max_tokens": wanted["max_tokens"],
            "messages": conversation.parsed(messages),
        }
        if wanted.get("over") != compacting.TRANSCRIPT:
            tools = (plan.tools[name] for name in agent.tools)
            body["tools"] = [
                conversation.tool_param(name=t.name, description=t.description, input_schema=t.input_schema)
                for t in tools
            ]
        raw = json.dumps(body).encode()
        assert self.first.setdefault(call.id, raw) == raw, "every attempt of a call sends the same bytes"
        assert conversation.check(messages) == []
        try:
            model_rules.read_request(HEADERS, raw)
        except model_rules.Refused as refused:
            raise AssertionError(f"{refused.kind}: {refused.message}") from refused
        return body

    def _same_bytes(self, place: Place, stored: list[bytes], messages: list[bytes], *, transcript: bool) -> None:
        before = self.sent.get(place, [])
        shorter, longer = sorted((before, stored), key=len)
        assert longer[: len(shorter)] == shorter, f"the prefix of conversation {place[2]} has changed"
        assert transcript or messages[: len(stored)] == stored
        if place not in self.sent and place[2] > 1:
            self.compacted += 1
        self.sent[place] = longer

    # --- what is heard -------------------------------------------------------------------------------------------

    def outcomes(self, airborne: Airborne, plan: Plan) -> list[str]:
        flight = airborne.flight
        if flight.kind != CallKind.MODEL:
            return super().outcomes(airborne, plan)
        if self._wanted(flight).get("purpose") == compacting.PURPOSE:
            return list(SUMMARIES)
        answered = self.answered.get((flight.workflow_id, flight.step), 0)
        return ["says" if answered >= MOST_ANSWERS else USUAL[answered % len(USUAL)], *ANSWERS]

    def _wanted(self, flight: Flight) -> Mapping[str, Any]:
        request: Mapping[str, Any] = self.store().call(flight.call_id).request
        return request

    def hear(self, airborne: Airborne, word: str, *, asked: int = 0) -> Outcome:
        flight = airborne.flight
        if flight.kind == CallKind.MODEL:
            place = (flight.workflow_id, flight.step)
            self.answered[place] = self.answered.get(place, 0) + 1
        return super().hear(airborne, word, asked=asked)

    def _outcome(self, airborne: Airborne, word: str, asked: int) -> Outcome:
        if airborne.flight.kind != CallKind.MODEL:
            if word == "ok" and airborne.flight.effect == "read_only":
                return ok({"n": 1, "text": "t" * 200})
            return super()._outcome(airborne, word, asked)
        match word:
            case "says":
                return self._message(airborne, [_text("done")], "end_turn")
            case "uses" | "uses_all" | "nearly_full":
                count = 1 + asked % 3 if word != "uses_all" else 4
                content = self._asks(airborne, count, asked)
                return self._message(airborne, content, "tool_use", tokens=FULL if word == "nearly_full" else 10)
            case "again":
                return self._message(airborne, self._look(), "tool_use")
            case "cut_text":
                return self._message(airborne, [_text("The first half of")], "max_tokens")
            case "cut_tool":
                return self._message(airborne, self._asks(airborne, 1, asked), "max_tokens")
            case "paused":
                return self._message(airborne, [_text("I pause here.")], "pause_turn")
            case "prose":
                return self._message(airborne, [_text("No JSON: {,}")], "end_turn")
            case "nothing":
                return self._message(airborne, [], "end_turn")
            case "refuses":
                return self._message(airborne, [_text("I will not.")], "refusal")
            case "window":
                return self._message(airborne, [_text("half")], "model_context_window_exceeded", tokens=FULL)
            case "summary":
                return self._message(airborne, [_text("1. Goal: go on. 2. Facts: n is 1.")], "end_turn")
            case "long_summary":
                return self._message(airborne, [_text("S" * 3 * FULL)], "end_turn")
            case "too_long":
                return failed(AttemptOutcome.FAILED, FailureKind.CONTEXT_TOO_LONG, status=400)
            case _:
                return super()._outcome(airborne, word, asked)

    def _asks(self, airborne: Airborne, count: int, asked: int) -> list[dict[str, Any]]:
        content: list[dict[str, Any]] = []
        asked = asked or 7 * self.uses
        if asked % 2:
            content += [self._thought(airborne), _text("I go on.")]
        for ordinal in range(count):
            self.uses += 1
            number = asked // 2 + ordinal + self.uses
            name = f"do_{CLASSES[::-1][number % len(CLASSES)]}" if number % 11 else "no_such_tool"
            given: Any = {"n": number % 3} if number % 13 else "no object"
            content.append({"type": "tool_use", "id": f"toolu_{self.uses}", "name": name, "input": given})
        return content

    def _look(self) -> list[dict[str, Any]]:
        """The same each time: an agent that goes in circles is told so, in a note."""
        self.uses += 1
        return [{"type": "tool_use", "id": f"toolu_{self.uses}", "name": "do_read_only", "input": {"n": 1}}]

    def _thought(self, airborne: Airborne) -> dict[str, Any]:
        body = self.bodies[airborne.flight.attempt_id]
        bound = model_rules.signature(body, len(body["messages"]), thinking="hm", maker=body["model"])
        return {"type": "thinking", "thinking": "hm", "signature": bound}

    def _message(
        self, airborne: Airborne, content: list[dict[str, Any]], stop_reason: str, *, tokens: int = 10
    ) -> Outcome:
        model = self.bodies[airborne.flight.attempt_id]["model"]
        message = {"type": "message", "role": "assistant", "content": content, "stop_reason": stop_reason}
        return ok(message, usage=Usage(input_tokens=tokens, output_tokens=5, model=model, cost_microusd=100))


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}
