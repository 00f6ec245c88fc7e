"""What models are writing just now, through Redis: a key for each attempt, gone by itself within a minute.

    PartialTexts    in a worker: `changed(writing)` and `forget(writing)` from the event loop; a thread does the rest
    PartialReader   in an API process: `read(attempt_ids)`

A hint for people who look, and nothing else: it is in no row and no event. The thread looks at what is being written
four times a second and sends it in one round trip; of very many answers some are looked at less often. With Redis away
nothing is shown, and nothing is slower: what could not be sent is dropped, a reader that was not answered gives up at
once and does not ask again for a while.

Promises: neither of them ever raises or makes anybody wait (a reader: at most `PATIENCE`).
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final
from uuid import UUID

import redis
import redis.asyncio
import structlog
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from app.domain import partials
from app.domain.partials import Partial
from app.ports.writing import Writing

log = structlog.get_logger(__name__)

LOOK_EVERY: Final = 0.25
"""Seconds between two looks: as often as an eye wants, and at most four writes a second for each answer."""
LOOKS_MOST: Final = 250
"""Answers in one look, at some 25 µs of CPU each: 1,000 that are written at once take 2.5 % of a core, and each is
looked at once a second. The others come next."""
TTL: Final = 60
"""Seconds a text stays after its worker last told of it: longer than a model pauses, shorter than anybody's memory."""
AGAIN_AFTER: Final = 5.0
"""Seconds without a try once Redis did not answer."""
PATIENCE: Final = 0.25
"""Seconds that somebody who reads a step waits for Redis, and the thread for its connection."""
CLOSE_WITHIN: Final = 1.0


def key_of(attempt_id: UUID) -> str:
    return f"surefoot:partial:{attempt_id.hex}"


class PartialTexts:
    """One per worker process."""

    def __init__(self, redis_url: str) -> None:
        self._client = redis.Redis.from_url(
            redis_url,
            socket_timeout=1.0,
            socket_connect_timeout=PATIENCE,
            max_connections=1,
            retry=Retry(NoBackoff(), 0),  # what could not be told is told anew with the next look
        )
        self._lock = threading.Lock()
        self._dirty: dict[UUID, Writing] = {}
        self._gone: set[UUID] = set()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._away = False

    def changed(self, writing: Writing) -> None:
        """Something new was written: it will be looked at. Starts the thread with the first of all."""
        with self._lock:
            self._dirty[writing.attempt_id] = writing
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="partial texts", daemon=True)
                self._thread.start()
        self._wake.set()

    def forget(self, writing: Writing) -> None:
        """Its answer is there, or will never be."""
        with self._lock:
            self._dirty.pop(writing.attempt_id, None)
            if writing.shown:
                self._gone.add(writing.attempt_id)
                self._wake.set()

    def close(self) -> None:
        """Blocks for a round trip; on an event loop call it in a thread. May be called twice."""
        self._closing.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(CLOSE_WITHIN)
        self._client.close()

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wake.wait()
            self._wake.clear()
            self._send(*self._taken())
            self._closing.wait(AGAIN_AFTER if self._away else LOOK_EVERY)

    def _taken(self) -> tuple[list[Writing], set[UUID]]:
        with self._lock:
            found = list(self._dirty.values())[:LOOKS_MOST]
            for writing in found:
                del self._dirty[writing.attempt_id]
                writing.shown = True
            gone, self._gone = self._gone, set()
            if self._dirty:
                self._wake.set()
        return found, gone

    def _send(self, found: Sequence[Writing], gone: set[UUID]) -> None:
        if not found and not gone:
            return
        try:
            with self._client.pipeline(transaction=False) as pipeline:
                for writing in found:
                    told = json.dumps(writing.look().to_json(), separators=(",", ":"))
                    pipeline.set(key_of(writing.attempt_id), told, ex=TTL)
                for attempt_id in gone:
                    pipeline.unlink(key_of(attempt_id))
                pipeline.execute()
        except (RedisError, OSError) as error:
            if not self._away:
                log.info("partial_texts.redis_away", error=str(error)[:200])
            self._away = True
        else:
            self._away = False


class PartialReader:
    """One per API process; belongs to the event loop that first reads."""

    def __init__(self, redis_url: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = redis.asyncio.Redis.from_url(
            redis_url,
            socket_timeout=PATIENCE,
            socket_connect_timeout=PATIENCE,
            max_connections=4,
            retry=AsyncRetry(NoBackoff(), 0),  # the library's own would make ten of one patience
        )
        self._clock = clock
        self._not_before = float("-inf")

    async def read(self, attempt_ids: Sequence[UUID]) -> dict[UUID, Partial]:
        """What is being written by these attempts, as far as anybody knows."""
        if not attempt_ids or self._clock() < self._not_before:
            return {}
        try:
            told = await self._client.mget([key_of(attempt_id) for attempt_id in attempt_ids])
        except (RedisError, OSError) as error:
            log.debug("partial_texts.redis_away", error=str(error)[:200])
            self._not_before = self._clock() + AGAIN_AFTER
            return {}
        found = {attempt_id: _read(text) for attempt_id, text in zip(attempt_ids, told, strict=True)}
        return {attempt_id: partial for attempt_id, partial in found.items() if partial is not None}

    async def aclose(self) -> None:
        await self._client.aclose()


def _read(text: bytes | str | None) -> Partial | None:
    if text is None:
        return None
    try:
        return partials.read(json.loads(text))
    except ValueError:
        return None  # somebody else's value: a hint that cannot be read is none
