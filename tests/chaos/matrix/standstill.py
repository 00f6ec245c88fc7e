"""Inside the process that is to be hit: it stops at one line, tells the driver, and does to itself what it is told.

    Order        at which point, with how many calls, and where those gather before
    Channel      one socket to the driver: a line of JSON each way
    Standstill   `reach(point, …)` is called at every point (`points.py`); at the ordered one everybody waits until all
                 are there, the driver is told who, and its answer is carried out: kill, stop, raise or go

A point that many calls pass one by one (before the first byte, say) is its own gathering place. A point inside a
transaction over many calls is passed once, by all: they gather before it (`gather`), so that they are one batch.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import threading
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

TOOLS_AND_MODELS = ("tool", "model")


class Injected(Exception):
    """The exception that is raised at a line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    point: str
    count: int
    """So many calls (workflows, requests, streams) are expected there."""
    gather: str | None = None
    """Where they gather first; None: at the point itself."""
    kinds: tuple[str, ...] = TOOLS_AND_MODELS
    """Only calls of these kinds; where the kind is not known yet, every call."""
    batch: bool = False
    """The point is passed once, by all of them together."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Order:
        return cls(
            point=told["point"],
            count=told["count"],
            gather=told["gather"],
            kinds=tuple(told["kinds"]),
            batch=told["batch"],
        )


class Channel:
    """Blocking; one listener at a time."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._heard = b""

    def say(self, **words: Any) -> None:
        self._line.sendall(json.dumps(words).encode() + b"\n")

    def hear(self, *, within: float | None = None) -> dict[str, Any]:
        """The next line. Raises EOFError when the other side has gone, TimeoutError after so many seconds."""
        self._line.settimeout(within)
        while b"\n" not in self._heard:
            more = self._line.recv(65536)
            if not more:
                raise EOFError
            self._heard += more
        line, _, self._heard = self._heard.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        self._line.close()


class Standstill:
    def __init__(self, channel: Channel, order: Order | None) -> None:
        self._channel = channel
        self._order = order
        self._there: set[str] = set()
        self._all: asyncio.Event | None = None
        self._verdict: asyncio.Task[str] | None = None
        self._fired = False

    def awaits(self, point: str) -> bool:
        """Whether the next who reaches that point stops there."""
        order = self._order
        if order is None or self._fired or point != order.point:
            return False
        return not order.batch or order.gather is None or len(self._there) >= order.count

    async def reach(self, point: str, *, who: str, kind: str | None = None, batch: Sequence[str] = ()) -> None:
        """Called at every point. `batch`: whom a transaction is about. Raises `Injected` if told to."""
        order = self._order
        if order is None or self._fired:
            return
        if point == (order.gather or order.point) and not (order.batch and order.gather is None):
            if kind is not None and kind not in order.kinds:
                return
            await self._gather(order, who)
            if point == order.point:
                self._carry_out(await self._shared_verdict())
            return
        if order.batch and self.awaits(point):
            self._fired = True
            self._carry_out(await self._ask(sorted(self._there), batch))

    async def _gather(self, order: Order, who: str) -> None:
        if self._all is None:
            self._all = asyncio.Event()
        self._there.add(who)
        if len(self._there) >= order.count:
            self._all.set()
        await self._all.wait()

    async def _shared_verdict(self) -> str:
        """One question for all of them, in a task of its own: a call whose deadline passes meanwhile goes alone."""
        if self._verdict is None:
            self._verdict = asyncio.create_task(self._decide())
        return await asyncio.shield(self._verdict)

    async def _decide(self) -> str:
        told = await self._ask(sorted(self._there), ())
        self._fired = True
        if told in ("kill", "stop"):
            self._carry_out(told)
            return "go"
        return told

    async def _ask(self, calls: Collection[str], batch: Sequence[str]) -> str:
        self._channel.say(reached=self._order.point if self._order else None, calls=list(calls), batch=list(batch))
        answer = await asyncio.get_running_loop().run_in_executor(None, self._channel.hear)
        return str(answer["do"])

    def _carry_out(self, told: str) -> None:
        match told:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "stop":
                # To this very thread, so that it does not run on for a moment; returns when somebody has sent SIGCONT.
                signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
            case "raise":
                raise Injected("raised on purpose at this line")
            case "go":
                return
            case _:
                raise ValueError(f"nobody knows how to {told}")
