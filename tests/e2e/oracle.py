"""What must be true after any disaster, judged by the tools' own ledger (`check_ledger`) and by the rows
(`check_rows`). The letters are those of the verification plan: S3 no duplicate effect, S4 no phantom, S6 single
writer, S7 gapless events, S8 something wakes it, L2 nothing left behind.

Every breach is listed, not only the first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from app.domain import legal
from app.domain.canonical import canonical_json
from tests.e2e.catalogue import BY_DEMO_NAME, CATALOGUE

Row = dict[str, Any]


# --- the world -----------------------------------------------------------------------------------------------------


def check_ledger(ledger: Iterable[Row], effects: Sequence[Row]) -> None:
    """`ledger`: the tools' entries of the workflows whose `effects` (as the API tells them) these are.

    The arguments say which effect an entry belongs to: each effect of a test has arguments of its own.
    """
    by_arguments: dict[bytes, list[Row]] = defaultdict(list)
    for entry in ledger:
        by_arguments[canonical_json([entry["tool"], entry["arguments"]])].append(entry)
    breaches = [breach for entries in by_arguments.values() for breach in _repeats(entries)]
    breaches += [breach for effect in effects for breach in _phantoms(effect, by_arguments)]
    assert not breaches, "\n".join(breaches)


def _repeats(entries: Sequence[Row]) -> Iterator[str]:
    """S3: what was executed more often than its class allows."""
    tool, arguments = entries[0]["tool"], entries[0]["arguments"]
    executed = [entry for entry in entries if entry["executed"]]
    effect = BY_DEMO_NAME[tool].effect if tool in BY_DEMO_NAME else "read_only"
    if effect in ("keyed", "checkable", "at_most_once") and len(executed) > 1:
        yield f"S3: {tool} ({effect}) {arguments} was executed {len(executed)} times"
    if effect == "keyed" and len({entry["key"] for entry in entries}) > 1:
        yield f"S3: {tool} {arguments} was asked for under several keys: {[entry['key'] for entry in entries]}"


def _phantoms(effect: Row, by_arguments: dict[bytes, list[Row]]) -> Iterator[str]:
    """S4: said to have happened and did not, or the other way round."""
    tool = next(tool for tool in CATALOGUE.values() if tool.effect == effect["effect"])
    entries = by_arguments.get(canonical_json([tool.demo, effect["arguments"]]), [])
    done = any(entry["status"] == 200 for entry in entries)
    if effect["state"] == "succeeded" and not done:
        yield f"S4: {effect['id']} {tool.demo} {effect['arguments']} succeeded, the tool knows nothing of it"
    if effect["state"] in ("failed", "cancelled") and done:
        yield f"S4: {effect['id']} {tool.demo} {effect['arguments']} is {effect['state']}, the tool did it"


# --- the rows ------------------------------------------------------------------------------------------------------

_QUERIES: Final = {
    "S6: several open attempts, or one at a call that is not in flight": """
        SELECT c.workflow_id, c.id, c.state, count(a.id) FROM calls c
        JOIN attempts a ON a.workflow_id = c.workflow_id AND a.call_id = c.id
          AND a.outcome IS NULL AND a.lost_at IS NULL
        WHERE c.workflow_id = ANY(%(workflows)s) GROUP BY c.workflow_id, c.id, c.state
        HAVING count(a.id) > 1 OR c.state <> 'intended'""",
    "S6: in flight without an open attempt of its own at the fence": """
        SELECT c.workflow_id, c.id FROM calls c
        WHERE c.workflow_id = ANY(%(workflows)s) AND c.state = 'intended' AND NOT EXISTS (
          SELECT FROM attempts a WHERE a.workflow_id = c.workflow_id AND a.call_id = c.id AND a.id = c.attempt_id
            AND a.outcome IS NULL AND a.lost_at IS NULL)""",
    "S6: attempts are not numbered 1, 2, … up to the call's count": """
        SELECT c.workflow_id, c.id, c.attempts, array_agg(a.n ORDER BY a.n) FROM calls c
        LEFT JOIN attempts a ON a.workflow_id = c.workflow_id AND a.call_id = c.id
        WHERE c.workflow_id = ANY(%(workflows)s) GROUP BY c.workflow_id, c.id, c.attempts
        HAVING count(a.id) <> c.attempts OR coalesce(max(a.n), 0) <> c.attempts""",
    "S6: an outcome that was not told exactly once": """
        SELECT a.workflow_id, a.call_id, a.id, a.outcome, count(e.seq) FROM attempts a
        LEFT JOIN events e ON e.workflow_id = a.workflow_id AND e.attempt_id = a.id
          AND e.type IN ('agent.tool.executed', 'agent.model.called')
        WHERE a.workflow_id = ANY(%(workflows)s) GROUP BY a.workflow_id, a.call_id, a.id, a.outcome
        HAVING count(e.seq) <> (a.outcome IS NOT NULL)::int""",
    "S6: more than one attempt at an at_most_once call may have taken effect, and no person vouched": """
        SELECT c.workflow_id, c.id FROM calls c
        JOIN attempts a ON a.workflow_id = c.workflow_id AND a.call_id = c.id
          AND (a.outcome IS NULL OR a.outcome IN ('succeeded', 'unknown'))
        WHERE c.workflow_id = ANY(%(workflows)s) AND c.effect = 'at_most_once' AND c.resolved IS NULL
        GROUP BY c.workflow_id, c.id HAVING count(a.id) > 1""",
    "S7: events with gaps": """
        SELECT w.id, w.last_seq, count(e.seq), max(e.seq) FROM workflows w LEFT JOIN events e ON e.workflow_id = w.id
        WHERE w.id = ANY(%(workflows)s) GROUP BY w.id, w.last_seq
        HAVING count(e.seq) <> w.last_seq OR max(e.seq) <> w.last_seq OR min(e.seq) <> 1""",
    "S8: nothing wakes it": """
        SELECT w.id, w.status FROM workflows w
        WHERE w.id = ANY(%(workflows)s) AND w.ended_at IS NULL
          AND NOT EXISTS (SELECT FROM dues d WHERE d.workflow_id = w.id AND d.kind IN ('call', 'attempt', 'apply'))
          AND NOT EXISTS (SELECT FROM approvals a WHERE a.workflow_id = w.id AND a.status = 'open')
          AND NOT EXISTS (SELECT FROM calls c WHERE c.workflow_id = w.id AND c.state IN ('in_doubt', 'held'))""",
    "S8: a call that is due or in flight without a due of that kind": """
        SELECT c.workflow_id, c.id, c.state FROM calls c
        WHERE c.workflow_id = ANY(%(workflows)s) AND c.state IN ('due', 'intended') AND NOT EXISTS (
          SELECT FROM dues d
          WHERE d.ref = c.id AND (d.kind = 'call' OR d.kind = 'attempt' AND c.state = 'intended'))""",
    "counters that are not what is counted": """
        SELECT w.id, w.open_calls, w.doubts, w.held, w.waits, w.steps_open, found.* FROM workflows w, LATERAL (SELECT
          (SELECT count(*) FROM calls c WHERE c.workflow_id = w.id AND c.state IN ('due', 'intended', 'probing')) AS o,
          (SELECT count(*) FROM calls c WHERE c.workflow_id = w.id AND c.state = 'in_doubt') AS d,
          (SELECT count(*) FROM calls c WHERE c.workflow_id = w.id AND c.state = 'held') AS h,
          (SELECT count(*) FROM approvals a
            WHERE a.workflow_id = w.id AND a.status = 'open' AND a.call_id IS NULL) AS a,
          (SELECT count(*) FROM steps s WHERE s.workflow_id = w.id AND s.parent IS NULL AND s.ended_at IS NULL) AS s
        ) AS found
        WHERE w.id = ANY(%(workflows)s)
          AND (w.open_calls <> o OR w.doubts <> d OR w.held <> h OR w.waits <> a
            OR w.steps_open <> s AND w.status NOT IN ('failing', 'cancelling', 'failed', 'cancelled'))""",
    "L2: a due that outlived its workflow or its call": """
        SELECT d.kind, d.ref, d.workflow_id, w.status, c.state FROM dues d
        JOIN workflows w ON w.id = d.workflow_id LEFT JOIN calls c ON c.workflow_id = w.id AND c.id = d.ref
        WHERE w.id = ANY(%(workflows)s) AND d.kind <> 'delivery'
          AND (w.ended_at IS NOT NULL
            OR d.kind IN ('call', 'attempt', 'apply') AND c.state NOT IN ('due', 'intended'))""",
    "L2: an open call, step or approval of a workflow that is over": """
        SELECT w.id, w.status, c.id, c.state FROM workflows w JOIN calls c ON c.workflow_id = w.id
        WHERE w.id = ANY(%(workflows)s) AND w.ended_at IS NOT NULL AND c.ended_at IS NULL
        UNION ALL
        SELECT w.id, w.status, a.id, a.status FROM workflows w JOIN approvals a ON a.workflow_id = w.id
        WHERE w.id = ANY(%(workflows)s) AND w.ended_at IS NOT NULL AND a.status = 'open'""",
}


def check_rows(url: str, workflows: Sequence[UUID]) -> None:
    """S6, S7, S8, the counters and L2 for these workflows, in one snapshot."""
    with psycopg.connect(url, row_factory=dict_row) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        breaches = [
            f"{law}: {row}"
            for law, sql in _QUERIES.items()
            for row in connection.execute(sql, {"workflows": list(workflows)}).fetchall()
        ]
        moves = connection.execute(
            "SELECT * FROM events WHERE workflow_id = ANY(%s) AND to_state IS NOT NULL ORDER BY workflow_id, seq",
            (list(workflows),),
        ).fetchall()
    breaches += _illegal_moves(moves)
    assert not breaches, "\n".join(breaches)


def _illegal_moves(moves: Iterable[Row]) -> Iterator[str]:
    """S7: what an event says moved was where it was last seen, and may move there."""
    last: dict[tuple[UUID, str, object], str] = {}
    for event in moves:
        machine = "call" if event["call_id"] else "step" if event["step"] else "workflow"
        entity = (event["workflow_id"], machine, event["call_id"] or event["step"])
        before, after = event["from_state"], event["to_state"]
        where = f"{event['workflow_id']} {event['seq']} {event['type']}: {machine} {before} → {after}"
        if before is not None and not _listed(machine, before, after):
            yield f"S7: {where} is not listed"
        silent = machine == "call"  # a claim and a call's end leave no event of their own
        if entity in last and before != last[entity] and not silent:
            yield f"S7: {where}, but it was {last[entity]} before"
        last[entity] = after


def _listed(machine: str, before: str, after: str) -> bool:
    return any(after in leads_to for leads_to in legal.TABLE[machine][before].values())
