"""S6 single writer, S7 gapless and legal events, S8 something wakes it, S9 limits, L1 and L2: laws about the rows.

Each query finds rows that break the law, so nothing is loaded that is well. Legal moves are read from the product's
own printed table (`app/domain/legal.py`), adjacent pairs of events from the database, grouped before they travel.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from app.domain import legal
from tests.chaos.oracle import snapshot
from tests.chaos.oracle.snapshot import Row, Snapshot
from tests.chaos.oracle.verdicts import Checked, Violation

_OPEN: Final = "('due', 'intended', 'probing')"

# Two kinds of attempts may stay open: of a 202 that is waited for; and of a call that was settled otherwise while a
# worker had it (late evidence of an earlier attempt, a probe nobody needs any more) if that worker died: no decision
# depends on it. A living worker tells until shortly after its deadline.
SINGLE_WRITER: Final[Mapping[str, str]] = {
    "several attempts are open": """
        SELECT w.id AS workflow_id, c.id AS call_id, c.state, count(*) AS attempts
        FROM attempts a JOIN workflows w ON w.id = a.workflow_id
        JOIN calls c ON c.workflow_id = a.workflow_id AND c.id = a.call_id
        WHERE {ours} AND a.outcome IS NULL AND a.lost_at IS NULL
        GROUP BY w.id, c.id, c.state HAVING count(*) > 1""",
    "an attempt is open and its call is not in flight": """
        SELECT w.id AS workflow_id, c.id AS call_id, c.state, a.n
        FROM attempts a JOIN workflows w ON w.id = a.workflow_id
        JOIN calls c ON c.workflow_id = a.workflow_id AND c.id = a.call_id
        WHERE {ours} AND a.outcome IS NULL AND a.lost_at IS NULL AND c.state <> 'intended'
          AND a.status_code IS DISTINCT FROM 202 AND (c.ended_at IS NULL
            OR a.send_deadline + interval '10 s' < now() AND NOT EXISTS (
              SELECT FROM workers k WHERE k.id = a.worker AND k.lost_at IS NOT NULL))""",
    "in flight without an open attempt at its fence": """
        SELECT w.id AS workflow_id, c.id AS call_id, c.attempt_id FROM calls c JOIN workflows w ON w.id = c.workflow_id
        WHERE {ours} AND c.state = 'intended' AND NOT EXISTS (
          SELECT FROM attempts a WHERE a.workflow_id = c.workflow_id AND a.call_id = c.id AND a.id = c.attempt_id
            AND a.outcome IS NULL AND a.lost_at IS NULL)""",
    "attempts are not numbered 1, 2, … up to the call's count": """
        SELECT w.id AS workflow_id, c.id AS call_id, c.attempts, count(a.id) AS found, max(a.n) AS last
        FROM calls c JOIN workflows w ON w.id = c.workflow_id
        LEFT JOIN attempts a ON a.workflow_id = c.workflow_id AND a.call_id = c.id
        WHERE {ours} GROUP BY w.id, c.id, c.attempts
        HAVING count(a.id) <> c.attempts OR coalesce(max(a.n), 0) <> c.attempts""",
    "an outcome was not told exactly once": """
        SELECT w.id AS workflow_id, a.call_id, a.n, a.outcome, count(e.seq) AS told
        FROM attempts a JOIN workflows w ON w.id = a.workflow_id
        LEFT JOIN events e ON e.workflow_id = a.workflow_id AND e.attempt_id = a.id
          AND e.type IN ('agent.tool.executed', 'agent.model.called')
        WHERE {ours} GROUP BY w.id, a.call_id, a.id, a.n, a.outcome
        HAVING count(e.seq) <> (a.outcome IS NOT NULL)::int""",
    "an at_most_once call was tried again although it may have happened, and no person vouched": """
        SELECT w.id AS workflow_id, c.id AS call_id, count(*) AS attempts
        FROM calls c JOIN workflows w ON w.id = c.workflow_id
        JOIN attempts a ON a.workflow_id = c.workflow_id AND a.call_id = c.id
          AND (a.outcome IS NULL OR a.outcome IN ('succeeded', 'unknown'))
        WHERE {ours} AND c.effect = 'at_most_once' AND c.resolved IS NULL GROUP BY w.id, c.id HAVING count(*) > 1""",
}

WAKES: Final[Mapping[str, str]] = {
    "nothing wakes it": """
        SELECT w.id AS workflow_id, w.status FROM workflows w
        WHERE {ours} AND w.ended_at IS NULL
          AND NOT EXISTS (SELECT FROM dues d WHERE d.workflow_id = w.id
            AND d.kind IN ('call', 'attempt', 'apply', 'result', 'attached', 'switch', 'dependency'))
          AND NOT EXISTS (SELECT FROM approvals a WHERE a.workflow_id = w.id AND a.status = 'open')
          AND NOT EXISTS (SELECT FROM calls c WHERE c.workflow_id = w.id
            AND (c.state IN ('in_doubt', 'held') OR c.undo = 'failed'))
          AND w.status <> 'paused' AND w.saga IS DISTINCT FROM 'held'""",
    "a call is due, in flight or held for a row that is not there": """
        SELECT w.id AS workflow_id, c.id AS call_id, c.state, c.held_reason,
          array_agg(d.kind ORDER BY d.kind) FILTER (WHERE d.kind IS NOT NULL) AS dues
        FROM calls c JOIN workflows w ON w.id = c.workflow_id LEFT JOIN dues d ON d.ref = c.id
        WHERE {ours} AND w.ended_at IS NULL AND (c.state IN ('due', 'intended')
          OR c.state = 'held' AND c.held_reason IN ('attached', 'operator', 'breaker', 'quota'))
        GROUP BY w.id, c.id, c.state, c.held_reason
        HAVING NOT coalesce(bool_or(d.kind = ANY(CASE c.state
          WHEN 'due' THEN ARRAY['call'] WHEN 'intended' THEN ARRAY['call', 'attempt', 'apply', 'result']
          ELSE ARRAY[CASE c.held_reason WHEN 'attached' THEN 'attached' WHEN 'operator' THEN 'switch'
            ELSE 'dependency' END] END)), false)""",
    "a call is probing without an open probe": """
        SELECT w.id AS workflow_id, c.id AS call_id, c.probe_id FROM calls c JOIN workflows w ON w.id = c.workflow_id
        WHERE {ours} AND c.state = 'probing' AND NOT EXISTS (
          SELECT FROM calls p WHERE p.workflow_id = c.workflow_id AND p.id = c.probe_id AND p.ended_at IS NULL)""",
    "a call waits for a person whom nobody asks": """
        SELECT w.id AS workflow_id, c.id AS call_id, c.held_reason FROM calls c JOIN workflows w ON w.id = c.workflow_id
        WHERE {ours} AND c.state = 'held' AND c.held_reason IN ('approval', 'repeat', 'drift') AND NOT EXISTS (
          SELECT FROM approvals a WHERE a.workflow_id = c.workflow_id AND a.call_id = c.id AND a.status = 'open')""",
    "its counters are not what is counted": f"""
        SELECT w.id AS workflow_id, w.status, w.open_calls, w.held, w.doubts, found.*
        FROM workflows w, LATERAL (SELECT
          count(*) FILTER (WHERE c.state IN {_OPEN}) AS open_, count(*) FILTER (WHERE c.state = 'held') AS held_,
          count(*) FILTER (WHERE c.state = 'in_doubt') AS doubts_ FROM calls c WHERE c.workflow_id = w.id) found
        WHERE {{ours}}
          AND (w.open_calls, w.held, w.doubts) IS DISTINCT FROM (found.open_, found.held_, found.doubts_)""",
    "it has ended and something of it has not": """
        SELECT w.id AS workflow_id, w.status FROM workflows w
        WHERE {ours} AND w.ended_at IS NOT NULL AND (
          EXISTS (SELECT FROM calls c WHERE c.workflow_id = w.id AND c.ended_at IS NULL)
          OR EXISTS (SELECT FROM steps s WHERE s.workflow_id = w.id AND s.ended_at IS NULL)
          OR EXISTS (SELECT FROM approvals a WHERE a.workflow_id = w.id AND a.status = 'open')
          OR EXISTS (SELECT FROM dues d WHERE d.workflow_id = w.id AND d.kind <> 'delivery'))""",
}

WAITS_AT_ONCE: Final = ("step", "pending", "waiting")
"""An approval's step starts and waits in one decision, told as one event: pending → running → waiting."""

