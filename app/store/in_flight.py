"""What a supervisor asks before it ends workers: have they started, what have they sent, how long may that take.

Plain SQL over a synchronous psycopg connection in autocommit mode, like `workers.py` beside it: asked a few times in
the life of a process, from outside any worker. Reads only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from psycopg import Connection
from psycopg.rows import class_row

from app.store.workers import Machine

BEATING: Final = """
SELECT 1 FROM workers
WHERE host = %(host)s AND boot_id = %(boot_id)s AND pid = %(pid)s
  AND lost_at IS NULL AND stopped_at IS NULL AND lease_until > clock_timestamp()
LIMIT 1
"""

# By way of `dues`, which is narrow: the history of calls has no index on their state.
OPEN_SENDS: Final = """
SELECT calls.id AS call, calls.workflow_id AS workflow, calls.step, calls.tool, calls.effect,
       workers.host, workers.boot_id, workers.pid,
       extract(epoch FROM attempts.send_deadline - clock_timestamp())::float8 AS seconds
FROM dues
JOIN calls ON calls.workflow_id = dues.workflow_id AND calls.id = dues.ref AND calls.state = 'intended'
JOIN attempts ON attempts.workflow_id = calls.workflow_id AND attempts.call_id = calls.id
    AND attempts.id = calls.attempt_id AND attempts.outcome IS NULL AND attempts.lost_at IS NULL
JOIN workers ON workers.id = attempts.worker
WHERE dues.kind IN ('call', 'attempt') AND workers.stopped_at IS NULL AND workers.lost_at IS NULL
ORDER BY attempts.send_deadline
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenSend:
    """A call whose request may be on the wire now."""

    call: UUID
    workflow: UUID
    step: str
    tool: str | None
    effect: str
    host: str
    boot_id: str
    pid: int
    seconds: float
    """Until its send deadline, by the database's clock."""


def beating(connection: Connection[Any], *, machine: Machine, pid: int) -> bool:
    """Whether that process has registered as a worker and its lease runs."""
    found = connection.execute(BEATING, {"host": machine.host, "boot_id": machine.boot_id, "pid": pid}).fetchone()
    return found is not None


def open_sends(connection: Connection[Any]) -> list[OpenSend]:
    """Everything that is in flight in any worker, the latest deadline last."""
    return connection.cursor(row_factory=class_row(OpenSend)).execute(OPEN_SENDS).fetchall()
