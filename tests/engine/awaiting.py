"""Calls that were accepted (202) and wait for their result: how a test comes to one."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from app.engine import accept_result
from tests.engine.world import Worker, World, accepted, one, probed


def slow(effect: str, **more: Any) -> dict[str, Any]:
    return one(effect, on_202="wait", result_within="10m", **more)


async def waiting(world: World, definition: dict[str, Any], *answers: Any) -> tuple[UUID, Worker]:
    """A workflow whose call was accepted."""
    world.tools.script["do"] = [accepted(), *answers]
    worker = await world.worker()
    workflow_id = await world.submit(definition)
    await world.once(worker)
    return workflow_id, worker


async def report(
    world: World, workflow_id: UUID, *, n: int = 1, succeeded: bool = True, result: Any = None, token: str | None = None
) -> None:
    """The tool reports on the `n`th request it got."""
    sent = world.tools.sent("do")[n - 1].result_token
    call = await world.call(workflow_id, "s")
    await accept_result.accept(
        world.api, call["id"], token=token or sent or "", succeeded=succeeded, result=result, message="no paper left"
    )


async def state(world: World, workflow_id: UUID) -> str:
    return str((await world.call(workflow_id, "s"))["state"])


def checked(effect: str = "checkable") -> dict[str, Any]:
    return probed(effect, on_202="wait", result_within="10m")
