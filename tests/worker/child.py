"""A worker process with calls made of nothing, for the tests beside this file.

What a call does stands in its id (see `behaviour`), so that a test rings or feeds ids and nothing else. Orders come as
JSON lines on stdin, what happens goes out as JSON lines on stdout.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

from app import logs
from app.domain.states import Lane
from app.engine.lease import Lease
from app.ports.bell import RedisBell
from app.settings import Settings
from worker.feeding import LocalFeed
from worker.process import Work, run_worker

AT_ONCE, CANCELLABLE, EFFECT, BROKEN = range(4)
"""Ends at once; waits and ends itself when the process drains (a model call); waits for `release` whatever comes (a
sent effect); raises."""


def behaviour(what: int) -> UUID:
    """A fresh id of a call that behaves so."""
    return UUID(int=uuid4().int & ~0xF | what)


def say(event: str, **fields: object) -> None:
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


@dataclass(frozen=True, kw_only=True)
class FakeServices:
    bell: RedisBell
    lease: Lease

    async def warm(self) -> None:
        return None

    async def close(self) -> None:
        await asyncio.to_thread(self.bell.close)


@dataclass(frozen=True, kw_only=True)
class Due:
    calls: list[UUID]
    deliveries: list[UUID]


@dataclass(kw_only=True)
class Play:
    """The calls, and the rows that a sweep would find."""

    services: FakeServices
    released: asyncio.Event = field(default_factory=asyncio.Event)
    calls: list[UUID] = field(default_factory=list)
    open: int = 0

    async def perform(self, call_id: UUID) -> None:
        if call_id in self.calls:
            self.calls.remove(call_id)
        self.open += 1
        say("began", id=str(call_id), open=self.open)
        try:
            await self._behave(call_id, call_id.int & 0xF)
        except asyncio.CancelledError:
            say("cancelled", id=str(call_id))
            raise
        finally:
            self.open -= 1
        say("ended", id=str(call_id), may_claim=self.services.lease.may_claim())

    async def deliver(self, stream_id: UUID) -> None:
        say("delivering", id=str(stream_id))
        await self._behave(stream_id, stream_id.int & 0xF)
        say("delivered", id=str(stream_id))

    async def sweep(self, *, free_slots: int) -> Due:
        say("swept", free_slots=free_slots, broker_away=self.services.bell.broker_away)
        return Due(calls=list(self.calls), deliveries=[])

    def obey(self, order: dict[str, str]) -> None:
        match order["do"]:
            case "release":
                self.released.set()
            case "due":
                self.calls.append(UUID(order["id"]))
            case "ring":
                self.services.bell.ring(Lane.CALLS, [UUID(order["id"])])
            case "memory":
                say("memory", megabytes=_megabytes(), open=self.open)

    async def _behave(self, ref: UUID, what: int) -> None:
        if what == BROKEN:
            raise RuntimeError("a defect of ours")
        if what == CANCELLABLE:
            await self.services.lease.draining.wait()
        if what == EFFECT:
            self.services.lease.opened(ref, ref, _nothing, deadline=float(os.environ.get("TEST_DEADLINE", "inf")))
            try:
                await self.released.wait()
            finally:
                self.services.lease.closed(ref)


def main() -> int:
    logs.configure(level="info", as_json=True)
    settings = Settings()
    return run_worker(settings, name="worker.test", build=lambda: _build(settings))


def _build(settings: Settings) -> Work:
    lease = Lease(
        settings.database_url,
        name="worker.test",
        slots=settings.concurrency,
        lease=settings.lease,
        heartbeat=settings.heartbeat,
        margin=settings.fence_margin,
    )
    play = Play(services=FakeServices(bell=RedisBell(settings.redis_url), lease=lease))
    loop = asyncio.get_running_loop()
    threading.Thread(target=_listen, args=(loop, play.obey), daemon=True).start()
    say("started")
    return Work(
        bell=play.services.bell,
        lease=lease,
        feed=LocalFeed(lease=lease, concurrency=10),
        warm=play.services.warm,
        close=play.services.close,
        perform=play.perform,
        deliver=play.deliver,
        sweep=play.sweep,
    )


def _megabytes() -> float:
    """Resident now. (The peak that getrusage gives counts the parent's, from before exec.)"""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def _listen(loop: asyncio.AbstractEventLoop, obey: Callable[[dict[str, str]], None]) -> None:
    for line in sys.stdin:
        loop.call_soon_threadsafe(obey, json.loads(line))


def _nothing(reason: str) -> None:
    return


if __name__ == "__main__":
    sys.exit(main())
