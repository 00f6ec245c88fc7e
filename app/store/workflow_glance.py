"""What a poll wants to know of an ordinary workflow, in one prepared statement; of others only that they need a look.

Ordinary is one that runs or has ended, waits for nobody, is in no doubt and was never tried again: nearly every one,
nearly always. The words are those of `app/store/workflow_views.py`, which is read for the others: a test holds the two
together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import psycopg

from app.domain.states import (
    FINAL_STATUSES,
    NEEDS_A_PERSON,
    CallKind,
    CallState,
    DueKind,
    StepState,
    WorkflowStatus,
)
from app.store import columns
from app.store.workflow_views import STALLED_AFTER, Row, words

Connection = psycopg.AsyncConnection[dict[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Glance:
    row: Row
    symptoms: Sequence[str]
    busy: Sequence[Row]
    """Steps that run, items left out: path, parent and state."""


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    revision: int
    settled: bool
    """It ended, or goes on only after a person did something."""


# A workflow that was only accepted cannot wait for a probe or a result yet: the revision spares it the look.
_GLANCE: Final = f"""
SELECT {columns.listed("w", columns.WORKFLOW)}, calls.due, calls.late, calls.again,
  EXISTS (SELECT FROM workers o
    WHERE o.lost_at IS NULL AND o.stopped_at IS NULL AND o.lease_until > clock_timestamp()) AS worker,
  w.open_calls > 0 AND w.revision > 1 AND EXISTS (
    SELECT FROM dues d LEFT JOIN calls c ON c.workflow_id = d.workflow_id AND c.id = d.ref
    WHERE d.workflow_id = w.id AND (d.kind = '{DueKind.RESULT}'
      OR d.kind IN ('{DueKind.CALL}', '{DueKind.ATTEMPT}') AND c.kind = '{CallKind.PROBE}')) AS asked,
  CASE WHEN w.status = '{WorkflowStatus.RUNNING}' THEN (
    SELECT array_agg(s.path ORDER BY s.position) FROM steps s
    WHERE s.workflow_id = w.id AND s.parent IS NULL AND s.state = '{StepState.RUNNING}') END AS busy
FROM workflows w LEFT JOIN LATERAL (
  SELECT bool_or(d.due_at < clock_timestamp()) AS due,
    bool_or(d.due_at < clock_timestamp() - interval '{STALLED_AFTER.total_seconds()} seconds') AS late,
    bool_or(c.attempts > 0 OR c.retry_of IS NOT NULL) AS again
  FROM dues d JOIN calls c ON c.workflow_id = d.workflow_id AND c.id = d.ref
  WHERE w.open_calls > 0 AND d.workflow_id = w.id AND d.kind = '{DueKind.CALL}' AND c.state = '{CallState.DUE}'
) AS calls ON true
WHERE w.id = %(workflow)s AND w.tenant_id = %(tenant)s"""

# As `states.settled` says it of a row: a test holds the two together.
_STATE: Final = f"""
SELECT revision, status IN ({", ".join(f"'{status}'" for status in sorted((*FINAL_STATUSES, *NEEDS_A_PERSON)))})
  OR saga IS NOT DISTINCT FROM 'held' OR undos_failed > 0 AND open_calls = 0 AS settled
FROM workflows WHERE id = %(workflow)s AND tenant_id = %(tenant)s"""

_QUIET: Final = ("waits", "held", "doubts", "undos_failed", "retries", "budgeted")
"""What has more to tell, if it is not 0."""


async def glance(connection: Connection, *, tenant_id: UUID, workflow_id: UUID) -> Glance | None:
    """None: it has more to tell, or is not there."""
    cursor = await connection.execute(_GLANCE, {"workflow": workflow_id, "tenant": tenant_id})
    row = await cursor.fetchone()
    if row is None or row["asked"] or row["status"] in NEEDS_A_PERSON or any(row[counter] for counter in _QUIET):
        return None
    symptoms = words(due=row["due"], late=row["late"], again=row["again"], worker=row["worker"])
    busy = [{"path": path, "parent": None, "state": StepState.RUNNING} for path in row["busy"] or ()]
    return Glance(row=row, symptoms=symptoms, busy=busy)


async def state(connection: Connection, *, tenant_id: UUID, workflow_id: UUID) -> State | None:
    """None if there is no such workflow (any more)."""
    row = await (await connection.execute(_STATE, {"workflow": workflow_id, "tenant": tenant_id})).fetchone()
    return None if row is None else State(revision=row["revision"], settled=row["settled"])
