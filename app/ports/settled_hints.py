"""Hears from Redis which workflows have just settled, for requests that are held until one does.

Whoever commits tells it through the bell (`RedisBell.tell_settled`); one subscription per process hears it, from the
first held request on. A hint: with Redis away, or a message lost, a held request only answers a poll later.

Promises: `watching` never blocks and never raises. Never: a fact that is nowhere else, or a reason to believe one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from uuid import UUID

import redis.asyncio
import structlog
from redis.exceptions import RedisError

log = structlog.get_logger(__name__)

CHANNEL: Final = "surefoot:settled"
"""Messages are ids in hexadecimal, separated by spaces: what one commit, or one round trip of the bell, has settled."""

AGAIN_AFTER: Final = 1.0
"""Seconds between two tries while Redis is away: polls do the work meanwhile."""

ASK_EVERY: Final = 10
"""Seconds after which a silent subscription is asked whether it is still one."""


class SettledHints:
    """One per process; belongs to the event loop that first watches."""

    def __init__(self, redis_url: str) -> None:
        self._client = redis.asyncio.Redis.from_url(
            redis_url, socket_connect_timeout=2, health_check_interval=ASK_EVERY, max_connections=2
        )
        self._watched: dict[UUID, set[asyncio.Event]] = {}
        self._listener: asyncio.Task[None] | None = None
        self.listening = False
        """Whether hints are heard, as far as is known."""

    @contextmanager
    def watching(self, workflow_id: UUID) -> Iterator[asyncio.Event]:
        """An event that is set whenever that workflow has settled. The caller clears it."""
        if self._listener is None:
            self._listener = asyncio.create_task(self._listen())
        settled = asyncio.Event()
        self._watched.setdefault(workflow_id, set()).add(settled)
        try:
            yield settled
        finally:
            events = self._watched[workflow_id]
            events.discard(settled)
            if not events:
                del self._watched[workflow_id]

    async def aclose(self) -> None:
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)
        await self._client.aclose()

    async def _listen(self) -> None:
        while True:
            try:
                async with self._client.pubsub(ignore_subscribe_messages=True) as subscription:
                    await subscription.subscribe(CHANNEL)
                    self.listening = True
                    async for message in subscription.listen():
                        self._tell(message["data"])
            except (RedisError, OSError) as error:
                log.debug("settled_hints.redis_away", error=str(error)[:200])
            finally:
                self.listening = False
            await asyncio.sleep(AGAIN_AFTER)

    def _tell(self, data: bytes) -> None:
        for text in data.split():
            try:
                workflow_id = UUID(hex=text.decode("ascii"))
            except ValueError:
                continue  # somebody else's message: a hint that cannot be read is none
            for settled in self._watched.get(workflow_id, ()):
                settled.set()
