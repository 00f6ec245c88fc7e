"""Tools registered through the API: judged, listed, used by definitions that only name them, and removed."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.api.operated import audited
from tests.engine.listing import COMMIT, LOG
from tests.engine.world import World, uses

BOOK = {"http": {"method": "POST", "url": "https://x.io/book"}, "effect": "at_most_once"}
GIT = {"mcp": {"url": "https://x.io/mcp"}, "trust_annotations": True, "listed": [COMMIT, LOG]}


async def test_registered_tool_is_listed_and_can_be_named_until_it_is_removed(
    api: httpx.AsyncClient, world: World
) -> None:
    put = await api.put("/v1/tools/book", json=BOOK)
    listed = (await api.get("/v1/tools")).json()["data"]
    definition = {"name": "x", "steps": {"s": {"tool": "book"}}}
    accepted = await world.submit(definition)
    removed = await api.delete("/v1/tools/book")
    again = await api.delete("/v1/tools/book")

    assert put.status_code == 200
    assert [(each["name"], each["kind"], each["effect"]) for each in listed] == [("book", "http", "at_most_once")]
    assert put.json() == listed[0]
    assert (await world.workflow(accepted))["status"] == "running"
    assert (removed.json(), again.status_code) == ({"removed": "book"}, 404)
    assert await audited(world) == ["tool.put", "tool.remove"]


async def test_agent_uses_the_frozen_list_of_a_registered_server_without_asking_it(
    api: httpx.AsyncClient, world: World
) -> None:
    put = await api.put("/v1/tools/git", json=GIT)
    worker = await world.worker()  # it asks no server
    world.model.answers = [uses(("git-log", {"n": 1})), "done"]
    step = {"agent": {"model": "fast", "tools": ["git.*"]}, "prompt": "Go."}

    workflow_id = await world.submit({"name": "x", "steps": {"s": step}})
    await world.run(worker)

    assert put.json()["tools"] == ["commit", "log"]
    assert (await world.workflow(workflow_id))["status"] == "succeeded"
    assert [tool["name"] for tool in world.model.requests[0].tools] == ["git-commit", "git-log"]
    assert [request.tool.name for request in world.tools.ledger] == ["git.log"]


@pytest.mark.parametrize(
    ("name", "declaration", "code", "pointer"),
    [
        ("book", {"http": {"method": "POST"}}, "definition_invalid", "/http"),
        ("bad name", BOOK, "definition_invalid", ""),
        ("git", {"mcp": {"command": "git"}}, "definition_invalid", "/mcp/command"),
        ("git", {"mcp": {"command": ["git-server"]}, "effect": "read_only"}, "outbound_forbidden", "/mcp/command"),
        ("git", {"mcp": {"url": "http://10.0.0.1/mcp"}, "effect": "read_only"}, "outbound_forbidden", "/mcp/url"),
        ("git", {**GIT, "include": ["push"]}, "definition_invalid", "/include"),
    ],
)
async def test_declaration_is_refused_with_its_place(
    api: httpx.AsyncClient, name: str, declaration: dict[str, Any], code: str, pointer: str
) -> None:
    refused = await api.put(f"/v1/tools/{name}", json=declaration)

    assert refused.status_code == 422
    assert refused.json()["code"] == code
    assert pointer in [fault["pointer"] for fault in refused.json()["errors"]]
    assert (await api.get("/v1/tools")).json()["data"] == []


@pytest.mark.parametrize(
    ("tools", "code"),
    [
        ({"git": {"mcp": {"command": ["rm", "-rf", "/"]}, "effect": "read_only"}}, "outbound_forbidden"),
        ({"git": {"mcp": {"url": "http://169.254.169.254/mcp"}, "effect": "read_only"}}, "outbound_forbidden"),
    ],
)
async def test_submission_is_refused_when_its_server_may_not_be_reached_or_started(
    api: httpx.AsyncClient, tools: dict[str, Any], code: str
) -> None:
    definition = {"name": "x", "tools": tools, "steps": {"s": {"tool": "git.log"}}}

    refused = await api.post("/v1/workflows", json={"definition": definition}, headers={"Idempotency-Key": "k-1"})

    assert (refused.status_code, refused.json()["code"]) == (422, code)
