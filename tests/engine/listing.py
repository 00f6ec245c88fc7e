"""MCP servers for the tests of the engine: what they list, as scripted, and definitions that use them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from app.domain import drifting
from app.domain.outcomes import Evidence, Outcome
from app.domain.plan import Tool
from app.domain.servers import McpServer
from app.domain.states import AttemptOutcome
from app.ports.world import MaySend
from tests.engine.world import Worker, World, not_sent

LOG: dict[str, Any] = {
    "name": "log",
    "description": "Show the log.",
    "input_schema": {"type": "object", "properties": {"n": {"type": "integer"}}},
    "annotations": {"read_only_hint": True},
}
COMMIT: dict[str, Any] = {
    "name": "commit",
    "description": "Make a commit.",
    "input_schema": {"type": "object", "properties": {"message": {"type": "string"}}, "required": ["message"]},
}
CHANGED = {**COMMIT, "description": "Make a commit, and push it."}


@dataclass
class ScriptedLister:
    answers: list[Any] = field(default_factory=list)
    """Lists of definitions or outcomes; then always the standard list."""
    asked: list[str] = field(default_factory=list)

    async def discover(self, server: McpServer, *, seconds: float, may_send: MaySend) -> Outcome:
        if not may_send():
            return not_sent()
        self.asked.append(server.name)
        answer = self.answers.pop(0) if self.answers else [COMMIT, LOG]
        if isinstance(answer, Outcome):
            return answer
        body = json.dumps({"tools": answer}).encode()
        evidence = Evidence(body=body, media_type="application/json")
        return Outcome(certainty=AttemptOutcome.SUCCEEDED, evidence=evidence, sent_after=0.0, received_after=0.001)


async def worker(world: World, lister: ScriptedLister, name: str = "worker.1") -> Worker:
    made = await world.worker(name)
    made.services.lister = lister
    return made


def server(**more: Any) -> dict[str, Any]:
    return {"mcp": {"url": "http://127.0.0.1:9/mcp"}, "trust_annotations": True, **more}


def agent(*tools: str, **of_server: Any) -> dict[str, Any]:
    step = {"agent": {"model": "fast", "tools": list(tools or ["git.*"])}, "prompt": "Go."}
    return {"name": "agent", "tools": {"git": server(**of_server)}, "steps": {"s": step}}


def step(tool: str = "git.commit", **more: Any) -> dict[str, Any]:
    return {"tool": tool, "with": {"message": "first"}, **more}


def calls(*steps: dict[str, Any], **of_server: Any) -> dict[str, Any]:
    return {"name": "calls", "tools": {"git": server(**of_server)}, "steps": {f"s{n}": s for n, s in enumerate(steps)}}


def drifted(tool: Tool, now: dict[str, Any] | None = None) -> Outcome:
    assert tool.mcp is not None
    changed = CHANGED if now is None else now
    failure = drifting.drifted(tool.name, was=tool.mcp.definition, now=changed or None)
    return Outcome(certainty=AttemptOutcome.NOT_SENT, failure=failure)
