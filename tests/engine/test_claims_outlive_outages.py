"""A claim commits, its reply is lost, and the database is away longer than one transaction is tried again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

import pytest

from tests.engine.cut_wire import wire_to
from tests.engine.world import World, one, world

CLAIMED: Final = b"SELECT 1\x00"
"""The tag of the CommandComplete message of a claim that got its call (protocol §53.7)."""

AWAY: Final = 2.0
"""Seconds: longer than the tries of `transactions.run` take together (0.75 s)."""


@pytest.fixture
async def near(database_url: str) -> AsyncIterator[World]:
    async with world(database_url) as made:
        yield made


async def test_worker_performs_what_it_claimed_when_the_database_is_back(database_url: str, near: World) -> None:
    await near.submit(one("at_most_once"))
    async with wire_to(database_url) as (wire, url), world(url) as far:
        far.tools = near.tools
        worker = await far.worker(lease_url=database_url)
        [call_id] = await near.due_calls()
        wire.away = AWAY
        wire.cut_at(CLAIMED)

        await worker.run(call_id)

    row = await near.row("SELECT c.state, c.attempts FROM calls c")
    assert wire.cuts == 1
    assert len(near.tools.ledger) == 1
    assert row == {"state": "succeeded", "attempts": 1}
