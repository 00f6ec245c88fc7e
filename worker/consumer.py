"""How a worker listens to Redis: quickly back after an outage, and to deliveries with a credit of their own.

Both queues live on one connection, each on its own kombu channel with its own prefetch count: 32 receivers that take
15 s each hold 32 delivery credits and not a single one of the calls'.
"""

from __future__ import annotations

from typing import Any, Final

import structlog
from celery import bootsteps
from celery.worker.consumer import Consumer as CeleryConsumer
from kombu.common import ignore_errors
from kombu.entity import Queue
from kombu.messaging import Consumer as QueueConsumer

from app.domain.states import Lane
from app.ports.bell import TASK_NAMES

log = structlog.get_logger(__name__)

RETRY_FIRST: Final = 0.2
RETRY_STEP: Final = 0.3
RETRY_MAX: Final = 2.0
"""Seconds between two tries to reach Redis. Celery's 2 to 30 s would leave it to the sweep long after it is back."""


class Consumer(CeleryConsumer):
    def call_soon_ack(self, p: Any, *args: Any) -> Any:
        """Give the credit back at once: our pool settles in this very thread (`TaskPool._settle`).

        Celery's own hands it to the hub, which polls for up to a second before it looks at what was handed over in
        its own thread: one message a second with a concurrency of 1.
        """
        return p(*args)

    def ensure_connected(self, conn: Any) -> Any:
        attempts = 0

        def on_error(error: BaseException, wait: float) -> None:
            nonlocal attempts
            attempts += 1
            if attempts == 1:
                log.warning("broker_unreachable", error=str(error), url=conn.as_uri())

        connection = conn.ensure_connection(
            on_error,
            None,
            interval_start=RETRY_FIRST,
            interval_step=RETRY_STEP,
            interval_max=RETRY_MAX,
            callback=self.controller.end_if_asked,
        )
        self.first_connection_attempt = False
        log.info("broker_connected", url=conn.as_uri(), attempts=attempts + 1)
        return connection


class Deliveries(bootsteps.StartStopStep):
    """Consumes the deliveries' queue on its own channel. Restarted with every new connection, like the calls'."""

    label = "Deliveries"
    requires = ("celery.worker.consumer.tasks:Tasks",)

    _consumer: Any = None

    def start(self, c: Any) -> None:
        channel = c.connection.channel()
        # What was rung over a lost connection is still running here, and counts.
        credit = max(1, c.app.delivery_concurrency - c.pool.running(TASK_NAMES[Lane.DELIVERIES]))
        channel.basic_qos(0, credit, False)
        self._consumer = QueueConsumer(
            channel,
            queues=[Queue(Lane.DELIVERIES.value)],
            accept=["json"],
            on_message=c.create_task_handler(),
            on_decode_error=c.on_decode_error,
        )
        self._consumer.consume()

    def stop(self, c: Any) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            ignore_errors(c, consumer.cancel)
            ignore_errors(c, consumer.channel.close)

    shutdown = stop
