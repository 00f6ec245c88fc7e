"""Tools and models that are down for a while, and what is known of them, for tests of breakers and rate limits."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from app.domain.outcomes import Failure, Outcome
from app.domain.states import AttemptOutcome, FailureKind
from tests.engine.world import Worker, World, not_sent, ok, tool

AGENT: dict[str, Any] = {"name": "agent", "steps": {"a": {"agent": {"model": "fast"}, "prompt": "Hi"}}}


def asks(name: str = "do", effect: str = "read_only", *, retries: int = 50) -> dict[str, Any]:
    """One step that asks one tool, and would ask it very often."""
    policy = {"max_retries": retries, "backoff": {"first": "1ms", "max": "1ms"}}
    step = {"tool": name, "with": {}, "retry": {"transient": policy}}
    return {"name": f"asks-{name.replace('.', '-')}", "tools": {name: tool(effect)}, "steps": {"s": step}}


class Outage:
    """Put into a script as its answers: refuses connections until it is over; counts who asked."""

    def __init__(self, world: World, name: str = "do") -> None:
        self.over = False
        self.requests = 0
        world.tools.script[name] = [self._answer] * 100_000

    def _answer(self, request: Any) -> Outcome:
        self.requests += 1
        return ok({"up": True}) if self.over else not_sent(FailureKind.NETWORK)


def refused_by_provider(kind: FailureKind, *, status: int | None = 401) -> Outcome:
    failure = Failure(
        kind=kind, message="The model provider refused: invalid x-api-key.", status_code=status, fix="Mend the key."
    )
    return Outcome(certainty=AttemptOutcome.FAILED, failure=failure, status_code=status, sent_after=0.001)


async def breaker(world: World, scope: str = "tool:do") -> dict[str, Any]:
    return await world.row("SELECT * FROM breakers WHERE scope = %s", scope)


async def held(world: World, reason: str = "breaker") -> int:
    found = await world.row("SELECT count(*) AS n FROM calls WHERE held_reason = %s", reason)
    return int(found["n"])


async def pass_the_pause(world: World) -> None:
    """It is time for a canary, and for those that wait to be looked at."""
    await world.rows("UPDATE breakers SET until = clock_timestamp() WHERE until IS NOT NULL")
    await look_at_all(world)


async def look_at_all(world: World) -> None:
    await world.rows("UPDATE dues SET ring_at = clock_timestamp() WHERE kind = 'dependency'")


async def swept(world: World, worker: Worker) -> None:
    """A sweep, and what it made due, each once."""
    await world.sweep(worker)
    await world.run(worker, hurry=False)


async def opened(world: World, worker: Worker, *, name: str = "do", n: int = 5) -> list[UUID]:
    """Workflows whose first calls have opened the breaker of that tool."""
    found = [await world.submit(asks(name), key=f"{name}-{number}") for number in range(n)]
    await world.run(worker, hurry=False)
    return found


async def statuses(world: World) -> dict[str, int]:
    rows = await world.rows("SELECT status, count(*) AS n FROM workflows GROUP BY status")
    return {row["status"]: row["n"] for row in rows}
