"""The worker's Celery app. These settings look odd one by one and are right together: Redis is a doorbell.

What both ends share (address, transport, message format) is in `app/ports/bell.py`; here is what only the consuming
end needs, each with its reason. Postgres holds the truth, so losing, doubling, delaying or reordering messages must
be a no-op, and nothing of Celery that keeps state of its own (results, retries, ETA, canvas, beat) is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol

from celery import Celery

from app.ports.bell import broker_settings
from worker.consumer import Deliveries
from worker.loop import EventLoop

WORKER_SETTINGS: Final[dict[str, Any]] = {
    "worker_pool": "worker.pool:TaskPool",
    "worker_consumer": "worker.consumer:Consumer",
    # Late acks and a prefetch of 1 are only the credit inside this process: it holds exactly `concurrency` messages,
    # never one that waits behind an hour-long call. (`worker_disable_prefetch` with early acks: 862 ms per task.)
    "task_acks_late": True,
    "worker_prefetch_multiplier": 1,
    # A failed task is an ended task: what is to be done about it stands in Postgres.
    "task_acks_on_failure": True,
    "task_acks_on_timeout": True,
    "task_reject_on_worker_lost": False,
    # A call outlives the connection that rang for it. (True cancels every running call on a mere blip.)
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    # The default ends the worker after 100 tries; ours sweeps meanwhile and waits for as long as it takes.
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    # Workers are rows in Postgres: no events, no remote control. Start-up is 30 ms instead of more than a second.
    "worker_send_task_events": False,
    "task_send_sent_event": False,
    "worker_enable_remote_control": False,
    "worker_disable_rate_limits": True,
    # Logs are structlog's; stdout and stderr stay what they are.
    "worker_hijack_root_logger": False,
    "worker_redirect_stdouts": False,
}

GRACE: Final = 5.0
"""Seconds a drain allows beyond the longest open deadline, for writing down what came back."""


class Drain(Protocol):
    """What the pool asks about the end of the process."""

    def begin(self) -> None:
        """Called on the loop when nothing new is taken any more: what may be cancelled cancels itself."""
        ...

    def seconds_open(self) -> float:
        """How long the last of the running calls may take."""
        ...


@dataclass(frozen=True, kw_only=True)
class NothingOpen:
    """A drain without calls that outlive their cancellation."""

    def begin(self) -> None:
        return

    def seconds_open(self) -> float:
        return 0.0


class WorkerApp(Celery):
    """A Celery app that also carries what its pool runs on: the pool is made by Celery and gets nothing but the app."""

    event_loop: EventLoop
    drain: Drain
    grace: float
    delivery_concurrency: int


def build_app(
    redis_url: str,
    *,
    concurrency: int,
    delivery_concurrency: int,
    event_loop: EventLoop,
    drain: Drain | None = None,
    grace: float = GRACE,
) -> WorkerApp:
    """`grace`: seconds a drain allows beyond the longest open deadline."""
    app = WorkerApp("surefoot", set_as_current=False)
    app.conf.update(broker_settings(redis_url) | WORKER_SETTINGS)
    app.conf.worker_concurrency = concurrency
    app.event_loop = event_loop
    app.drain = NothingOpen() if drain is None else drain
    app.grace = grace
    app.delivery_concurrency = delivery_concurrency
    app.steps["consumer"].add(Deliveries)
    return app
