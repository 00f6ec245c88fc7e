"""A key in Redis whose absence means that Redis was emptied: every doorbell in it is gone.

SET NX decides who acts: of all the workers that look, one finds it absent and rings again.
"""

from __future__ import annotations

import redis.asyncio
import structlog
from redis.exceptions import RedisError

log = structlog.get_logger(__name__)

KEY = "surefoot:marker"
PATIENCE = 1.0
"""Seconds for one look: a hung Redis must not hold up the sweep."""


class Marker:
    def __init__(self, redis_url: str) -> None:
        self._client = redis.asyncio.Redis.from_url(
            redis_url, socket_timeout=PATIENCE, socket_connect_timeout=PATIENCE, max_connections=2
        )

    async def vanished(self) -> bool:
        """True for the one caller that finds the marker gone. False if Redis cannot be asked."""
        try:
            return bool(await self._client.set(KEY, "1", nx=True))
        except (RedisError, OSError) as error:
            log.debug("marker.redis_away", error=str(error)[:200])
            return False

    async def aclose(self) -> None:
        await self._client.aclose()
