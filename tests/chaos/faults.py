"""The faults of a run: what, when in its progress, to whom, all from the seed; and how each is given.

    kill       SIGKILL to a worker, the API, the tools or the model; the supervisor starts it again
    zombie     SIGSTOP to a worker for longer than its lease, then SIGCONT; it lives long enough to tell what it knows
    redis      SIGKILL, started again a moment later · flushall · freeze (SIGSTOP of Valkey for seconds)
    postgres   immediate stop (no checkpoint, backends gone), started again
    cut        the network to Postgres or Redis: reset, silence, stall
    bells      doorbells nobody has asked for: calls that are due, in flight or over are rung again, twice each

A fault is due when that part of the workflows has ended; progress is what both runs of a seed have in common. What was
given is in `given`, with the pids it hit. Every fault ends: a thaw, a start, a whole wire.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import psycopg
import redis.asyncio

from app.domain.states import Lane
from app.embedded import process
from app.ports.bell import RedisBell
from tests.chaos.installation import KNOBS, Installation
from tests.chaos.oracle.ledgers import Fault
from tests.chaos.waiting import moment, until

LEASE: Final = float(KNOBS["SUREFOOT_LEASE"])

HEADLINE: Final[Mapping[str, int]] = {
    "kill": 220, "zombie": 20, "flushall": 5, "redis": 5, "freeze": 5, "postgres": 5, "cut": 10, "bells": 40,
}  # fmt: skip
THOUSAND: Final[Mapping[str, int]] = {
    "kill": 40, "zombie": 6, "flushall": 2, "redis": 2, "freeze": 1, "postgres": 2, "cut": 3, "bells": 10,
}  # fmt: skip
SMALL: Final[Mapping[str, int]] = {
    "kill": 4, "zombie": 1, "flushall": 1, "redis": 1, "freeze": 0, "postgres": 1, "cut": 1, "bells": 2,
}  # fmt: skip

VICTIMS: Final = (("worker", 70), ("api", 18), ("tools", 6), ("model", 6))
"""Whom a kill hits, percent."""

DEATHS, DEATHS_WITHIN = 4, 31.0
"""The supervisor gives a child up at its fifth death within 30 s; nothing here may look like such a child."""

TESTIMONY: Final = 3.0
"""Seconds after a thaw in which nobody kills the worker: what it tells late is what it was frozen for."""

_IDS: Final = """
(SELECT id FROM calls WHERE ended_at IS NULL ORDER BY random() LIMIT 40)
UNION ALL (SELECT id FROM calls WHERE ended_at IS NOT NULL ORDER BY id DESC LIMIT 20)"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Due:
    at: float
    """Part of the workflows that have ended."""
    kind: str
    draw: float
    """0 to 1: chooses the victim, the way, the length."""


def schedule(seed: int, counts: Mapping[str, int]) -> list[Due]:
    """Spread over the run, the last well before its end."""
    draw = random.Random(f"{seed}/faults")
    kinds = [kind for kind, count in counts.items() for _ in range(count)]
    draw.shuffle(kinds)
    spread = sorted(draw.uniform(0.01, 0.9) for _ in kinds)
    return [Due(at=at, kind=kind, draw=draw.random()) for at, kind in zip(spread, kinds, strict=True)]


