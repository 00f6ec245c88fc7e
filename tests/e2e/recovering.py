"""One failure, end to end: an agent whose script goes wrong, what became of it, and what the model really received.

    Books     the scripted model's own books: every request, its bytes, its body; how it is told to misbehave
    agent     a definition of one agent step whose prompt is a script
    Run       a workflow that has ended: its step, recovery records, trace; `check` is what holds whatever happened

Each test works with a model id of its own (a date behind a known one): limits and breakers are per model, and the
failures of one test must not slow the answers of another.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import httpx

from tests.e2e.driver import Row, until, uuid_of
from tests.e2e.scene import Scene

QUICK: Final = {"first": "50ms", "factor": 1, "max": "100ms"}
"""A backoff nobody has to wait for."""

_days: Final = itertools.count(20260101)


def a_model(name: str = "claude-haiku-5-5") -> str:
    return f"{name}-{next(_days)}"


class Books:
    def __init__(self, scene: Scene) -> None:
        self._url = scene.up.ready["model_url"]

    def of(self, workflow: str) -> list[Row]:
        """Every request of this workflow, in order."""
        return [entry for entry in self._ask("GET", "/ledger")["data"] if entry["workflow"] == workflow]

    def body(self, entry: Row) -> Row:
        return self._ask("GET", f"/requests/{entry['request_id']}")

    def behave(self, **order: Any) -> None:
        self._ask("POST", "/behave", order)

    def behave_well(self) -> None:
        self._ask("DELETE", "/behave")

    def _ask(self, method: str, path: str, body: Row | None = None) -> Row:
        answer = httpx.request(method, self._url + path, json=body, trust_env=False, timeout=20.0)
        assert answer.status_code == 200, answer.text
        found: Row = answer.json()
        return found


def script(*turns: Mapping[str, Any], **more: Any) -> str:
    quick = [{"latency_ms": 20, **turn} for turn in turns]
    on = [{"latency_ms": 20, **turn} for turn in more.pop("on", ())]
    return f"Do it. [[scripted: {json.dumps({'turns': quick, 'on': on, **more})}]]"


def agent(
    prompt: str,
    *,
    model: str | None = None,
    tools: Mapping[str, Any] | None = None,
    step: Mapping[str, Any] | None = None,
    **more: Any,
) -> Row:
    declared = dict(tools or {})
    writer = {"model": model or a_model(), "tools": list(declared), **more}
    return {
        "name": "recovers",
        "tools": declared,
        "agents": {"writer": writer},
        "steps": {"write": {"agent": "writer", "prompt": prompt, **(step or {})}},
    }


class Run:
    """A workflow of `agent(…)` once it has that status."""

    def __init__(self, scene: Scene, definition: Row, *, status: str = "succeeded", seconds: float = 40.0) -> None:
        self._scene = scene
        self.books = Books(scene)
        self.workflow = scene.up.submit(definition)
        scene.workflows.append(self.workflow)
        self.found = scene.up.until_status(self.workflow, status, seconds=seconds)
        self.step = scene.up.step(self.workflow, "write")
        self.calls: list[Row] = self.step["call_list"]
        self.models = [call for call in self.calls if call["kind"] == "model"]
        self.asked = self.books.of(self.workflow)
        self.text = scene.up.http.get(
            f"/v1/workflows/{self.workflow}/trace", params={"format": "text", "width": 160}
        ).text
        self.check()

    @property
    def records(self) -> list[tuple[str, str | None, str | None]]:
        """(kind, change, result) of every automatic decision, in order."""
        return [(r["kind"], r["change"], r["result"]) for call in self.calls for r in call["recovery"]]

    def check(self) -> None:
        """Whatever happened: each try is in the model's books, each token that it counted is billed, and every
        automatic decision has a rule, a result and a line in the trace."""
        attempts = self._scene.up.rows(
            "SELECT a.* FROM attempts a JOIN calls c ON c.workflow_id = a.workflow_id AND c.id = a.call_id "
            "WHERE a.workflow_id = %s AND c.kind = 'model' ORDER BY a.intended_at, a.n",
            uuid_of(self.workflow),
        )
        sent = [row for row in attempts if row["sent_at"] is not None]
        assert len(sent) == len(self.asked), (len(sent), self.asked)
        answered = {row["request_id"]: row["usage"] for row in attempts if row["outcome"] == "succeeded"}
        for entry in self.asked:
            if entry["request_id"] in answered:
                usage = answered[entry["request_id"]]
                billed = usage["input_tokens"] + usage["cache_read_tokens"] + usage["cache_write_tokens"]
                assert (billed, usage["output_tokens"]) == (entry["input_tokens"], entry["output_tokens"])
        used = [row["usage"] for row in attempts if row["usage"]]
        cost = self.found["cost"]
        assert cost["input_tokens"] == sum(usage["input_tokens"] for usage in used)
        assert cost["output_tokens"] == sum(usage["output_tokens"] for usage in used)
        spent = sum(row["cost_microusd"] or 0 for row in attempts)
        assert round(float(cost["usd"]) * 1_000_000) == spent
        for call in self.calls:
            for record in call["recovery"]:
                assert record["rule"], record
                assert record["result"] or not self.found["ended_at"], record
                assert record["kind"] in self.text or record["rule"] in self.text, self.text

    def bodies(self) -> list[Row]:
        return [self.books.body(entry) for entry in self.asked]

    def same_bytes(self, *numbers: int) -> bool:
        return len({self.asked[number]["bytes"] for number in numbers}) == 1

    def tool_entries(self) -> list[Row]:
        return [entry for entry in self._scene.tools.ledger() if entry["workflow"] == self.workflow]


def last_words(body: Row) -> str:
    """What was said to the model last, as one text."""
    content = body["messages"][-1]["content"]
    if isinstance(content, str):
        return content
    return "\n".join(str(block.get("text") or block.get("content") or "") for block in content)


def roles(body: Row) -> Sequence[str]:
    return [message["role"] for message in body["messages"]]


def demo_tool(scene: Scene, *, effect: str = "read_only", **more: Any) -> Row:
    """The demo calendar's free and busy times, as a tool of an agent."""
    return {
        "description": "When somebody is busy.",
        "http": {"method": "GET", "url": f"{scene.tools.url}/calendar/free_busy"},
        "effect": effect,
        "timeout": "5s",
        "settle_time": "1s",
        "input_schema": {
            "type": "object",
            "properties": {"email": {"type": "string"}},
            "required": ["email"],
            "additionalProperties": False,
        },
        **more,
    }


def until_entry(books: Books, workflow: str, what: str, name: str) -> Row:
    """The workflow's only request, once that field of it is filled in."""

    def look() -> Row | None:
        entries = books.of(workflow)
        return entries[-1] if entries and entries[-1][name] is not None else None

    return until(f"the model's books say {what}", look)
