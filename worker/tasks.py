"""The two tasks. A message carries an id and nothing else; everything it means is read from Postgres.

Losing, doubling, delaying or reordering a message changes nothing but latency: only a call that is due can be
claimed, and only an open stream has something to deliver.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from uuid import UUID

from structlog.contextvars import bind_contextvars

from app.domain.states import Lane
from app.ports.bell import TASK_NAMES
from worker.celery_app import WorkerApp

Verb = Callable[[UUID], Awaitable[None]]
"""`engine.perform.perform` and `engine.deliver.deliver`, with their services bound."""


def add_tasks(app: WorkerApp, *, perform: Verb, deliver: Verb) -> None:
    # Not shared: Celery would hand them to every other app of this process, the bell's for one.
    @app.task(name=TASK_NAMES[Lane.CALLS], shared=False)
    async def call(call_id: str) -> None:
        bind_contextvars(call=call_id)
        await perform(UUID(call_id))

    @app.task(name=TASK_NAMES[Lane.DELIVERIES], shared=False)
    async def delivery(stream_id: str) -> None:
        bind_contextvars(stream=stream_id)
        await deliver(UUID(stream_id))
