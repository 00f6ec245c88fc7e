"""Definitions that can be undone, and how one watches them: which calls go out together, what the ledger says."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

from app.domain import ids
from app.engine import cancel, compensate
from tests.engine.world import Worker, World, refused, tool

UNDO = {"n": "${{ arguments.n }}", "id": "${{ output.id }}", "who": "${{ input.who }}"}
MOST_ROUNDS = 400

SAGA_LAWS = {
    "undos are counted": """
        SELECT w.id, w.status, w.undos, w.undos_failed, w.effects_undone, c.* FROM workflows w, LATERAL (SELECT
            count(*) FILTER (WHERE undo IN ('recorded', 'running', 'failed')) AS undos_,
            count(*) FILTER (WHERE undo = 'failed') AS failed_, count(*) FILTER (WHERE undo = 'done') AS undone_
          FROM calls WHERE workflow_id = w.id) c
        WHERE (w.undos, w.undos_failed, w.effects_undone) <> (c.undos_, c.failed_, c.undone_)""",
    "undos are counted on their step": """
        SELECT s.path, s.counters, c.* FROM steps s, LATERAL (SELECT
            count(*) FILTER (WHERE undo IN ('recorded', 'running', 'failed')) AS undo_,
            count(*) FILTER (WHERE undo = 'running') AS undoing_
          FROM calls WHERE workflow_id = s.workflow_id AND split_part(step, '.', 1) = s.path) c
        WHERE s.parent IS NULL AND (coalesce((s.counters->>'undo')::int, 0), coalesce((s.counters->>'undoing')::int, 0))
          <> (c.undo_, c.undoing_)""",
    "what is being undone has one open compensation, and only that has": """
        SELECT c.id, c.undo, u.id AS compensation, u.state FROM calls c
        FULL JOIN calls u ON u.target = c.id AND u.kind = 'compensation' AND u.ended_at IS NULL
        WHERE (c.undo = 'running' AND (u.id IS NULL OR u.id <> c.probe_id))
          OR (u.kind = 'compensation' AND u.ended_at IS NULL AND c.undo IS DISTINCT FROM 'running')""",
    "only what is known done and owned is undone, and once": """
        SELECT c.id, c.state, c.resolved, count(u.id) FROM calls c
        LEFT JOIN calls u ON u.target = c.id AND u.kind = 'compensation' AND u.state = 'succeeded'
        WHERE c.undo <> 'none' GROUP BY c.workflow_id, c.id
        HAVING count(u.id) > 1 OR c.state <> 'succeeded' OR c.resolved->>'outcome' = 'attached'""",
    "an effect and its undo have different keys": """
        SELECT c.id FROM calls c JOIN calls u ON u.target = c.id AND u.kind = 'compensation' WHERE c.key = u.key""",
    "what is undone is undone after the drain": """
        SELECT c.id, c.kind, c.state, w.status FROM calls c JOIN workflows w ON w.id = c.workflow_id
        WHERE c.ended_at IS NULL AND c.kind <> 'probe' AND (c.kind = 'compensation') <> (w.status = 'compensating')""",
    "who is compensating has something to wait for": """
        SELECT id FROM workflows WHERE status = 'compensating' AND open_calls + doubts + held + undos_failed = 0""",
    "what a workflow says of its undoing is so": """
        SELECT id, compensation, effects_done, effects_undone, effects_abandoned FROM workflows
        WHERE status IN ('failed', 'cancelled') AND (
          compensation = 'done' AND effects_undone < effects_done
          OR compensation IN ('not_needed', 'skipped') AND effects_undone > 0
          OR compensation = 'not_needed' AND effects_done + effects_abandoned > 0)""",
}


def undoable(
    steps: dict[str, Any], *, effect: str = "idempotent", by: str = "idempotent", **top: Any
) -> dict[str, Any]:
    """`make` is undone by `undo`; `plain` is an effect that nothing undoes; `fail` is what a test lets fail."""
    more = top.pop("make", {})
    tools = {
        "make": tool(effect, compensate={"tool": "undo", "with": UNDO}, **more),
        "undo": tool(by, **top.pop("undo", {})),
        "plain": tool("idempotent"),
        "fail": tool("read_only"),
        "look": tool("read_only"),
        **top.pop("tools", {}),
    }
    return {"name": "undoable", "tools": tools, "steps": steps, **top}


def made(n: Any, *needs: str, **more: Any) -> dict[str, Any]:
    return {"tool": "make", "with": {"n": n}, "needs": list(needs), **more}


def fails(*needs: str, **more: Any) -> dict[str, Any]:
    return {"tool": "fail", "with": {}, "needs": list(needs), **more}


def script(world: World) -> None:
    """What `make` answers carries its own id; `fail` is refused."""
    world.tools.script["make"] = [lambda request: {"id": f"id-{request.arguments['n']}"}] * 2_000
    world.tools.script["fail"] = [refused(404)]


async def submitted(world: World, definition: dict[str, Any], **more: Any) -> UUID:
    return await world.submit(definition, input={"who": "kim", "list": more.pop("list", [])}, **more)


def shown(request: Any) -> str:
    return f"{request.tool.name} {request.arguments.get('n', '')}".strip()


async def play(world: World, worker: Worker, *, hurry: bool = True) -> list[set[str]]:
    """Perform what is due, round by round, until nothing is: which calls went out in each round."""
    rounds: list[set[str]] = []
    for _ in range(MOST_ROUNDS):
        if hurry:
            await world.hurry()
        calls = await world.due_calls()
        if not calls:
            return rounds
        before = len(world.tools.ledger)
        await asyncio.gather(*(worker.run(call) for call in calls))
        rounds.append({shown(request) for request in world.tools.ledger[before:]})
    raise AssertionError("the workflow does not come to rest")


async def ended(world: World, workflow_id: UUID) -> tuple[str, str | None]:
    """(status, what became of its effects)."""
    workflow = await world.workflow(workflow_id)
    return workflow["status"], workflow["compensation"]


async def undos(world: World, workflow_id: UUID) -> dict[str, str]:
    """Step → what became of its latest effect."""
    found = await world.rows(
        "SELECT step, undo FROM calls WHERE workflow_id = %s AND kind = 'tool' AND effect <> 'read_only' ORDER BY n",
        workflow_id,
    )
    return {row["step"]: row["undo"] for row in found}


async def compensations(world: World, workflow_id: UUID) -> list[dict[str, Any]]:
    return await world.rows(
        "SELECT * FROM calls WHERE workflow_id = %s AND kind = 'compensation' ORDER BY created_at, step, n", workflow_id
    )


async def stop(world: World, workflow_id: UUID) -> None:
    await cancel.cancel(world.api, ids.DEFAULT_TENANT, workflow_id, reason="enough", by="kim")


async def settle_undo(world: World, workflow_id: UUID, step: str, action: str, *, n: int = 1) -> None:
    effect = await world.call(workflow_id, step, n)
    await compensate.settle_undo(world.api, ids.DEFAULT_TENANT, effect["id"], action=action, note="looked", by="kim")


async def decide_saga(world: World, workflow_id: UUID, mode: str) -> None:
    await compensate.decide_saga(world.api, ids.DEFAULT_TENANT, workflow_id, mode=mode, note="looked", by="kim")


def probed(by: str = "checkable", **more: Any) -> dict[str, Any]:
    """A saga whose compensation can be asked about."""
    probe = {"tool": "look", "with": {"id": "${{ arguments.id }}"}, "found": "output.gone", "deadline": "1s"}
    return undoable({"a": made(1), "b": fails("a")}, by=by, undo={"probe": probe}, **more)
