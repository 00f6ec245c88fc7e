"""Races: many rounds of the same moment, two actors that begin up to some milliseconds apart, by a seed."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import structlog

from app.engine import cancel, record
from app.errors import StateConflict
from tests.engine.clones import Clone
from tests.engine.operations import TENANT
from tests.engine.world import Worker, World

log = structlog.get_logger(__name__)

ROUNDS: Final = int(os.environ.get("SUREFOOT_RACES", "150"))
AT_ONCE: Final = 12
"""Rounds in flight at once: enough that connections are shared and locks met, as in a busy process."""
MEMORY: Final = 20
"""Rounds over which the pace is averaged."""
LEAST: Final = max(1, ROUNDS // 50)
"""Each of the possible orders must have occurred so often, or the race was none."""

Answer = StateConflict | object
Actor = Callable[[], Awaitable[object]]


async def linger(seconds: float) -> None:
    """Begin a little later, by the seed. Nothing is waited for: no assertion depends on how long this was."""
    over = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, over.set)
    await over.wait()


async def acted(actor: Actor) -> Answer:
    """What the actor was told. A refusal is an answer; anything else that goes wrong is a defect."""
    try:
        return await actor()
    except StateConflict as refusal:
        return refusal


@dataclass
class Pace:
    """How long the two take here and now: the quicker begins later, so that they meet however busy this machine is."""

    dice: random.Random
    first: float = 0.01
    second: float = 0.01

    def offset(self) -> float:
        """By how much the second begins later than the first (or earlier)."""
        return (self.first - self.second) / 2 + self.dice.uniform(-1, 1) * (self.first + self.second) / 2

    def took(self, *, first: float, second: float) -> None:
        self.first += (first - self.first) / MEMORY
        self.second += (second - self.second) / MEMORY


async def race(copies: Sequence[Clone], actors: Callable[[Clone], tuple[Actor, Actor]], *, seed: int) -> list[Any]:
    """Both actors of every round; what they were told, in the order of the rounds."""
    room, pace = asyncio.Semaphore(AT_ONCE), Pace(dice=random.Random(seed))
    clock = asyncio.get_running_loop().time

    async def timed(actor: Actor, after: float) -> tuple[Answer, float]:
        await linger(after)
        began = clock()
        return await acted(actor), clock() - began

    async def once(copy: Clone) -> tuple[Answer, Answer]:
        first, second = actors(copy)
        async with room:
            offset = pace.offset()
            (a, took_a), (b, took_b) = await asyncio.gather(
                timed(first, max(0.0, -offset)), timed(second, max(0.0, offset))
            )
            pace.took(first=took_a, second=took_b)
            return a, b

    return await asyncio.gather(*(once(copy) for copy in copies))


def expect_every_order(orders: Counter[str], *names: str) -> None:
    log.info("race.over", **{name: orders[name] for name in sorted(orders)})
    assert set(orders) == set(names), f"another result than the legal ones: {orders}"
    assert min(orders.values()) >= LEAST, f"one order hardly occurred, the race was none: {orders}"


@dataclass
class Arena:
    """One database with the workflows of a race, two workers and the people's own connections."""

    world: World
    worker: Worker
    second: Worker

    async def by_workflow(self, sql: str) -> dict[UUID, dict[str, Any]]:
        """The query's rows by their `workflow_id`."""
        return {row["workflow_id"]: row for row in await self.world.rows(sql)}

    async def claimed(self, definition: dict[str, Any], **more: Any) -> Any:
        """A workflow whose first call is at the tool."""
        workflow_id = await self.world.submit(definition, **more)
        [call] = [
            row["id"] for row in await self.world.rows("SELECT id FROM calls WHERE workflow_id = %s", workflow_id)
        ]
        return await self.worker.claim(call)

    def recorded(self, claimed: Any, outcome: Any, *, by: Worker | None = None) -> Actor:
        return lambda: record.record((by or self.worker).services, claimed, outcome)

    def cancels(self, copy: Clone) -> Actor:
        return lambda: cancel.cancel(self.world.api, TENANT, copy.workflow_id, reason=None, by="kim")
