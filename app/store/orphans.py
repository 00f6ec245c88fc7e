"""The checker of the first promise: is there a workflow that nothing would wake, or whose counters are not true?

    count(connection) -> Orphans       0 everywhere, or something is wrong with us

The CHECK on `workflows` believes the counters; this believes the rows: for every call that is not settled the row that
wakes it (a due of the right kind, an open approval, a switch, another call's end), for every workflow at least one
such call, approval or decision of an operator. A deadline or a step's timeout does not count: it would end the
workflow, not carry it on. One statement, so that all rows are of one instant. Reads only; it looks at every workflow
that has not ended, so it takes `LONGEST` seconds at most and its callers keep the answer (`app/api/metrics.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.states import FINAL_CALL_STATES

LONGEST: Final = 5.0
"""Seconds for one count: beyond it the database has better things to do."""
EXAMPLES: Final = 20
"""Workflows that are named; the numbers count all."""

_SETTLED: Final = ", ".join(f"'{state.value}'" for state in sorted(FINAL_CALL_STATES))

_WOKEN: Final = """CASE c.state
      WHEN 'due' THEN EXISTS (SELECT FROM dues d WHERE d.kind = 'call' AND d.ref = c.id)
      WHEN 'intended' THEN EXISTS (
        SELECT FROM dues d WHERE d.kind IN ('call', 'attempt', 'apply', 'result') AND d.ref = c.id)
      WHEN 'probing' THEN EXISTS (
        SELECT FROM dues d WHERE d.kind IN ('call', 'attempt', 'apply', 'result', 'switch', 'dependency')
          AND d.ref IN (c.id, c.probe_id))
      WHEN 'held' THEN CASE
        WHEN c.held_reason IN ('approval', 'repeat', 'drift') THEN EXISTS (
          SELECT FROM approvals a WHERE a.workflow_id = c.workflow_id AND a.call_id = c.id AND a.status = 'open')
        WHEN c.held_reason = 'attached' THEN EXISTS (SELECT FROM dues d WHERE d.kind = 'attached' AND d.ref = c.id)
        WHEN c.held_reason = 'operator' THEN EXISTS (SELECT FROM dues d WHERE d.kind = 'switch' AND d.ref = c.id)
        WHEN c.held_reason = 'budget' THEN EXISTS (SELECT FROM dues d WHERE d.kind = 'budget' AND d.ref = c.id)
        WHEN c.held_reason IN ('breaker', 'quota') THEN EXISTS (
          SELECT FROM dues d WHERE d.kind = 'dependency' AND d.ref = c.id)
        WHEN c.held_reason = 'pause' THEN w.status = 'paused'
        ELSE true END
      ELSE true END"""
"""Whether something carries a call that is not settled on. A doubt and the other reasons to hold have a person."""

_COUNT: Final = f"""
WITH open_ones AS MATERIALIZED (
  SELECT id, status, saga, open_calls, held, doubts, waits, undos, undos_failed
  FROM workflows WHERE ended_at IS NULL
), in_calls AS (
  SELECT c.workflow_id,
    count(*) FILTER (WHERE c.state IN ('due', 'intended', 'probing')) AS open_calls,
    count(*) FILTER (WHERE c.state = 'held') AS held,
    count(*) FILTER (WHERE c.state = 'in_doubt') AS doubts,
    count(*) FILTER (WHERE c.undo IN ('recorded', 'running', 'failed')) AS undos,
    count(*) FILTER (WHERE c.undo = 'failed') AS undos_failed,
    count(*) FILTER (WHERE c.state NOT IN ({_SETTLED})) AS unsettled,
    count(*) FILTER (WHERE c.state NOT IN ({_SETTLED}) AND NOT {_WOKEN}) AS unwoken
  FROM open_ones w JOIN calls c ON c.workflow_id = w.id
  WHERE c.state NOT IN ({_SETTLED}) OR c.undo <> 'none'
  GROUP BY c.workflow_id
), in_approvals AS (
  SELECT a.workflow_id, count(*) AS asked, count(*) FILTER (WHERE a.call_id IS NULL) AS waits
  FROM open_ones w JOIN approvals a ON a.workflow_id = w.id AND a.status = 'open'
  GROUP BY a.workflow_id
), judged AS (
  SELECT w.id,
    coalesce(c.unwoken, 0) > 0
      OR coalesce(c.unsettled, 0) + coalesce(c.undos_failed, 0) + coalesce(a.asked, 0) = 0
         AND w.status <> 'paused' AND w.saga IS DISTINCT FROM 'held' AS unwoken,
    (w.open_calls, w.held, w.doubts, w.waits, w.undos, w.undos_failed) IS DISTINCT FROM
      (coalesce(c.open_calls, 0), coalesce(c.held, 0), coalesce(c.doubts, 0),
       coalesce(a.waits, 0) + (w.saga IS NOT DISTINCT FROM 'held')::int,
       coalesce(c.undos, 0), coalesce(c.undos_failed, 0)) AS disagrees
  FROM open_ones w
  LEFT JOIN in_calls c ON c.workflow_id = w.id
  LEFT JOIN in_approvals a ON a.workflow_id = w.id
), ended AS (
  SELECT DISTINCT d.workflow_id AS id FROM dues d JOIN workflows w ON w.id = d.workflow_id
  WHERE d.kind <> 'delivery' AND w.ended_at IS NOT NULL
), wrong AS (
  SELECT id, unwoken, disagrees, false AS left_over FROM judged WHERE unwoken OR disagrees
  UNION ALL SELECT id, false, false, true FROM ended
)
SELECT count(*) AS workflows, count(*) FILTER (WHERE unwoken) AS unwoken,
  count(*) FILTER (WHERE disagrees) AS disagreeing,
  count(*) FILTER (WHERE left_over) AS left_over, (array_agg(id ORDER BY id))[1:{EXAMPLES}] AS examples
FROM wrong"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Orphans:
    workflows: int
    """With which anything is wrong. Expected: 0."""
    unwoken: int
    """Workflows that have not ended and that nothing carries on."""
    disagreeing: int
    """Workflows whose counters do not agree with their rows."""
    left_over: int
    """Workflows that have ended and still have a due."""
    examples: tuple[UUID, ...]


async def count(connection: AsyncConnection) -> Orphans:
    """On a connection with a transaction open (`snapshots.one_instant`); raises the driver's error after `LONGEST`."""
    await connection.execute(text(f"SET LOCAL statement_timeout = {int(LONGEST * 1000)}"))
    row = (await connection.execute(text(_COUNT))).one()
    return Orphans(
        workflows=row.workflows,
        unwoken=row.unwoken,
        disagreeing=row.disagreeing,
        left_over=row.left_over,
        examples=tuple(row.examples or ()),
    )