_GAPS: Final = """
SELECT w.id AS workflow_id, w.last_seq, count(e.seq) AS n, max(e.seq) AS last, min(e.seq) AS first
FROM workflows w LEFT JOIN events e ON e.workflow_id = w.id WHERE {ours} GROUP BY w.id, w.last_seq
HAVING count(e.seq) <> w.last_seq OR max(e.seq) <> w.last_seq OR min(e.seq) <> 1"""

# Every adjacent pair of moves of one workflow, step or call, counted by what it says; one example each.
_MOVES: Final = """
WITH moves AS (
  SELECT e.workflow_id, e.seq, e.type, e.step, e.call_id, e.from_state, e.to_state,
    CASE WHEN e.call_id IS NOT NULL THEN 'call' WHEN e.step IS NOT NULL THEN 'step' ELSE 'workflow' END AS machine
  FROM events e JOIN workflows w ON w.id = e.workflow_id WHERE {ours} AND e.to_state IS NOT NULL
), pairs AS (
  SELECT *, lag(to_state) OVER (
    PARTITION BY workflow_id, machine, coalesce(call_id::text, step, '') ORDER BY seq) AS before FROM moves
)
SELECT machine, type, before, from_state, to_state, count(*) AS n, (array_agg(workflow_id))[1] AS workflow_id,
  (array_agg(call_id))[1] AS call_id, min(seq) AS seq
FROM pairs GROUP BY machine, type, before, from_state, to_state"""

