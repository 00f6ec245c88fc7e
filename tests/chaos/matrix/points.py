"""The points: the product's own functions, wrapped from outside in a process that belongs to the test.

    <purpose>.begin       before the transaction of that purpose (claim, record, sweep, operate, submit, deliver)
    <purpose>.locked      its workflows are locked
    <purpose>.applied     everything is written, before COMMIT
    <purpose>.committed   COMMIT has been acknowledged, nothing was done about it yet
    <purpose>.reply_lost  COMMIT was done, its acknowledgement is lost: what guards itself is run again
    perform, submit.asked, record.before, send.before, send.after, write.before, write.after, read.before,
    deliver.before, deliver.after, sweep.taken, sweep.rung: before or after the function of that name below

Each wrapper passes on exactly what it was given. A name that is gone from the product fails at once, with its name:
then this file has to learn where that line is now.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import Any
from uuid import UUID

from app.engine import accept, perform, record, transactions
from app.ports import connecting, http_tools, model, webhooks
from app.store import claims, deliveries, dues, locking, workflows
from tests.chaos.matrix.standstill import Standstill

Coroutine = Callable[..., Awaitable[Any]]

_purpose: ContextVar[str] = ContextVar("matrix_purpose", default="none")
_marks: ContextVar[dict[str, list[str]] | None] = ContextVar("matrix_marks", default=None)
_call: ContextVar[str | None] = ContextVar("matrix_call", default=None)


def install(standstill: Standstill) -> None:
    """Wrap them all, wherever the product has imported them by name."""
    points = _Points(standstill)
    _everywhere(transactions.run, points.transaction(transactions.run))
    _everywhere(perform.perform, points.perform(perform.perform))
    _everywhere(record.record, points.record(record.record))
    _everywhere(accept.accept, points.asked(accept.accept))
    _everywhere(claims.told, points.claimed(claims.told))
    _everywhere(locking.lock, points.lock(locking.lock))
    _everywhere(locking.snapshots, points.lock(locking.snapshots))
    _everywhere(workflows.apply, points.apply(workflows.apply))
    _everywhere(dues.lost_attempts, points.taken(dues.lost_attempts, "taken"))
    _everywhere(dues.ring, points.taken(dues.ring, "rung"))
    _everywhere(deliveries.record, points.delivered(deliveries.record))
    for port in (http_tools.HttpTools, model.ClaudeModel):
        _method(port, "send", points.around(port.send, "send"))
    _method(webhooks.Webhooks, "send", points.around(webhooks.Webhooks.send, "deliver"))
    stream = connecting.GuardedStream
    _method(stream, "write", points.around(stream.write, "write"))
    _method(stream, "read", points.around(stream.read, "read"))


def _everywhere(original: Coroutine, wrapped: Coroutine) -> None:
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in ("app", "worker"):
            for attribute, value in list(vars(module).items()):
                if value is original:
                    setattr(module, attribute, wrapped)


def _method(owner: type, name: str, wrapped: Coroutine) -> None:
    setattr(owner, name, wrapped)


class _Points:
    def __init__(self, standstill: Standstill) -> None:
        self._standstill = standstill
        self._kinds: dict[str, str] = {}
        """Of calls that this process has claimed."""

    async def _at(self, point: str, *, batch: Sequence[str] = ()) -> None:
        """The call this task is about; in a request or a flush, the task itself."""
        call = _call.get()
        who = call or str(id(asyncio.current_task()))
        kind = self._kinds.get(who) if call is not None else None
        await self._standstill.reach(point, who=who, kind=kind, batch=batch)

    def transaction(self, original: Coroutine) -> Coroutine:
        async def run(database: Any, purpose: str, work: Any, **rest: Any) -> Any:
            marks: dict[str, list[str]] = {}
            before = _purpose.set(purpose), _marks.set(marks)
            try:
                await self._at(f"{purpose}.begin")
                result = await original(database, purpose, work, **rest)
                for name in ("taken", "rung"):
                    if marks.get(name):
                        await self._at(f"{purpose}.{name}", batch=marks[name])
                if marks.get("applied"):
                    if self._standstill.awaits(f"{purpose}.reply_lost"):
                        await self._at(f"{purpose}.reply_lost", batch=marks["applied"])
                        result = await original(database, purpose, work, **rest)
                    await self._at(f"{purpose}.committed", batch=marks["applied"])
                return result
            finally:
                _purpose.reset(before[0])
                _marks.reset(before[1])

        return run

    def perform(self, original: Coroutine) -> Coroutine:
        async def run(services: Any, call_id: UUID) -> None:
            _call.set(str(call_id))
            await self._at("perform")
            await original(services, call_id)

        return run

    def record(self, original: Coroutine) -> Coroutine:
        async def run(services: Any, claimed: Any, outcome: Any) -> None:
            await self._at("record.before")
            await original(services, claimed, outcome)

        return run

    def asked(self, original: Coroutine) -> Coroutine:
        async def run(services: Any, asked: Any) -> Any:
            await self._at("submit.asked")
            return await original(services, asked)

        return run

    def claimed(self, original: Coroutine) -> Coroutine:
        async def run(cursor: Any) -> Any:
            found = await original(cursor)
            for each in found:
                self._kinds[str(each.call_id)] = each.kind
            _mark("applied", [str(each.call_id) for each in found])
            return found

        return run

    def lock(self, original: Coroutine) -> Coroutine:
        async def run(connection: Any, asked: Any, **rest: Any) -> Any:
            found = await original(connection, asked, **rest)
            await self._at(f"{_purpose.get()}.locked", batch=[str(each) for each in asked])
            return found

        return run

    def apply(self, original: Coroutine) -> Coroutine:
        async def run(connection: Any, transitions: Any) -> Any:
            found = await original(connection, transitions)
            about = [str(each.workflow.id) for each in transitions]
            _mark("applied", about)
            if about:
                await self._at(f"{_purpose.get()}.applied", batch=about)
            return found

        return run

    def taken(self, original: Coroutine, mark: str) -> Coroutine:
        async def run(connection: Any, **rest: Any) -> Any:
            found = await original(connection, **rest)
            _mark(mark, [str(each.ref) for each in found])
            return found

        return run

    def delivered(self, original: Coroutine) -> Coroutine:
        async def run(connection: Any, head: Any, **rest: Any) -> Any:
            found = await original(connection, head, **rest)
            _mark("applied", [str(head.id)])
            await self._at(f"{_purpose.get()}.applied", batch=[str(head.id)])
            return found

        return run

    def around(self, original: Coroutine, name: str) -> Coroutine:
        async def run(owner: Any, *given: Any, **rest: Any) -> Any:
            await self._at(f"{name}.before")
            found = await original(owner, *given, **rest)
            await self._at(f"{name}.after")
            return found

        return run


def _mark(name: str, about: list[str]) -> None:
    marks = _marks.get()
    if marks is not None and about:
        marks.setdefault(name, []).extend(about)