@dataclass(slots=True)
class Faults:
    installation: Installation
    dues: Sequence[Due]
    progress: Callable[[], float]
    given: list[Fault] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    frozen: dict[str, int] = field(default_factory=dict)
    rung_again: int = 0
    last_at: float = 0.0
    """Of the loop's clock: when the last one was over."""
    _next: int = 0
    """The fault whose time has not come, or that is being given."""
    _deaths: dict[str, deque[float]] = field(default_factory=dict)
    _zombies: set[asyncio.Task[None]] = field(default_factory=set)

    async def work(self) -> None:
        """Give them all, each when its time has come; return when the last one is over."""
        for number, due in enumerate(self.dues):
            self._next = number
            while self.progress() < due.at:
                await moment(0.1)
            await self._give(due)
            await moment(0.2 + due.draw)
        self._next = len(self.dues)
        await asyncio.gather(*self._zombies)
        self.last_at = asyncio.get_running_loop().time()

    @property
    def overdue(self) -> bool:
        """The workflows end faster than the faults are given: the last of these would find nobody at work."""
        return self._next < len(self.dues) and self.dues[self._next].at < self.progress()

    async def _give(self, due: Due) -> None:
        match due.kind:
            case "kill":
                await self._kill(due)
            case "zombie":
                task = asyncio.create_task(self._zombie(due))
                self._zombies.add(task)
                task.add_done_callback(self._zombies.discard)
            case "flushall":
                async with redis.asyncio.Redis.from_url(self.installation.redis_url) as client:
                    await client.flushall()
                self._note("flushall", datetime.now(UTC))
            case "redis" | "postgres":
                await self._restart(due)
            case "freeze":
                await self._freeze(due)
            case "cut":
                await self._cut(due)
            case "bells":
                await self._bells()

    def _note(self, kind: str, began: datetime, *, pids: frozenset[int] = frozenset(), harmless: bool = False) -> None:
        self.counts[kind.split(":")[0]] += 1
        over = datetime.now(UTC)
        with (self.installation.folder / "faults.txt").open("a", encoding="utf-8") as file:
            file.write(f"{began:%H:%M:%S.%f} to {over:%H:%M:%S.%f}  {kind:<16} {' '.join(map(str, sorted(pids)))}\n")
        # A fault of Redis may never be why nobody knows what became of an effect: it explains no doubt.
        if not harmless and not kind.startswith(("flushall", "redis", "freeze", "cut:redis")):
            self.given.append(Fault(kind=kind, at=began, until=over, pids=pids))

    async def _kill(self, due: Due) -> None:
        rest, victim = due.draw * 100, VICTIMS[0][0]
        for name, share in VICTIMS:
            victim = name
            if rest < share:
                break
            rest -= share
        began = datetime.now(UTC)
        name, pid = await until(f"a {victim} may be killed", lambda: self._killable(victim, due.draw), seconds=120.0)
        if process.send(pid, signal.SIGKILL):
            self._deaths.setdefault(name, deque()).append(asyncio.get_running_loop().time())
            # Tools that die leave everybody without an answer; the others only what they had in hand themselves.
            self._note(f"kill:{victim}", began, pids=frozenset() if victim == "tools" else frozenset({pid}))

    def _killable(self, victim: str, draw: float) -> tuple[str, int] | None:
        """One of that kind that runs, is not frozen, and has not died too often of late."""
        now = asyncio.get_running_loop().time()
        found = [
            (name, pid)
            for name, pid in sorted(self.installation.pids.items())
            if name.startswith(victim) and name not in self.frozen and process.alive(pid) and self._may_die(name, now)
        ]
        return found[int(draw * 997) % len(found)] if found else None

    def _may_die(self, name: str, now: float) -> bool:
        deaths = self._deaths.setdefault(name, deque())
        while deaths and now - deaths[0] > DEATHS_WITHIN:
            deaths.popleft()
        return len(deaths) < DEATHS

    async def _zombie(self, due: Due) -> None:
        name, pid = await until("a worker may be frozen", lambda: self._killable("worker", due.draw), seconds=120.0)
        began = datetime.now(UTC)
        self.frozen[name] = pid
        process.send(pid, signal.SIGSTOP)
        try:
            await moment(LEASE * (1.3 + 1.2 * due.draw))
        finally:
            process.send(pid, signal.SIGCONT)
        self._note("zombie", began, pids=frozenset({pid}))
        await moment(TESTIMONY)
        del self.frozen[name]

    async def _restart(self, due: Due) -> None:
        began = datetime.now(UTC)
        await self.installation.end_server(due.kind, signal.SIGQUIT if due.kind == "postgres" else signal.SIGKILL)
        await moment(0.2 + 1.5 * due.draw)
        await self.installation.start_server(due.kind)
        self._note(due.kind, began)

    async def _freeze(self, due: Due) -> None:
        began, pid = datetime.now(UTC), self.installation.server_pid("redis")
        os.kill(pid, signal.SIGSTOP)
        try:
            await moment(1.0 + 5.0 * due.draw)
        finally:
            os.kill(pid, signal.SIGCONT)
        self._note("freeze", began)

    async def _cut(self, due: Due) -> None:
        began = datetime.now(UTC)
        name = "postgres" if due.draw < 0.7 else "redis"
        how = ("reset", "silence", "stall")[int(due.draw * 997) % 3]
        await self.installation.cut(name, how=how, seconds=0.5 + 4.0 * (due.draw * 31 % 1))
        self._note(f"cut:{name}:{how}", began)

    async def _bells(self) -> None:
        """Ring what is due, in flight and over, twice each, past everybody who knows what is to be rung."""
        try:
            ids = await asyncio.to_thread(self._some_calls)
        except psycopg.Error as error:
            sys.stderr.write(f"chaos: no bells this time: {error}\n")
            return
        await asyncio.to_thread(self._ring, ids)
        self._note("bells", datetime.now(UTC), harmless=True)

    def _some_calls(self) -> list[UUID]:
        with psycopg.connect(self.installation.database_url, autocommit=True, application_name="chaos") as connection:
            rows: list[tuple[Any, ...]] = connection.execute(_IDS).fetchall()
        return [row[0] for row in rows]

    def _ring(self, ids: Sequence[UUID]) -> None:
        bell = RedisBell(self.installation.redis_url)
        bell.ring(Lane.CALLS, [*ids, *ids])
        bell.close()
        self.rung_again += bell.published