_LAST: Final = """
SELECT w.id AS workflow_id, w.status, e.to_state FROM workflows w JOIN LATERAL (
  SELECT to_state FROM events WHERE workflow_id = w.id AND to_state IS NOT NULL AND call_id IS NULL AND step IS NULL
  ORDER BY seq DESC LIMIT 1) e ON true
WHERE {ours} AND e.to_state <> w.status"""


def single_writer(rows: Snapshot) -> Checked:
    count = rows.count("SELECT count(*) FROM attempts a JOIN workflows w ON w.id = a.workflow_id WHERE {ours}")
    found = _breaches("S6", SINGLE_WRITER, rows)
    return Checked(law="S6", says="one writer, one outcome per attempt", count=count, of="attempts", violations=found)


def events_tell_it_all(rows: Snapshot) -> Checked:
    """S7: numbered without gaps; every adjacent pair is listed; the last one says what the row says."""
    found = [_breach("S7", "its events have gaps", row) for row in rows(_GAPS)]
    moves = rows(_MOVES)
    for row in moves:
        words = _illegal(row)
        if words:
            text = f"{row['machine']} {row['type']} at {row['seq']}: {words} ({row['n']} times)"
            found.append(_breach("S7", text, {"workflow_id": row["workflow_id"], "call_id": row["call_id"]}))
    found += [_breach("S7", "its last event says something else than its row", row) for row in rows(_LAST)]
    count = rows.count("SELECT coalesce(sum(w.last_seq), 0)::bigint FROM workflows w WHERE {ours}")
    return Checked(law="S7", says="events gapless, every move legal", count=count, of="events", violations=found)


