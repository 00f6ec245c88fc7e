"""A request that is held until something happens goes on when it is told so, and not only when it asks again."""

from __future__ import annotations

import asyncio

import pytest

from app.api import workflow_reading

pytestmark = pytest.mark.anyio

AN_HOUR = 3600.0
PATIENCE = 20.0


@pytest.mark.parametrize("which", [0, 1])
async def test_held_request_looks_at_once_when_it_is_told_that_something_settled_or_the_server_stops(
    which: int,
) -> None:
    told = asyncio.Event(), asyncio.Event()
    held = asyncio.create_task(workflow_reading.first_of(*told, within=AN_HOUR))

    told[which].set()

    await asyncio.wait_for(held, PATIENCE)
    assert held.exception() is None


async def test_held_request_looks_by_itself_when_nobody_tells_it_anything() -> None:
    told = asyncio.Event()

    await asyncio.wait_for(workflow_reading.first_of(told, within=0.01), PATIENCE)

    assert not told.is_set()
