"""The doorbell: tells Redis "look at these ids" over Celery's own wire format, and never makes anybody wait for it.

Postgres holds what must happen; a ring only makes it happen sooner. So `ring` puts ids into a bounded queue and
returns; one thread per process gathers whatever is queued into one Redis round trip. Rings may be lost, doubled or
dropped at any moment and nothing but latency changes: the sweep rings again what is due. `tell_settled` goes the same
way, to held requests (`app/ports/settled_hints.py`).

Here are also the broker's address, transport and settings that the worker's Celery app and the bell have to share
(`app` never imports `worker`).

Promises: `ring` never blocks and never raises; `broker_away` is True while the last publish failed, and the thread
goes on trying. Never: anything that is lost if Redis is.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit
from uuid import UUID

import structlog
from celery import Celery
from kombu.connection import Connection
from kombu.entity import Queue
from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as kombu_redis

from app.domain.states import Lane
from app.ports.settled_hints import CHANNEL

log = structlog.get_logger(__name__)

TASK_NAMES: Final = {Lane.CALLS: "surefoot.call", Lane.DELIVERIES: "surefoot.deliver"}
"""One stable name per lane: a message with a name that a worker does not know is thrown away by Celery."""

QUEUE_LIMIT: Final = 10_000
"""Rings that may wait in one process. More than that is not a hint any more; the sweep admits the rest."""

BATCH_LIMIT: Final = 500
"""Messages in one round trip: 500 × 0.7 KB keep Redis and the other end responsive."""

RETRY_AFTER: Final = 1.0
"""Seconds between two tries while the broker is away: the sweep looks at `broker_away` about as often."""

CLOSE_WITHIN: Final = 2.0
"""Seconds that `close` waits for the last rings: longer than a round trip, shorter than anybody's patience."""

SCHEME: Final = "doorbell"


class Channel(kombu_redis.Channel):
    """kombu's Redis channel that never puts a message back.

    Restoring is what makes stock kombu run a task twice when a connection merely blips (and write dump files when it
    cannot): here the due row brings back whatever is lost.
    """

    do_restore = False


class Transport(kombu_redis.Transport):
    Channel = Channel


TRANSPORT_ALIASES[SCHEME] = "app.ports.bell:Transport"


def broker_url(redis_url: str) -> str:
    """redis-py's form of an address → ours for Celery.

    `redis://host:6379/0` → `doorbell://host:6379/0`, `unix:///path?db=0` → `doorbell+socket:///path?virtual_host=0`.
    TLS is in `broker_settings` (kombu takes it as a setting).
    """
    parts = urlsplit(redis_url)
    query = dict(parse_qsl(parts.query))
    if parts.scheme == "unix":
        query["virtual_host"] = query.pop("db", "0")
        # By hand: urlunsplit drops the empty authority of a scheme it does not know, and kombu wants both slashes.
        return f"{SCHEME}+socket://{parts.netloc}{parts.path}?{urlencode(query)}"
    if parts.scheme in ("redis", "rediss"):
        database = query.pop("db", parts.path.strip("/") or "0")
        return f"{SCHEME}://{parts.netloc}/{database}" + (f"?{urlencode(query)}" if query else "")
    raise ValueError(f"SUREFOOT_REDIS_URL has scheme {parts.scheme!r}; use redis://, rediss:// or unix://")


def broker_settings(redis_url: str) -> dict[str, Any]:
    """What both ends of the queue have to agree on, each with its reason."""
    return {
        "broker_url": broker_url(redis_url),
        # kombu reads TLS from here and not from the scheme of a transport of our own.
        "broker_use_ssl": {"ssl_cert_reqs": "required"} if redis_url.startswith("rediss://") else None,
        # A message is an id: JSON, and nothing else is accepted.
        "task_serializer": "json",
        "accept_content": ["json"],
        # The state machine lives in Postgres; a result backend would be a second one.
        "task_ignore_result": True,
        "result_backend": None,
        # Routes are queue names only: the anonymous exchange survives FLUSHALL, a named one drops silently.
        "task_queues": [Queue(lane.value) for lane in Lane],
        "task_default_queue": Lane.CALLS.value,
        "task_create_missing_queues": True,
        # With Redis down a publish fails in 0 s; the default policy takes 0.6 s, and retry=False takes 6 s.
        "task_publish_retry": True,
        "task_publish_retry_policy": {"max_retries": 0},
        "broker_connection_timeout": 2,
        "broker_transport_options": {
            # One LPUSH and one BRPOP per task: no `unacked` hash, so no visibility-timeout repeats of hour-long calls.
            "ack_emulation": False,
            # Bodies are short ASCII: base64 would only make them longer.
            "body_encoding": "utf-8",
            # One list per queue instead of four: priority is decided by the sweep, in Postgres.
            "priority_steps": [0],
            # A frozen Redis (or a half-open connection) otherwise blocks a publish for ever.
            "socket_timeout": 5,
            "socket_connect_timeout": 2,
            "socket_keepalive": True,
            "health_check_interval": 10,
            # redis-py 8 stops at 100 connections per client; we use a handful, a burst must not fail on it.
            "max_connections": 1000,
            "client_name": "surefoot",
        },
    }