def _illegal(row: Row) -> str | None:
    machine, before, source, to = row["machine"], row["before"], row["from_state"], row["to_state"]
    if (machine, source, to) == WAITS_AT_ONCE:
        source = before = None
    if source is not None and to not in _leads_to(machine, source):
        return f"{source} → {to} is not in the table"
    if before is None or source is None:
        return None
    if machine == "call":  # a claim and an attempt's end move a call without an event of that call's move
        return None if source in _reachable(before) else f"it was {before} and cannot have become {source}"
    return None if before == source else f"{source} → {to}, but it was {before}"


def _leads_to(machine: str, state: str) -> frozenset[str]:
    return frozenset(to for leads_to in legal.TABLE[machine][state].values() for to in leads_to)


@cache
def _reachable(state: str) -> frozenset[str]:
    found = {state}
    while True:
        further = {to for each in found for to in _leads_to("call", each)}
        further |= {"intended"} if "due" in found | further else set()
        if further <= found:
            return frozenset(found)
        found |= further


def something_wakes_it(rows: Snapshot) -> Checked:
    """S8, at any instant, in the midst of faults too."""
    count = rows.count("SELECT count(*) FROM workflows w WHERE {ours}")
    found = _breaches("S8", WAKES, rows)
    return Checked(law="S8", says="something wakes what is not final", count=count, of="workflows", violations=found)


_TURNS: Final = """
SELECT w.id AS workflow_id, s.path, s.turn FROM steps s JOIN workflows w ON w.id = s.workflow_id
WHERE {ours} AND s.kind = 'agent' AND s.turn > %(turns)s"""

_BILLED: Final = """
SELECT w.id AS workflow_id, w.spent_microusd, w.input_tokens, w.output_tokens, billed.*
FROM workflows w, LATERAL (
  SELECT coalesce(sum(a.cost_microusd), 0) AS cost, coalesce(sum((a.usage->>'input_tokens')::bigint), 0) AS in_,
    coalesce(sum((a.usage->>'output_tokens')::bigint), 0) AS out_ FROM attempts a WHERE a.workflow_id = w.id) billed
WHERE {ours} AND (w.spent_microusd, w.input_tokens, w.output_tokens)
  IS DISTINCT FROM (billed.cost, billed.in_, billed.out_)"""


_OVERSPENT: Final = """
SELECT w.id AS workflow_id, b.scope, b.spent_tokens, b.reserved_tokens, b.limit_tokens, b.overrun_tokens, b.open_calls
FROM budgets b JOIN workflows w ON w.id = b.workflow_id
WHERE {ours} AND (b.overrun_microusd > 0 OR b.overrun_tokens > 0
  OR w.ended_at IS NOT NULL AND (b.reserved_microusd, b.reserved_tokens, b.reserved_turns, b.reserved_tool_calls,
    b.open_calls) IS DISTINCT FROM (0, 0, 0, 0, 0)
  OR b.spent_tokens > b.limit_tokens OR b.spent_turns > b.limit_turns OR b.spent_tool_calls > b.limit_tool_calls)"""


def limits_hold(rows: Snapshot, *, turns: int) -> Checked:
    """S9: no agent takes more turns than its definition allows; every token of every attempt is billed once; no budget
    is overspent, and nothing of one stays reserved when its workflow has ended."""
    found = [_breach("S9", f"more than {turns} turns", row) for row in rows(_TURNS, turns=turns)]
    found += [_breach("S9", "what it was billed is not what its attempts used", row) for row in rows(_BILLED)]
    found += [
        _breach("S9", "its budget is overspent, or something of it is still reserved", r) for r in rows(_OVERSPENT)
    ]
    count = rows.count("SELECT count(*) FROM workflows w WHERE {ours} AND w.input_tokens > 0")
    return Checked(
        law="S9", says="limits hold, every token is billed once", count=count, of="agents' workflows", violations=found
    )


