"""The rows of `workers`: one per incarnation of a worker process, and how long its lease lasts.

Plain SQL over a synchronous psycopg connection in autocommit mode: the heartbeat has its own thread, and a supervisor
that has just reaped a child must not depend on anybody's event loop. Times are the database's `clock_timestamp()`.

Promises: a row that is lost never beats again (`beat` answers None). Never: decides that a worker is lost by itself;
that is the sweep's, or the parent's who waited for the process.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from psycopg import Connection
from psycopg.rows import scalar_row, tuple_row

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")

REGISTER: Final = """
INSERT INTO workers (id, name, host, boot_id, pid, slots, engine_version, started_at, beat_at, lease_until)
SELECT %(id)s, %(name)s, %(host)s, %(boot_id)s, %(pid)s, %(slots)s, %(engine_version)s, now, now, now + %(lease)s
FROM (SELECT clock_timestamp() AS now) AS clock
ON CONFLICT (id) DO NOTHING
"""

# The fence is looked at in the same round trip. `attempt_id` is compared with IS DISTINCT FROM, so that a call that
# was given back (no attempt at the fence) counts as revoked; a call that is gone altogether does, too. And of the calls
# that change nothing, those whose answer nobody waits for any more: the workflow is ending, or the step's time is up.
# (An end never becomes a going on while one of its calls is open, so this is not taken back.)
BEAT: Final = """
WITH beat AS (
    UPDATE workers
    SET beat_at = clock_timestamp(), lease_until = clock_timestamp() + %(lease)s
    WHERE id = %(id)s AND lost_at IS NULL AND stopped_at IS NULL
    RETURNING id
)
SELECT ARRAY(
    SELECT mine.attempt
    FROM unnest(%(calls)s::uuid[], %(attempts)s::uuid[]) AS mine (call, attempt)
    LEFT JOIN calls ON calls.id = mine.call
    WHERE calls.attempt_id IS DISTINCT FROM mine.attempt OR calls.state <> 'intended'
) AS revoked, ARRAY(
    SELECT calls.attempt_id
    FROM unnest(%(harmless)s::uuid[]) AS mine (call)
    JOIN calls ON calls.id = mine.call AND calls.state = 'intended' AND calls.kind NOT IN ('probe', 'compensation')
    JOIN workflows ON workflows.id = calls.workflow_id
    LEFT JOIN steps
        ON steps.workflow_id = calls.workflow_id AND steps.path = calls.step AND steps.counters ? 'timed_out'
    WHERE workflows.status IN ('failing', 'cancelling', 'compensating') OR steps.path IS NOT NULL
) AS unwanted
FROM beat
"""

REAPED: Final = """
UPDATE workers
SET reaped_at = clock_timestamp(), lost_at = coalesce(lost_at, clock_timestamp())
WHERE host = %(host)s AND boot_id = %(boot_id)s AND pid = %(pid)s AND stopped_at IS NULL AND reaped_at IS NULL
RETURNING id
"""

STOPPED: Final = """
UPDATE workers SET stopped_at = clock_timestamp()
WHERE id = %(id)s AND stopped_at IS NULL AND lost_at IS NULL
RETURNING id
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """Where a process id means one process: a host between two boots of it."""

    host: str
    boot_id: str


def this_machine() -> Machine:
    """The boot id is the kernel's; where there is none the host alone has to do (a lease still ends by time)."""
    boot_id = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ""
    return Machine(host=socket.gethostname(), boot_id=boot_id)


@dataclass(frozen=True, kw_only=True, slots=True)
class Registration:
    """What one incarnation says of itself."""

    id: UUID
    name: str
    machine: Machine
    pid: int
    slots: int
    engine_version: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Beat:
    revoked: frozenset[UUID]
    """Those of the asked attempts that no longer stand at the fence of their call."""
    unwanted: frozenset[UUID] = frozenset()
    """Those of the harmless ones whose answer nobody waits for any more."""


def register(connection: Connection[Any], registration: Registration, *, lease: timedelta) -> None:
    """A new incarnation with a fresh lease. The same id twice is harmless (a lost reply)."""
    connection.execute(
        REGISTER,
        {
            "id": registration.id,
            "name": registration.name,
            "host": registration.machine.host,
            "boot_id": registration.machine.boot_id,
            "pid": registration.pid,
            "slots": registration.slots,
            "engine_version": registration.engine_version,
            "lease": lease,
        },
    )


def beat(
    connection: Connection[Any],
    worker_id: UUID,
    *,
    lease: timedelta,
    attempts: Sequence[tuple[UUID, UUID]] = (),
    harmless: Sequence[UUID] = (),
) -> Beat | None:
    """Extend the lease; `attempts` are the (call, attempt) pairs in flight, `harmless` those of the calls that change
    nothing. None: this incarnation is lost."""
    cursor = connection.cursor(row_factory=tuple_row)
    row = cursor.execute(
        BEAT,
        {
            "id": worker_id,
            "lease": lease,
            "calls": [call for call, _ in attempts],
            "attempts": [attempt for _, attempt in attempts],
            "harmless": list(harmless),
        },
    ).fetchone()
    return None if row is None else Beat(revoked=frozenset(row[0]), unwanted=frozenset(row[1]))


def reaped(connection: Connection[Any], *, host: str, boot_id: str, pid: int) -> list[UUID]:
    """The parent waited for that process: its incarnations are dead, which is proof and not a guess. Their ids.

    `host` and `boot_id` are those of `this_machine()`: a process id means nothing elsewhere.
    """
    cursor = connection.cursor(row_factory=scalar_row)
    return list(cursor.execute(REAPED, {"host": host, "boot_id": boot_id, "pid": pid}).fetchall())


def stopped(connection: Connection[Any], worker_id: UUID) -> bool:
    """The process drained and ends. False if it was called lost before."""
    return connection.execute(STOPPED, {"id": worker_id}).rowcount > 0
