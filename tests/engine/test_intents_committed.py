"""What the world hears of was committed before: the intent before the request, the work before its bell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import psycopg

from app.domain import ids
from app.domain.states import DueKind, Lane
from app.engine import retry
from app.ports.world import ToolRequest
from tests.engine.world import DeadBell, World, not_sent, ok, one, tool


class LookingBell(DeadBell):
    """Looks, over a connection of its own, whether what it rings for is there."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.seen: list[bool] = []
        self._url = url

    def ring(self, lane: Lane, ids: Sequence[UUID]) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            for ref in ids:
                found = connection.execute(
                    "SELECT FROM dues WHERE kind = %s AND ref = %s", (DueKind.CALL, ref)
                ).fetchone()
                self.seen.append(found is not None)


async def test_tool_finds_the_intent_committed_when_it_is_asked(small_world: World) -> None:
    seen: list[dict[str, Any]] = []

    async def look(request: ToolRequest) -> Any:
        seen.append(
            await small_world.row("SELECT c.state, a.n FROM calls c LEFT JOIN attempts a ON a.id = c.attempt_id")
        )
        return ok({"done": True})

    small_world.tools.script["do"] = [look]
    worker = await small_world.worker()
    await small_world.submit(one("at_most_once"))

    await small_world.run(worker)

    assert seen == [{"state": "intended", "n": 1}]


async def test_bell_finds_what_it_rings_for_when_it_rings(small_world: World) -> None:
    small_world.bell = LookingBell(small_world.url)
    worker = await small_world.worker()
    steps = {"first": {"tool": "do"}, "second": {"tool": "do", "needs": ["first"]}}
    await small_world.submit({"name": "two", "tools": {"do": tool("idempotent")}, "steps": steps})

    await small_world.run(worker)

    assert small_world.bell.seen == [True, True]


async def test_bell_finds_what_an_operator_set_free_when_it_rings(small_world: World) -> None:
    small_world.bell = LookingBell(small_world.url)
    small_world.tools.script["do"] = [not_sent() for _ in range(20)]
    worker = await small_world.worker()
    workflow_id = await small_world.submit(one("at_most_once"))
    await small_world.run(worker)
    assert (await small_world.workflow(workflow_id))["status"] == "failed"
    small_world.bell.seen.clear()

    await retry.retry(small_world.api, ids.DEFAULT_TENANT, workflow_id, note="the tool is back", by="kim")

    assert small_world.bell.seen == [True]
