"""One world per test, as the engine's tests have it: for breaking rows that a real engine has written."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.engine.world import World, world


@pytest.fixture
async def small_world(database_url: str) -> AsyncIterator[World]:
    async with world(database_url) as made:
        yield made
