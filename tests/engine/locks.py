"""Who waits for a lock in Postgres: how a test knows that somebody has come to one."""

from __future__ import annotations

import asyncio

from tests.engine.world import World


async def until_waiting(world: World, n: int, *, purpose: str = "") -> None:
    """So many backends of this database wait for a lock, all of them for that purpose."""
    async with asyncio.timeout(30):
        while True:
            waiting = await world.row(
                "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() "
                "AND wait_event_type = 'Lock' AND application_name LIKE %s",
                f"surefoot {purpose}%",
            )
            if waiting["n"] >= n:
                return
