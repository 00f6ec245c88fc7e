"""One demo tool for each effect class, and definitions that use them.

A call carries its tag in one argument, so that the tools can be told what to do with exactly that call, and their
ledger asked about it without believing any header of ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final


@dataclass(frozen=True, kw_only=True)
class Tool:
    effect: str
    demo: str
    """What the demo tools, their rules and their ledger call it."""
    method: str
    path: str
    mark: str
    """The argument that carries the tag."""
    rest: Mapping[str, Any] = field(default_factory=dict)
    """The other arguments."""
    key: Mapping[str, Any] = field(default_factory=dict)
    """What else its declaration says: how its key travels, how it is probed."""


CATALOGUE: Final = {
    "look": Tool(effect="read_only", demo="calendar.free_busy", method="GET", path="/calendar/free_busy", mark="email"),
    "clear": Tool(
        effect="idempotent", demo="calendar.delete_event", method="DELETE", path="/calendar/events", mark="event_id"
    ),
    "book": Tool(
        effect="keyed",
        demo="calendar.create_event",
        method="POST",
        path="/calendar/events",
        mark="title",
        rest={"start": "2026-12-01T10:00:00Z", "attendees": ["ana@x.io"]},
        key={"key_header": "Idempotency-Key", "key_ttl": "24h"},
    ),
    "post": Tool(
        effect="checkable",
        demo="email.send",
        method="POST",
        path="/email/send",
        mark="subject",
        rest={"to": "bo@x.io"},
        key={
            "probe": {
                "tool": "seek",
                "with": {"to": "${{ arguments.to }}", "subject": "${{ arguments.subject }}", "mine": True},
                "found": "size(output.messages) > 0",
                "result": {"message_id": "${{ output.messages[0].message_id }}"},
            }
        },
    ),
    "mail": Tool(
        effect="at_most_once",
        demo="email.send",
        method="POST",
        path="/email/send",
        mark="subject",
        rest={"to": "ana@x.io"},
    ),
}
BY_DEMO_NAME: Final = {tool.demo: tool for tool in CATALOGUE.values()}


def definition(
    url: str, names: Sequence[str], *, timeout: str = "30s", settle: str = "1s", name: str = "e2e"
) -> dict[str, Any]:
    """These tools one after the other, each with the tag in `input.tag`. Another `name` is another plan."""
    tools: dict[str, Any] = {"seek": {"http": {"method": "GET", "url": f"{url}/email/search"}, "effect": "read_only"}}
    steps: dict[str, Any] = {}
    for number, each in enumerate(names):
        tool = CATALOGUE[each]
        tools[each] = {
            "description": each,
            "http": {"method": tool.method, "url": url + tool.path},
            "effect": tool.effect,
            "timeout": timeout,
            "settle_time": settle,
            **tool.key,
        }
        steps[each] = {
            "tool": each,
            "with": {tool.mark: "${{ input.tag }}", **tool.rest},
            "needs": list(names[number - 1 : number]) if number else [],
        }
    return {"name": name, "input": {"tag": {"type": "string"}}, "tools": tools, "steps": steps}
