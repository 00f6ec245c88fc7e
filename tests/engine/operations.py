"""What operators do in engine tests, in one word each; and a world whose rows are judged after each test."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from app.domain import ids
from app.domain.outcomes import JSON
from app.engine import cancel, decide_approval, operate_step, pause, retry
from app.errors import NotPossible
from tests.engine.ledger_laws import check_laws
from tests.engine.world import World, tool

TENANT = ids.DEFAULT_TENANT
NEXT = {"set": {"saw": "${{ steps.s.output }}", "error": "${{ steps.s.error }}"}, "if": "steps.s.state != 'none'"}


async def paused(world: World, workflow_id: UUID) -> None:
    await pause.pause(world.api, TENANT, workflow_id, reason="lunch", by="kim")


async def resumed(world: World, workflow_id: UUID) -> None:
    await pause.resume(world.api, TENANT, workflow_id, reason=None, by="kim")


async def cancelled(world: World, workflow_id: UUID) -> None:
    await cancel.cancel(world.api, TENANT, workflow_id, reason="enough", by="kim")


async def retried(world: World, workflow_id: UUID, *, by: str = "kim") -> None:
    await retry.retry(world.api, TENANT, workflow_id, note="again", by=by)


async def operated(world: World, workflow_id: UUID, path: str, action: str, *, output: JSON = None) -> None:
    await operate_step.operate(
        world.api, TENANT, workflow_id, path, action=action, output=output, note="by hand", by="kim"
    )


async def decided(world: World, decision: str, *, by: str = "kim") -> None:
    """The one approval that is open."""
    open_ = await world.row("SELECT id FROM approvals WHERE status = 'open'")
    await decide_approval.decide(
        world.api, TENANT, open_["id"], decision=decision, values=None, comment=None, revision=1, by=by
    )


async def expect_refusal(asked: Any, possible: list[str]) -> None:
    """The operation is refused, and says what is possible instead; nothing else about it matters."""
    with pytest.raises(NotPossible) as told:
        await asked
    assert told.value.extra["possible"] == possible, told.value.detail


async def audited(world: World) -> list[tuple[str, str]]:
    """(action, actor), in order."""
    return [(row["action"], row["actor"]) for row in await world.rows("SELECT * FROM audit ORDER BY at, id")]


async def call_states(world: World, workflow_id: UUID) -> dict[str, str]:
    """`step#n` → state, with the reason if it is held."""
    found = await world.rows("SELECT * FROM calls WHERE workflow_id = %s ORDER BY step, n", workflow_id)
    return {
        f"{c['step']}#{c['n']}": c["state"] if c["held_reason"] is None else f"held({c['held_reason']})" for c in found
    }


async def expect_the_laws(world: World) -> None:
    """The rows are as the ledger's laws say, and a client that reads or is told the events sees no gap."""
    await check_laws(world)
    gaps = await world.rows(
        """SELECT w.id FROM workflows w WHERE w.webhook IS NOT NULL AND (SELECT count(*) FROM deliveries d
             WHERE d.workflow_id = w.id) <> (SELECT count(*) FROM events e WHERE e.workflow_id = w.id)"""
    )
    assert gaps == [], "an event has no delivery"


def then(step: dict[str, Any], tools: dict[str, Any] | None = None) -> dict[str, Any]:
    """The step `s`, one that looks at it whatever became of it, and one that it takes along when it is skipped."""
    steps = {"s": step, "after": NEXT, "needs_it": {"set": {"x": 1}, "needs": ["s"]}}
    return {"name": "then", "tools": tools or {"do": tool("at_most_once")}, "steps": steps}


def each(effect: str = "at_most_once", **more: Any) -> dict[str, Any]:
    step = {"for_each": "${{ input.list }}", "max_parallel": 2, "tool": "do", "with": {"n": "${{ item }}"}, **more}
    return then(step, {"do": tool(effect)})


async def seen(world: World, workflow_id: UUID) -> tuple[Any, Any, str]:
    """What the step after it saw as output and error; what became of the step that only needs it."""
    after, needs_it = await world.step(workflow_id, "after"), await world.step(workflow_id, "needs_it")
    return after["output"]["saw"], after["output"]["error"], needs_it["state"]


async def ended(world: World, workflow_id: UUID) -> tuple[str, int, int]:
    workflow = await world.workflow(workflow_id)
    return workflow["status"], workflow["steps_done"], workflow["steps_open"]
