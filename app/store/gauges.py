"""The numbers an operator watches: what is open, what is due, who works. Of the whole database, of no tenant.

Asks the narrow tables and the workflows that have not ended; `app/api/metrics.py` keeps the answer for a while.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection


@dataclass(frozen=True, kw_only=True, slots=True)
class Gauges:
    workflows: Mapping[str, int]
    """Status → how many; none that has ended."""
    doubts: int
    oldest_doubt: float
    """Seconds; 0 without a doubt."""
    undos_failed: int
    dues: Mapping[str, int]
    """Kind → how many."""
    backlog: int
    """Calls that are due now."""
    oldest_due: float
    """Seconds for which the oldest of them has been due; 0 without one."""
    held: Mapping[str, int]
    """Reason → calls that are held for it."""
    breakers_open: int
    """Tools and models that are left in peace, and credentials that are not accepted."""
    workers: int
    """Alive."""
    database_time: float
    """Unix time by the database's clock."""


_WORKFLOWS: Final = """
SELECT status, count(*) AS workflows, sum(doubts) AS doubts, sum(undos_failed) AS undos_failed
FROM workflows WHERE ended_at IS NULL GROUP BY status"""

_OLDEST_DOUBT: Final = """
SELECT coalesce(extract(epoch FROM clock_timestamp() - min(c.doubt_since)), 0)::float8 AS seconds
FROM workflows w JOIN calls c ON c.workflow_id = w.id AND c.state = 'in_doubt'
WHERE w.ended_at IS NULL AND w.doubts > 0"""

_DUES: Final = """
SELECT d.kind, count(*) AS dues,
  count(*) FILTER (WHERE c.id IS NOT NULL AND d.due_at <= clock_timestamp()) AS ripe,
  greatest(extract(epoch FROM clock_timestamp() - min(d.due_at) FILTER (WHERE c.id IS NOT NULL)), 0)::float8 AS oldest
FROM dues d LEFT JOIN calls c ON d.kind = 'call' AND c.workflow_id = d.workflow_id AND c.id = d.ref AND c.state = 'due'
GROUP BY d.kind"""
"""Of a call that was claimed a moment ago the due is still there; it is not waiting."""

_HELD: Final = """
SELECT c.held_reason, count(*) AS calls
FROM workflows w JOIN calls c ON c.workflow_id = w.id AND c.state = 'held'
WHERE w.ended_at IS NULL AND w.held > 0 GROUP BY c.held_reason"""

_BREAKERS: Final = "SELECT count(*) AS shut FROM breakers WHERE state <> 'closed'"

_WORKERS: Final = """
SELECT count(*) FILTER (WHERE lost_at IS NULL AND stopped_at IS NULL AND lease_until > clock_timestamp()) AS alive,
  extract(epoch FROM clock_timestamp())::float8 AS now
FROM workers"""


async def read(connection: AsyncConnection) -> Gauges:
    by_status = (await connection.execute(text(_WORKFLOWS))).all()
    oldest_doubt = (await connection.execute(text(_OLDEST_DOUBT))).scalar_one()
    by_kind = (await connection.execute(text(_DUES))).all()
    held = (await connection.execute(text(_HELD))).all()
    shut = (await connection.execute(text(_BREAKERS))).scalar_one()
    workers = (await connection.execute(text(_WORKERS))).one()
    return Gauges(
        workflows={row.status: row.workflows for row in by_status},
        doubts=sum(int(row.doubts) for row in by_status),
        oldest_doubt=oldest_doubt,
        undos_failed=sum(int(row.undos_failed) for row in by_status),
        dues={row.kind: row.dues for row in by_kind},
        backlog=sum(row.ripe for row in by_kind),
        oldest_due=max((row.oldest for row in by_kind if row.oldest is not None), default=0.0),
        held={row.held_reason: row.calls for row in held},
        breakers_open=shut,
        workers=workers.alive,
        database_time=workers.now,
    )
