"""What the workflows of a chaos run are made of: tools of every effect class, and a few definitions that use them.

Every call carries a mark of its own in one argument (a title, a subject, a reference, a card), so that the tools can
be told what to do with exactly that call, and their ledger asked about it without believing any header of ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

JSON = Any

TIMEOUT: Final = "8s"
"""Of one attempt: longer than a busy machine stalls, or there are doubts that no fault explains."""
SETTLE: Final = "4s"
"""A request that left may arrive so much later: longer than a stall, short because every doubt waits for it."""
PROBED: Final = {"timeout": "4s", "settle_time": "8s"}
"""Of a tool with a probe: short to be unknown soon, long in settling, so that a request may be late in between."""

CANARY_HEADER: Final = {"X-Canary": "${{ secrets.canary }}"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A tool as steps use it."""

    demo: str
    """What the demo tools, their rules and their ledger call it."""
    mark: str
    """The argument that carries the mark."""
    rest: Mapping[str, JSON] = field(default_factory=dict)
    """The other arguments."""

    def arguments(self, mark: str) -> dict[str, JSON]:
        return {self.mark: mark, **self.rest}


KINDS: Final[Mapping[str, Kind]] = {
    "look": Kind(demo="calendar.free_busy", mark="email"),
    "clear": Kind(demo="calendar.delete_event", mark="event_id"),
    "book": Kind(
        demo="calendar.create_event",
        mark="title",
        rest={"start": "2026-12-01T10:00:00Z", "attendees": ["ana@x.io"]},
    ),
    "post": Kind(demo="email.send", mark="subject", rest={"to": "bo@x.io"}),
    "mail": Kind(demo="email.send", mark="subject", rest={"to": "ana@x.io"}),
    "authorize": Kind(
        demo="payments.authorize",
        mark="reference",
        rest={"amount": 1200, "currency": "EUR", "card": "${{ input.card }}"},
    ),
    "render": Kind(demo="reports.render", mark="title", rest={"rows": []}),
}

UNDOABLE: Final = ("book", "authorize", "settle")
"""Tools that say what undoes them."""

_KEYED: Final = {"effect": "keyed", "key_header": "Idempotency-Key", "key_ttl": "24h"}
_TEXT: Final = {"type": "string"}


def _tool(method: str, path: str, **rest: JSON) -> dict[str, JSON]:
    http = {"method": method, "url": path, "headers": dict(CANARY_HEADER)}
    patience = {"timeout": TIMEOUT, "settle_time": SETTLE}
    return {"description": path, "http": http, **patience, **rest}


def tools(url: str) -> dict[str, dict[str, JSON]]:
    """Every tool as a definition declares it."""
    payment = {"authorization_id": _TEXT}
    made = {
        "look": _tool("GET", "/calendar/free_busy", effect="read_only", input_schema={"email": _TEXT}),
        "clear": _tool("DELETE", "/calendar/events", effect="idempotent", input_schema={"event_id": _TEXT}),
        "book": _tool(
            "POST",
            "/calendar/events",
            input_schema={"title": _TEXT, "start": _TEXT, "attendees": {"type": "array"}},
            compensate={"tool": "clear", "with": {"event_id": "${{ output.event_id }}"}},
            **_KEYED,
        ),
        "gated": _tool("POST", "/calendar/events", approve="always", approval_expires="1h", **_KEYED),
        "seek": _tool("GET", "/email/search", effect="read_only"),
        "post": _tool(
            "POST",
            "/email/send",
            effect="checkable",
            **PROBED,
            probe={
                "tool": "seek",
                "with": {"to": "${{ arguments.to }}", "subject": "${{ arguments.subject }}", "mine": True},
                "found": "size(output.messages) > 0",
                "result": {"message_id": "${{ output.messages[0].message_id }}"},
            },
        ),
        "mail": _tool("POST", "/email/send", effect="at_most_once", input_schema={"subject": _TEXT, "to": _TEXT}),
        "authorize": _tool(
            "POST",
            "/payments/authorizations",
            compensate={"tool": "void", "with": {"authorization_id": "${{ output.authorization_id }}"}},
            **_KEYED,
        ),
        "check": _tool("GET", "/payments/fraud_check", effect="read_only"),
        "void": _tool("DELETE", "/payments/authorizations", effect="idempotent", input_schema=payment),
        "settle": _tool(
            "POST",
            "/payments/settlements",
            input_schema=payment,
            compensate={"tool": "refund", "with": {"settlement_id": "${{ output.settlement_id }}"}},
            **_KEYED,
        ),
        "refund": _tool("POST", "/payments/refunds", input_schema={"settlement_id": _TEXT}, **_KEYED),
        "find": _tool("GET", "/reports/find", effect="read_only"),
        "render": _tool(
            "POST",
            "/reports/render",
            on_202="wait",
            result_within="8s",
            probe={
                "tool": "find",
                "with": {"key": "${{ key }}"},
                "found": "output.reports.exists(report, report.status == 'ready')",
                "result": "${{ output.reports[0] }}",
            },
            **_KEYED,
        ),
    }
    for each in made.values():
        each["http"]["url"] = url + each["http"]["url"]
    return made


