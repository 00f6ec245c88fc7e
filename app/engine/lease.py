"""The lease of one worker process: its heartbeat, its self-fence, and the attempts it has open.

A thread with a connection of its own beats while, and only while, the event loop ticks: a process whose loop is stuck
must look dead, because nothing it has claimed goes on. Each beat asks in the same round trip which of the open
attempts no longer stand at the fence of their call, and which harmless ones nobody waits for any more; those are told
so (`revoked`, `unwanted`).

The self-fence is `may_send`: boot time now < boot time read *before* the last acknowledged beat was sent + lease -
margin. CLOCK_BOOTTIME, because a monotonic clock stops in a suspended machine. With the database away no beat is
acknowledged, so `may_send` turns False by itself, before anybody else may believe that this worker is gone.

A worker that was called lost is another worker from then on: new uuid, new row. What it had open finishes as late
evidence; nothing claimed under the old uuid is sent any more (`may_send(attempt_id)`).

Never: decides what becomes of an attempt. The engine does, when its `cancel` is called.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal
from uuid import UUID

import psycopg
import structlog
from uuid_utils.compat import uuid7

from app.domain.states import ENGINE_VERSION
from app.store import workers

log = structlog.get_logger(__name__)

Reason = Literal["revoked", "unwanted"]
Cancel = Callable[[Reason], None]
"""Called on the event loop. `revoked` is only meaningful while nothing was sent: what left is waited for. `unwanted`
comes only for what was opened as harmless. Either may come for an attempt that has just been recorded, and with every
beat again."""

CONNECT_WITHIN: Final = 5
"""Seconds for a connection to Postgres: less than a lease, so that one bad try does not cost it."""

RETRY_AFTER: Final = 0.5
"""Seconds between two tries to reach Postgres: the lease is running out meanwhile."""

STUCK_AFTER: Final = 1.0
"""Seconds without a tick after which the loop is reported as stuck (it has not beaten since anyway)."""

STOP_WITHIN: Final = 2.0
"""Seconds for the last word to Postgres at the end; without it the lease ends by time."""


def boot_time() -> float:
    """Seconds since the machine booted, suspended time included (where the system has such a clock)."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Open:
    call_id: UUID
    worker_id: UUID
    cancel: Cancel
    deadline: float | None
    harmless: bool


