"""What time a retried workflow and its steps have: as much again, from the retry on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from tests.engine.operations import (
    expect_the_laws,
    retried,
    then,
)
from tests.engine.world import Worker, World, refused, tool


@pytest.fixture
async def lawful(small_world: World) -> AsyncIterator[World]:
    yield small_world
    await expect_the_laws(small_world)


def gone(effect: str = "keyed", *, key: str | None = None, **step: Any) -> dict[str, Any]:
    more = {} if key is None else {"idempotency_key": key}
    return then({"tool": "do", "with": {"n": 1}, **more, **step}, {"do": tool(effect), "other": tool("read_only")})


async def failed(world: World, definition: dict[str, Any], **more: Any) -> tuple[UUID, Worker]:
    """A workflow whose tool refused at once."""
    world.tools.script["do"] = [refused(422)]
    worker = await world.worker()
    workflow_id = await world.submit(definition, **more)
    await world.run(worker)
    assert (await world.workflow(workflow_id))["status"] == "failed"
    return workflow_id, worker


async def test_reopened_step_has_its_timeout_again(lawful: World) -> None:
    workflow_id, worker = await failed(lawful, gone(timeout="1m"))

    await retried(lawful, workflow_id)
    armed = await lawful.row(
        "SELECT extract(epoch FROM due_at - clock_timestamp()) AS s FROM dues WHERE kind = 'step_timeout'"
    )
    await lawful.rows("UPDATE dues SET ring_at = clock_timestamp() WHERE kind = 'step_timeout'")
    await lawful.sweep(worker)

    assert 30 < armed["s"] <= 60
    assert (await lawful.workflow(workflow_id))["failure"]["kind"] == "step_timeout"


async def test_deadline_is_renewed_with_as_much_time_as_the_submission_had(lawful: World) -> None:
    worker = await lawful.worker()
    workflow_id = await lawful.submit(gone(), deadline=timedelta(hours=2))
    await lawful.rows("UPDATE dues SET ring_at = clock_timestamp() WHERE kind = 'deadline'")
    await lawful.sweep(worker)
    before = (await lawful.workflow(workflow_id))["failure"]["kind"]

    await retried(lawful, workflow_id)
    left = await lawful.row(
        "SELECT extract(epoch FROM d.due_at - clock_timestamp()) AS s, d.due_at = w.deadline_at AS same "
        "FROM dues d JOIN workflows w ON w.id = d.workflow_id WHERE kind = 'deadline'"
    )
    await lawful.run(worker)

    assert before == "deadline_exceeded"
    assert 7_000 < left["s"] <= 7_200
    assert (left["same"], (await lawful.workflow(workflow_id))["status"]) == (True, "succeeded")


async def test_second_retry_has_no_more_time_than_the_first(lawful: World) -> None:
    """Whatever was spent before: it is as much time as the submission had, from the retry on."""
    worker = await lawful.worker()
    lawful.tools.script["do"] = [refused(404), refused(404)]
    workflow_id = await lawful.submit(gone(), deadline=timedelta(hours=2))
    await lawful.run(worker)
    await lawful.rows("UPDATE workflows SET created_at = created_at - interval '1 day'")
    await lawful.rows("UPDATE workflows SET deadline_at = deadline_at - interval '1 day'")
    for _ in range(2):
        await retried(lawful, workflow_id)
        left = await lawful.row("SELECT extract(epoch FROM deadline_at - clock_timestamp()) AS s FROM workflows")
        await lawful.run(worker)

    assert 7_000 < left["s"] <= 7_200
    assert (await lawful.workflow(workflow_id))["status"] == "succeeded"
