"""Time that passes for a world: every backoff, rate limit and pause of a breaker comes to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.engine.world import Worker, World


async def outlive(world: World, worker: Worker) -> None:
    """What is due later is due; a breaker lets a canary through; whoever waits for that is looked at."""
    await world.hurry()
    await world.rows("DELETE FROM limits")
    await world.rows("UPDATE breakers SET until = clock_timestamp() WHERE until IS NOT NULL")
    waiting = "UPDATE dues SET ring_at = clock_timestamp() WHERE kind = 'dependency' RETURNING ref"
    if await world.rows(waiting):
        await world.sweep(worker)