def _definition(name: str, url: str, used: Sequence[str], steps: JSON, **rest: JSON) -> dict[str, JSON]:
    every = tools(url)
    needed = {"look", "clear", "seek", "find", "void", "refund", *used}
    return {"name": name, "tools": {tool: every[tool] for tool in every if tool in needed}, "steps": steps, **rest}


_TAGGED: Final = {"tag": _TEXT}


def step(tool: str, number: int, **rest: JSON) -> dict[str, JSON]:
    """The step that calls this tool with the mark `<tag>.<number>`."""
    return {"tool": tool, "with": KINDS[tool].arguments(f"${{{{ input.tag }}}}.{number}"), **rest}


def chain(url: str, *, names: Sequence[str], title: str) -> dict[str, JSON]:
    """One after the other."""
    steps = [{"id": f"s{number}", **step(name, number)} for number, name in enumerate(names)]
    return _definition(title, url, names, steps, input=_TAGGED)


def fan(url: str, *, name: str) -> dict[str, JSON]:
    """For each item at once, then two more."""
    steps = {
        "each": {
            "for_each": "${{ input.items }}",
            "max_parallel": 5,
            "tool": name,
            "with": KINDS[name].arguments("${{ item }}"),
        },
        "last": step("mail", 0, needs=["each"]),
        "look": step("look", 1, needs=["each"]),
    }
    given = {**_TAGGED, "items": {"type": "array", "items": _TEXT}}
    return _definition(f"fan-{name}", url, (name, "mail"), steps, input=given)


PATIENT: Final = {"transient": {"max_retries": 30}}
"""A model that is killed has forgotten how often it failed as told, and fails so again: an agent that has to succeed
outlasts its deaths. (Five retries are not many when four deaths fall into one conversation.)"""


AMPLE: Final = {"tokens": 5_000_000, "turns": 60, "tool_calls": 100, "on_exceeded": "pause"}
"""More than an agent takes that dies thirty times in each call: what is judged is that nothing of it leaks."""


def agent(url: str) -> dict[str, JSON]:
    """A model that asks for effects, after a question whose answer must have a shape."""
    steps = {
        "plan": {
            "agent": {"model": "fast"},
            "prompt": "${{ input.question }}",
            "output_schema": {"found": {"type": "boolean"}},
            "retry": PATIENT,
        },
        "work": {
            "agent": {"model": "fast", "tools": ["book", "mail", "look"], "max_turns": 12},
            "prompt": "${{ input.script }}",
            "needs": ["plan"],
            "retry": PATIENT,
        },
        "last": step("clear", 9, needs=["work"]),
    }
    given = {**_TAGGED, "question": _TEXT, "script": _TEXT}
    return {**_definition("agent", url, ("book", "mail"), steps, input=given), "budget": AMPLE}


def saga(url: str) -> dict[str, JSON]:
    """Money and a booking; if the bank has something against the card, everything is undone at last."""
    identity = {"authorization_id": "${{ steps.authorize.output.authorization_id }}"}
    steps = {
        "book": step("book", 0),
        "authorize": step("authorize", 1),
        "settle": {"tool": "settle", "with": identity},
        "post": step("post", 2, needs=["settle", "book"]),
        "check": {"tool": "check", "with": {**identity, "check": "device"}, "needs": ["post"]},
        "last": step("mail", 3, needs=["check"]),
    }
    used = ("book", "authorize", "settle", "post", "check", "mail")
    return _definition("saga", url, used, steps, input={**_TAGGED, "card": _TEXT})


def approval(url: str) -> dict[str, JSON]:
    """Two things that a person decides about: whether to go on, and exactly these bytes."""
    gated = {"tool": "gated", "with": KINDS["book"].arguments("${{ input.tag }}.2"), "on_error": "continue"}
    steps = {
        "before": step("book", 0),
        "decide": {
            "approval": {"title": "Go on?", "allow": ["approve", "reject"], "on_reject": "continue", "expires": "1h"},
            "needs": ["before"],
        },
        "yes": step("mail", 1, **{"if": "steps.decide.output.decision == 'approve'"}),
        "gated": {**gated, "needs": ["decide"]},
        "last": step("look", 3, needs=["gated"]),
    }
    return _definition("approval", url, ("book", "mail", "gated"), steps, input=_TAGGED)


def awaited(url: str) -> dict[str, JSON]:
    """Results that come after a 202."""
    steps = {"one": step("render", 0), "two": step("render", 1), "last": step("mail", 2, needs=["one", "two"])}
    return _definition("awaited", url, ("render", "mail"), steps, input=_TAGGED)


def shared(url: str) -> dict[str, JSON]:
    """The same meeting, whoever asks: one booking for several workflows."""
    booking = {
        "tool": "book",
        "idempotency_key": "meeting:${{ input.group }}",
        "with": KINDS["book"].arguments("${{ input.group }}"),
    }
    steps = {"first": step("look", 0), "book": {**booking, "needs": ["first"]}, "last": step("mail", 1, needs=["book"])}
    return _definition("shared", url, ("book", "mail"), steps, input={**_TAGGED, "group": _TEXT})
