"""Gather what concurrent tasks of one process want to write, and write it in one transaction.

Flushes at once when nothing is in flight, else gathers until the running flush returns: no timer, no added latency on
an idle system, large batches under load. What a flush could not do at once it answers with a task, which settles its
own items later: one locked workflow does not stand before the next flush.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Gatherer(Generic[Item, Result]):
    def __init__(
        self,
        flush: Callable[[Sequence[Item]], Awaitable[Sequence[Result | Exception | asyncio.Task[Result]]]],
        *,
        limit: int,
    ) -> None:
        """`flush` answers a result, an exception or a task for each item, in their order; at most `limit` items."""
        self._flush = flush
        self._limit = limit
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._running: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> Result:
        """Hand it in and wait for its own result. Cancelling the caller does not undo the write."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await asyncio.shield(future)

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[: self._limit], self._waiting[self._limit :]
                await self._flush_batch(batch)
        finally:
            self._running = None

    async def _flush_batch(self, batch: Sequence[tuple[Item, asyncio.Future[Result]]]) -> None:
        try:
            results = await self._flush([item for item, _ in batch])
        except Exception as error:
            results = [error] * len(batch)
        for (_, future), result in zip(batch, results, strict=True):
            if isinstance(result, asyncio.Task):
                result.add_done_callback(partial(_settle_later, future))
            else:
                _settle(future, result)


def _settle(future: asyncio.Future[Result], result: Result | BaseException) -> None:
    if future.done():
        return
    if isinstance(result, BaseException):
        future.set_exception(result)
    else:
        future.set_result(result)


def _settle_later(future: asyncio.Future[Result], task: asyncio.Task[Result]) -> None:
    if task.cancelled():
        future.cancel()
    else:
        _settle(future, task.exception() or task.result())