class Lease:
    def __init__(
        self,
        database_url: str,
        *,
        name: str,
        slots: int,
        lease: float,
        heartbeat: float,
        margin: float,
        clock: Callable[[], float] = boot_time,
        new_id: Callable[[], UUID] = uuid7,
    ) -> None:
        """Seconds everywhere; `clock` is boot time. Nothing happens before `start`."""
        self.draining = asyncio.Event()
        """Set when the process was asked to end: nothing new is claimed; what may be cancelled cancels itself."""
        self._url = database_url
        self._name = name
        self._slots = slots
        self._length = lease
        self._heartbeat = heartbeat
        self._margin = margin
        self._clock = clock
        self._new_id = new_id
        self._id = new_id()
        self._machine = workers.this_machine()
        self._send_until = float("-inf")
        self._open: dict[UUID, _Open] = {}
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = threading.Event()
        self._beaten = threading.Event()
        self._connection: psycopg.Connection[Any] | None = None
        self._thread: threading.Thread | None = None

    # --- what the engine asks ---

    @property
    def worker_id(self) -> UUID:
        """This incarnation. It changes when the sweep called this worker lost: read it once per claim."""
        return self._id

    def may_send(self, attempt_id: UUID | None = None) -> bool:
        """May a byte leave now? With an attempt: also whether it is ours still, of this incarnation and not revoked."""
        if self._clock() >= self._send_until:
            return False
        if attempt_id is None:
            return True
        attempt = self._open.get(attempt_id)
        return attempt is not None and attempt.worker_id == self._id

    def may_claim(self) -> bool:
        return not self.draining.is_set() and self.may_send()

    def opened(
        self,
        call_id: UUID,
        attempt_id: UUID,
        cancel: Cancel,
        *,
        worker_id: UUID | None = None,
        deadline: float | None = None,
        harmless: bool = False,
    ) -> None:
        """An attempt was claimed: call this after its transaction (before, the fence would not be ours yet).

        `worker_id` is the incarnation it was claimed under (`worker_id` as read for the claim; default: the present
        one). `deadline` is the boot time by which it has ended: a drain waits that long. `harmless`: it changes
        nothing, and may be broken off once nobody waits for its answer.
        """
        worker = self._id if worker_id is None else worker_id
        with self._lock:
            self._open[attempt_id] = _Open(
                call_id=call_id, worker_id=worker, cancel=cancel, deadline=deadline, harmless=harmless
            )

    def closed(self, attempt_id: UUID) -> None:
        with self._lock:
            self._open.pop(attempt_id, None)

    def seconds_open(self) -> float:
        """How long until the last of the open attempts has reached its deadline (0 if none is known)."""
        with self._lock:
            deadlines = [attempt.deadline for attempt in self._open.values() if attempt.deadline is not None]
        return max(0.0, max(deadlines, default=0.0) - self._clock())

    # --- life ---

    async def start(self, *, within: float = 30.0) -> None:
        """Register this incarnation and beat from now on. Returns after the first acknowledged beat or `within`.

        A database that is away is no error: the thread goes on trying and `may_claim` stays False until it is back.
        """
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._beat_forever, name="lease", daemon=True)
        self._thread.start()
        await asyncio.to_thread(self._beaten.wait, within)

    async def stop(self) -> None:
        """Say that this worker ended on purpose; from here on nothing may be sent."""
        with self._lock:
            self._stopping.set()
            self._send_until = float("-inf")
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, STOP_WITHIN)

    # --- the thread ---

    def _beat_forever(self) -> None:
        registered: UUID | None = None
        failing = False
        while self._loop_ticks():
            wait = self._heartbeat
            try:
                connection = self._connected()
                if registered != self._id:
                    self._register(connection)
                    registered = self._id
                self._beat(connection)
            except psycopg.Error as error:
                if not failing:  # once per outage: it is tried twice a second
                    log.warning("heartbeat_failed", error=str(error).strip(), send_for=self._seconds_left())
                failing = True
                self._disconnect()
                wait = min(RETRY_AFTER, self._heartbeat)
            else:
                if failing:
                    log.info("heartbeat_back")
                failing = False
                if registered != self._id:
                    continue
            self._stopping.wait(wait)
        self._say_stopped(registered)

    def _loop_ticks(self) -> bool:
        """Wait until the event loop has run a callback. False: we are told to stop."""
        assert self._loop is not None
        ticked = threading.Event()
        try:
            self._loop.call_soon_threadsafe(ticked.set)
        except RuntimeError:  # the loop is closed: there is nothing left to beat for
            return False
        while not self._stopping.is_set():
            if ticked.wait(STUCK_AFTER):
                return not self._stopping.is_set()
            log.warning("loop_stuck", no_tick_for=STUCK_AFTER, send_for=self._seconds_left())
        return False

    def _register(self, connection: psycopg.Connection[Any]) -> None:
        workers.register(
            connection,
            workers.Registration(
                id=self._id,
                name=self._name,
                machine=self._machine,
                pid=os.getpid(),
                slots=self._slots,
                engine_version=ENGINE_VERSION,
            ),
            lease=timedelta(seconds=self._length),
        )

    def _beat(self, connection: psycopg.Connection[Any]) -> None:
        with self._lock:
            attempts = [(attempt.call_id, attempt_id) for attempt_id, attempt in self._open.items()]
            harmless = [attempt.call_id for attempt in self._open.values() if attempt.harmless]
        asked_at = self._clock()
        beat = workers.beat(
            connection, self._id, lease=timedelta(seconds=self._length), attempts=attempts, harmless=harmless
        )
        if beat is None:
            self._begin_again()
            return
        with self._lock:
            if not self._stopping.is_set():
                self._send_until = asked_at + self._length - self._margin
        self._beaten.set()
        self._tell(beat.revoked, "revoked")
        self._tell(beat.unwanted, "unwanted")

    def _begin_again(self) -> None:
        """Somebody called this worker lost: another uuid, and none of what the old one claimed may be sent."""
        with self._lock:
            lost, self._id = self._id, self._new_id()
            self._send_until = float("-inf")
            attempts = frozenset(self._open)
        log.warning("worker_was_lost", lost=str(lost), worker=str(self._id), open_attempts=len(attempts))
        self._tell(attempts, "revoked")

    def _tell(self, attempts: frozenset[UUID], reason: Reason) -> None:
        with self._lock:
            told = [self._open[attempt] for attempt in attempts if attempt in self._open]
        assert self._loop is not None
        for attempt in told:
            try:
                self._loop.call_soon_threadsafe(attempt.cancel, reason)
            except RuntimeError:  # the loop is closed, and every attempt with it
                return

    def _connected(self) -> psycopg.Connection[Any]:
        if self._connection is None:
            self._connection = psycopg.connect(
                self._url,
                autocommit=True,
                connect_timeout=CONNECT_WITHIN,
                application_name="surefoot lease",
                # A beat that takes longer than the lease is no beat.
                options=f"-c statement_timeout={int(self._length * 1000)}ms -c timezone=UTC",
            )
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _say_stopped(self, registered: UUID | None) -> None:
        if registered is None or self._connection is None:
            return
        try:
            workers.stopped(self._connection, registered)
        except psycopg.Error as error:
            log.warning("stop_not_recorded", error=str(error).strip())
        self._disconnect()

    def _seconds_left(self) -> float:
        return round(max(0.0, self._send_until - self._clock()), 1)
