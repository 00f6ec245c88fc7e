"""What the tests of budgets share: definitions with budgets, their accounts, and prices that a test can reckon with.

The model is priced by the table as it is installed: what a test says about money it says in worst cases of that table,
asked of `prices.rate_of`, never in numbers that the next release of the table would change.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

from app.domain import ids
from app.domain.accounts import Limits
from app.domain.outcomes import Outcome, Usage
from app.domain.rates import Rate
from app.engine import top_up
from app.ports import prices
from tests.engine.world import World, ok

MODEL = "claude-haiku-5-5"


def rate() -> Rate:
    found = prices.rate_of(MODEL)
    assert found is not None
    return found


def agent(whole: Any = None, *, tools: dict[str, Any] | None = None, **step: Any) -> dict[str, Any]:
    """One agent step `a`; `whole` is the budget of the workflow."""
    definition: dict[str, Any] = {
        "name": "budgeted",
        "tools": tools or {},
        "steps": {
            "a": {"agent": {"model": MODEL, "tools": list(tools or {}), "max_tokens": 1000}, "prompt": "Do it.", **step}
        },
    }
    return definition if whole is None else {**definition, "budget": whole}


def branches(items: int, budget: Any, *, max_tokens: int = 1000, **step: Any) -> dict[str, Any]:
    """An agent for each of so many items, all at once."""
    one = {
        "for_each": list(range(items)),
        "max_parallel": items,
        "agent": {"model": MODEL, "max_tokens": max_tokens},
        "prompt": "Item ${{ item }}.",
        **step,
    }
    return {"name": "branches", "budget": budget, "steps": {"a": one}}


def answer(text: str = "done", *, read: int = 100, wrote: int = 50, cost: int | None = None) -> Outcome:
    """A final answer that takes so many tokens."""
    message = {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
    }
    usage = Usage(input_tokens=read, output_tokens=wrote, model=MODEL, cost_microusd=cost, price_version="test/1")
    return ok(message, usage=usage)


async def account(world: World, workflow_id: UUID, scope: str = "") -> dict[str, Any]:
    return await world.row("SELECT * FROM budgets WHERE workflow_id = %s AND scope = %s", workflow_id, scope)


def spent(row: dict[str, Any]) -> tuple[int, int, int, int]:
    return row["spent_microusd"], row["spent_tokens"], row["spent_turns"], row["spent_tool_calls"]


def reserved(row: dict[str, Any]) -> tuple[int, int, int, int]:
    return row["reserved_microusd"], row["reserved_tokens"], row["reserved_turns"], row["reserved_tool_calls"]


async def wanted(world: World, workflow_id: UUID, step: str, n: int = 1) -> dict[str, Any]:
    """What a call takes at worst."""
    found: dict[str, Any] = (await world.call(workflow_id, step, n))["budget"]
    return found


async def give(
    world: World, workflow_id: UUID, *, key: str | None = None, step: str | None = None, **more: Any
) -> bool:
    return await top_up.top_up(
        world.api,
        ids.DEFAULT_TENANT,
        workflow_id,
        added=Limits(**more),
        step=step,
        note="more",
        by="kim",
        key=top_up.RequestKey(text=key or str(uuid4()), fingerprint=str(more), field_hashes={}),
    )