class RedisBell:
    """`Bell` (app/ports/world.py) over Celery and Redis."""

    def __init__(self, redis_url: str, *, queue_limit: int = QUEUE_LIMIT) -> None:
        self._celery = Celery("surefoot", set_as_current=False)
        self._celery.conf.update(broker_settings(redis_url))
        self._queue: SimpleQueue[tuple[Lane | None, UUID] | None] = SimpleQueue()
        """What to ring, in which lane; without a lane: a workflow that has settled."""
        self._queue_limit = queue_limit
        self._closing = threading.Event()
        self._away = False
        self._connection: Connection | None = None
        self.published = 0
        """Messages that Redis took, since the start."""
        self.dropped = 0
        """Rings given up since the start: the queue was full or the broker away."""
        self._thread = threading.Thread(target=self._publish_forever, name="bell", daemon=True)
        self._thread.start()

    @property
    def broker_away(self) -> bool:
        return self._away

    def ring(self, lane: Lane, ids: Sequence[UUID]) -> None:
        self._put(lane, ids)

    def tell_settled(self, workflows: Sequence[UUID]) -> None:
        """These ended, or wait for a person: requests that are held until then look now."""
        self._put(None, workflows)

    def _put(self, lane: Lane | None, ids: Sequence[UUID]) -> None:
        free = max(0, self._queue_limit - self._queue.qsize())
        self.dropped += max(0, len(ids) - free)
        for ref in ids[:free]:
            self._queue.put((lane, ref))

    def close(self) -> None:
        """Publish what is queued if that takes no longer than `CLOSE_WITHIN`, then stop. May be called twice.

        Blocks for a round trip (for `CLOSE_WITHIN` if Redis hangs): on an event loop call it in a thread.
        """
        self._closing.set()
        self._queue.put(None)
        self._thread.join(CLOSE_WITHIN)

    def _publish_forever(self) -> None:
        self._attempt([])
        while not (self._closing.is_set() and (self._away or self._queue.empty())):
            if self._away:
                self._closing.wait(RETRY_AFTER)
            rings = list(self._gather(wait=not self._away))
            if rings or self._away:
                self._attempt(rings)
        self._disconnect()

    def _gather(self, *, wait: bool) -> Iterator[tuple[Lane | None, UUID]]:
        """Whatever is queued, at most one batch; waits for the first one if asked to."""
        if wait and (first := self._queue.get()) is not None:
            yield first
        for _ in range(BATCH_LIMIT - 1):
            try:
                ring = self._queue.get_nowait()
            except Empty:
                return
            if ring is not None:
                yield ring

    def _attempt(self, rings: list[tuple[Lane | None, UUID]]) -> None:
        """Publish, or only knock if there is nothing to publish; the second try is on a fresh connection.

        A Redis that was restarted between two rings shows only when the old connection is used.
        """
        had_connection = self._connection is not None
        try:
            try:
                self._publish(rings)
            except Exception:
                self._disconnect()
                if not had_connection:
                    raise
                self._publish(rings)
        except Exception as error:  # whatever the client library raises, the bell goes on: a ring is a hint
            self._disconnect()
            self.dropped += len(rings)
            if not self._away:
                log.warning("broker_away", error=str(error), dropped=len(rings))
            self._away = True
        else:
            self.published += len(rings)
            if self._away:
                log.info("broker_back")
            self._away = False

    def _publish(self, rings: list[tuple[Lane | None, UUID]]) -> None:
        if self._connection is None:
            connection = self._celery.connection_for_write()
            # Explicitly: a connection that connects by itself waits 2 s and tries again.
            connection.ensure_connection(max_retries=0)
            self._connection = connection
        channel: Any = self._connection.default_channel
        settled = [ref.hex for lane, ref in rings if lane is None]
        if settled:
            channel.client.publish(CHANNEL, " ".join(settled))
        elif not rings:
            channel.client.ping()
        if len(settled) < len(rings):
            self._publish_rings([(lane, ref) for lane, ref in rings if lane is not None])

    def _publish_rings(self, rings: list[tuple[Lane, UUID]]) -> None:
        amqp = self._celery.amqp
        producer = amqp.Producer(self._connection, auto_declare=False)
        with producer.batch(max_size=BATCH_LIMIT):
            for lane, ref in rings:
                text, name = str(ref), TASK_NAMES[lane]
                # Empty reprs save Celery from building them for its logs.
                message = amqp.create_task_message(text, name, (text,), {}, argsrepr="", kwargsrepr="")
                amqp.send_task_message(producer, name, message, queue=lane.value)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except Exception as error:  # closing a broken socket may fail in any way; the object is thrown away
                log.debug("broker_close_failed", error=str(error))