_RUNNABLE: Final = """
SELECT d.workflow_id, CASE WHEN d.ref <> d.workflow_id THEN d.ref END AS call_id, d.kind, d.due_at, d.ring_at, d.rung
FROM dues d JOIN workflows w ON w.id = d.workflow_id
WHERE {ours} AND d.due_at < now() - interval '1 second' * %(seconds)s
  AND d.kind IN ('call', 'attempt', 'apply', 'result', 'attached', 'switch', 'expiry', 'step_timeout', 'deadline')"""

_UNENDED: Final = """
SELECT w.id AS workflow_id, w.status, w.open_calls, w.held, w.doubts, w.waits, w.attention
FROM workflows w WHERE {ours} AND w.ended_at IS NULL"""


def everything_ends(rows: Snapshot, *, seconds: float, all_ended: bool = True) -> Checked:
    """L1: nothing has been runnable for `seconds`; `all_ended`: and no workflow is left that has not ended."""
    found = [_breach("L1", "is due and nobody does it", row) for row in rows(_RUNNABLE, seconds=seconds)]
    if all_ended:
        found += [_breach("L1", "has not ended", row) for row in rows(_UNENDED)]
    count = rows.count("SELECT count(*) FROM workflows w WHERE {ours}")
    return Checked(law="L1", says="everything ends, nothing is runnable", count=count, of="workflows", violations=found)


LEFT_BEHIND: Final[Mapping[str, str]] = {
    "a worker's lease is over and nobody called it lost": """
        SELECT name, pid, lease_until FROM workers
        WHERE lost_at IS NULL AND stopped_at IS NULL
          AND lease_until < now() - interval '1 second' * %(seconds)s""",
    "a transaction is open": """
        SELECT application_name, state, xact_start, left(query, 80) AS query
        FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'surefoot%%'
          AND xact_start < now() - interval '1 second' * %(seconds)s""",
    "a delivery was not made, not given up, and has no next try": """
        SELECT w.id AS workflow_id, d.seq, d.state, jsonb_array_length(d.attempts) AS attempts
        FROM deliveries d JOIN workflows w ON w.id = d.workflow_id WHERE {ours} AND d.state = 'open' AND NOT EXISTS (
          SELECT FROM dues s WHERE s.kind = 'delivery' AND s.ref = d.stream AND s.due_at > now())""",
    "a stream's due is left although nothing of it is open": """
        SELECT w.id AS workflow_id, d.due_at FROM dues d JOIN workflows w ON w.id = d.workflow_id
        WHERE {ours} AND d.kind = 'delivery' AND d.due_at < now() - interval '1 second' * %(seconds)s
          AND NOT EXISTS (SELECT FROM deliveries o WHERE o.workflow_id = w.id AND o.state = 'open')""",
}


def nothing_left_behind(rows: Snapshot, *, seconds: float) -> Checked:
    """L2. `seconds`: how long something may take that is being done at this instant."""
    found = _breaches("L2", LEFT_BEHIND, rows, seconds=seconds)
    count = rows.count("SELECT count(*) FROM workers")
    return Checked(law="L2", says="no lease, transaction or delivery left", count=count, of="workers", violations=found)


def _breaches(law: str, queries: Mapping[str, str], rows: Snapshot, **parameters: Any) -> list[Violation]:
    return [_breach(law, words, row) for words, sql in queries.items() for row in rows(sql, **parameters)]


def _breach(law: str, words: str, row: Row) -> Violation:
    workflow, call = row.get("workflow_id"), row.get("call_id")
    rest = {name: value for name, value in row.items() if name not in ("workflow_id", "call_id")}
    told = ", ".join(f"{name} {value}" for name, value in rest.items())
    return Violation(
        law=law,
        words=f"{words} ({told})" if told else words,
        workflow=None if workflow is None else snapshot.wf(workflow),
        call=None if call is None else snapshot.call(call),
    )
