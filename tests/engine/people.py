"""People who are asked about calls: what waits for them, what they say, and definitions that ask them."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from app.domain import conversation, ids
from app.domain.outcomes import JSON
from app.domain.plan import Tool
from app.engine import decide_approval
from tests.engine.ledger_laws import check_laws
from tests.engine.world import Worker, World, tool

PAY = {"to": "kim", "amount": 5}
SCHEMA = {"to": {"type": "string"}, "amount": {"type": "integer"}}
EDITED = {"to": "joe", "amount": 3}
PAYS = conversation.wire_name("pay")


def pay(effect: str = "at_most_once", **more: Any) -> dict[str, Any]:
    return tool(effect, **{"approve": "always", "input_schema": SCHEMA, **more})


def step_of(arguments: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"tool": "pay", "with": PAY if arguments is None else arguments, **more}


def pays(effect: str = "at_most_once", *, key: str | None = None, **more: Any) -> dict[str, Any]:
    """One step that pays."""
    keyed = {} if key is None else {"idempotency_key": key}
    return {"name": "pays", "tools": {"pay": pay(effect, **more)}, "steps": {"s": step_of(**keyed)}}


def agent(tools: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """One agent, step `s`, that may pay (and whatever else is given)."""
    offered = {"pay": pay(), **(tools or {})}
    step = {"agent": {"model": "fast", "tools": list(offered), "max_turns": 20}, "prompt": "Go."}
    return {"name": "agent", "tools": offered, "steps": {"s": step}, **more}


async def asked(world: World, workflow_id: UUID, *, status: str = "open") -> list[dict[str, Any]]:
    """The approvals of a workflow, in the order in which people were asked."""
    return await world.rows(
        "SELECT a.* FROM approvals a LEFT JOIN calls c ON c.id = a.call_id "
        "WHERE a.workflow_id = %s AND a.status = %s ORDER BY a.created_at, a.step, c.n",
        workflow_id,
        status,
    )


async def say(
    world: World,
    approval: dict[str, Any],
    decision: str,
    *,
    values: JSON = None,
    comment: str | None = None,
    revision: int = 1,
    by: str = "kim",
) -> None:
    await decide_approval.decide(
        world.api,
        ids.DEFAULT_TENANT,
        approval["id"],
        decision=decision,
        values=values,
        comment=comment,
        revision=revision,
        by=by,
    )


async def say_next(world: World, workflow_id: UUID, decision: str, **more: Any) -> dict[str, Any]:
    """Decide the first that is open; the approval as it was."""
    [approval, *_] = await asked(world, workflow_id)
    await say(world, approval, decision, **more)
    return approval


async def rest(world: World, worker: Worker) -> None:
    """Everything that may happen without a person does: what is due is made, the sweep looks, and again."""
    await world.run(worker)
    await world.sweep(worker)
    await world.run(worker)


def paid(world: World) -> list[Any]:
    """The arguments that reached the tool."""
    return [request.arguments for request in world.tools.sent("pay")]


def told(world: World) -> list[dict[str, Any]]:
    """What the model was told last about its tool uses."""
    blocks: list[dict[str, Any]] = json.loads(world.model.requests[-1].messages[-1])["content"]
    return blocks


async def step_failure(world: World, workflow_id: UUID, path: str = "s") -> str:
    failure = (await world.step(workflow_id, path))["failure"]
    return str(failure["kind"])


GATED = """
    SELECT a.id, a.status, c.state, c.held_reason FROM approvals a JOIN calls c ON c.id = a.call_id
    WHERE (a.status = 'open') <> (c.state = 'held' AND c.held_reason IN ('approval', 'repeat'))
      AND (a.status = 'open' OR c.state = 'held' AND c.held_reason IN ('approval', 'repeat'))
    UNION ALL SELECT c.id, 'nobody is asked', c.state, c.held_reason FROM calls c
    WHERE c.held_reason IN ('approval', 'repeat')
      AND NOT EXISTS (SELECT FROM approvals a WHERE a.call_id = c.id AND a.status = 'open')"""
"""Finds questions about calls that do not wait, and calls that wait without a question."""


async def laws(world: World) -> None:
    """What the rows always say, whatever happened."""
    await check_laws(world)
    assert await world.rows(GATED) == []


async def tool_of(world: World, workflow_id: UUID, name: str = "pay") -> Tool:
    """As the workflow's plan has it."""
    workflow = await world.workflow(workflow_id)
    return (await world.api.plans.get(ids.DEFAULT_TENANT, workflow["plan_digest"])).tools[name]
