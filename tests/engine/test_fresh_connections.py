"""What must not be repeated is sent on a connection that nobody has used: a stale one makes a doubt of nothing."""

from __future__ import annotations

import pytest

from tests.engine.world import World, one, probed


@pytest.mark.parametrize(
    ("effect", "fresh"),
    [("read_only", False), ("idempotent", False), ("keyed", False), ("checkable", True), ("at_most_once", True)],
)
async def test_request_asks_for_a_fresh_connection_when_it_must_not_be_repeated(
    small_world: World, effect: str, fresh: bool
) -> None:
    worker = await small_world.worker()
    await small_world.submit(probed() if effect == "checkable" else one(effect))

    await small_world.run(worker)

    assert [request.fresh_connection for request in small_world.tools.sent("do")] == [fresh]
