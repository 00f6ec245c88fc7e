"""An error where none should be, between claim and record: the attempt gets its outcome all the same, by what left."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest

from app.domain.outcomes import Outcome
from app.ports.world import MaySend, ToolRequest
from tests.engine.conversing import agent
from tests.engine.world import ScriptedTools, World, ok, one, says

DEFECT = RuntimeError("nobody thought of this")
GONE = psycopg.OperationalError("the connection is closed")
"""What a lost database looks like to whoever reads from it."""


@dataclass
class FragileTools(ScriptedTools):
    """Breaks before it asks whether it may send, as often as it is told; then it is as scripted."""

    before: list[Exception] = field(default_factory=list)

    async def send(self, request: ToolRequest, *, seconds: float, may_send: MaySend) -> Outcome:
        if self.before:
            raise self.before.pop(0)
        return await super().send(request, seconds=seconds, may_send=may_send)


class BrokenPartials:
    """Shows nothing, and breaks where an attempt's text is put away."""

    changed = None

    def forget(self, writing: Any) -> None:
        raise DEFECT


def breaks(error: Exception) -> Any:
    """An answer of a scripted tool: the request has left, and then its port breaks."""

    def raise_it(_: ToolRequest) -> Any:
        raise error

    return raise_it


async def attempts(world: World) -> list[tuple[str | None, str | None]]:
    """(outcome, failure kind) in order."""
    rows = await world.rows("SELECT outcome, failure FROM attempts ORDER BY intended_at")
    return [(row["outcome"], row["failure"] and row["failure"]["kind"]) for row in rows]


async def test_call_fails_without_a_doubt_when_its_port_breaks_before_anything_is_sent(small_world: World) -> None:
    small_world.tools = FragileTools(before=[DEFECT])
    worker = await small_world.worker()
    workflow_id = await small_world.submit(one("at_most_once"))

    await small_world.run(worker)

    assert await attempts(small_world) == [("not_sent", "internal")]
    assert small_world.tools.ledger == []
    workflow = await small_world.workflow(workflow_id)
    assert (workflow["status"], workflow["failure"]["kind"], workflow["doubts"]) == ("failed", "internal", 0)
    assert workflow["failure"]["message"] == "A defect of Surefoot: RuntimeError."
    assert "effect.in_doubt" not in await small_world.events(workflow_id)


async def test_call_is_made_again_when_the_database_was_lost_before_anything_is_sent(small_world: World) -> None:
    small_world.tools = FragileTools(before=[GONE])
    worker = await small_world.worker()
    workflow_id = await small_world.submit(one("at_most_once"))

    await small_world.run(worker)

    assert await attempts(small_world) == [("not_sent", "worker_lost"), ("succeeded", None)]
    assert len(small_world.tools.ledger) == 1
    workflow = await small_world.workflow(workflow_id)
    assert (workflow["status"], workflow["retries"]) == ("succeeded", 0)


@pytest.mark.parametrize("error", [DEFECT, GONE], ids=["defect", "database"])
async def test_call_is_in_doubt_and_not_repeated_when_its_port_breaks_after_the_request_left(
    small_world: World, error: Exception
) -> None:
    small_world.tools.script["do"] = [breaks(error), ok({"id": 1})]
    worker = await small_world.worker()
    workflow_id = await small_world.submit(one("at_most_once"))

    await small_world.run(worker)

    assert await attempts(small_world) == [("unknown", "internal")]
    assert len(small_world.tools.ledger) == 1
    assert (await small_world.call(workflow_id, "s"))["state"] == "in_doubt"
    workflow = await small_world.workflow(workflow_id)
    assert (workflow["status"], workflow["doubts"]) == ("waiting", 1)
    assert "effect.in_doubt" in await small_world.events(workflow_id)


async def test_attempt_has_its_outcome_when_what_breaks_is_beside_its_port(small_world: World) -> None:
    small_world.model.answers = [says("hello")]
    worker = await small_world.worker()
    worker.services.partials = BrokenPartials()  # type: ignore[assignment]
    workflow_id = await small_world.submit(agent(), input={"who": "kim"})

    await small_world.run(worker)

    assert await attempts(small_world) == [("unknown", "internal")]
    assert len(small_world.model.requests) == 1
    assert (await small_world.workflow(workflow_id))["failure"]["kind"] == "internal"
