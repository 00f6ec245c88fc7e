"""The aggregate read for a decision, as far as the facts reach. Its workflows are locked (`app/store/locking.py`).

    load(…)    what `Reads` ask for, into snapshots; rows that are there already stay as the decision left them

Set-based over many workflows, on a driver connection inside the engine's transaction. Never writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import psycopg

from app.domain.aggregate import Approval, Attempt, Call, Message, Sender, Snapshot, StepRow
from app.domain.budgets import WAITS
from app.domain.reads import UNDOS_AT_ONCE, WAITING_AT_ONCE, Reads
from app.domain.states import CallKind, Undo
from app.store import accounts, columns, histories

Connection = psycopg.AsyncConnection[dict[str, Any]]
Cursor = psycopg.AsyncCursor[dict[str, Any]]

_STEP_COLUMNS: Final = ", ".join(
    f'CASE WHEN r.list THEN s."{n}" END AS "{n}"' if n == "input" else f's."{n}"' for n in columns.STEP
)
"""A step's input may be large and no decision needs it, but the list of items of a for_each, once a window."""

_LOAD_STEPS: Final = f"""
SELECT {_STEP_COLUMNS}
FROM unnest(%(workflows)s::uuid[], %(paths)s::text[], %(lists)s::bool[]) AS r(workflow_id, path, list)
JOIN steps s ON s.workflow_id = r.workflow_id AND s.path = r.path"""

_LOAD_NEXT_ITEMS: Final = f"""
SELECT {_STEP_COLUMNS}
FROM (SELECT r.workflow_id, r.path, r.n, r.start, false AS list
      FROM unnest(%(workflows)s::uuid[], %(paths)s::text[], %(counts)s::int[], %(starts)s::int[])
        AS r(workflow_id, path, n, start)) r
JOIN steps p ON p.workflow_id = r.workflow_id AND p.path = r.path
CROSS JOIN LATERAL generate_series(
  coalesce(r.start, p.items_started, 0), coalesce(r.start, p.items_started, 0) + r.n - 1) AS g(i)
JOIN steps s ON s.workflow_id = p.workflow_id AND s.path = p.path || '.' || g.i"""

_LOAD_ITEMS_OF: Final = f"""
SELECT {_STEP_COLUMNS}
FROM (SELECT r.workflow_id, r.path, false AS list
      FROM unnest(%(workflows)s::uuid[], %(paths)s::text[]) AS r(workflow_id, path)) r
JOIN steps p ON p.workflow_id = r.workflow_id AND p.path = r.path
CROSS JOIN LATERAL generate_series(0, coalesce(p.items_inserted, 0) - 1) AS g(i)
JOIN steps s ON s.workflow_id = p.workflow_id AND s.path = p.path || '.' || g.i"""

_LOAD_OPEN_STEPS: Final = f"""
SELECT {_STEP_COLUMNS.replace("r.list", "false")}
FROM steps s WHERE s.workflow_id = ANY(%(workflows)s) AND s.state IN ('running', 'waiting')"""

_HISTORY: Final = """
LEFT JOIN LATERAL (
  SELECT json_agg(row_to_json(a) ORDER BY a.n) AS history FROM (
    SELECT a.*, w.lease_until, w.reaped_at, w.lost_at AS worker_lost_at
    FROM attempts a LEFT JOIN workers w ON w.id = a.worker
    WHERE a.workflow_id = c.workflow_id AND a.call_id = c.id) a
) h ON true"""

_CALL_COLUMNS: Final = f"{columns.listed('c', columns.CALL)}, h.history"

_CALLS: Final = f"""
SELECT {_CALL_COLUMNS}
FROM unnest(%(workflows)s::uuid[], %(calls)s::uuid[]) AS r(workflow_id, id)
JOIN calls c ON c.workflow_id = r.workflow_id AND c.id = r.id {_HISTORY}"""

_LOAD_CALLS: Final = f"{_CALLS} FOR NO KEY UPDATE OF c"

# Sent before it is known which workflows could be locked: it must wait for nobody and lock nothing of somebody else's.
# Only a claim changes a call without its workflow's lock, and only one that is due: others need no lock of their own.
CALLS_AHEAD: Final = f"{_CALLS} WHERE c.state <> 'due'"

# No call of a turn is older than the last model call of the turns before it: those are made one after the other, each
# for the turn that the step is in. So the last few calls of the step are looked at, not all that it ever made; OFFSET
# keeps the planner from looking at the calls first.
_LOAD_TURNS: Final = f"""
SELECT {_CALL_COLUMNS}
FROM unnest(%(workflows)s::uuid[], %(paths)s::text[]) AS r(workflow_id, path)
CROSS JOIN LATERAL (
  SELECT s.workflow_id, s.path, s.turn, coalesce((
    SELECT b.n FROM calls b WHERE b.workflow_id = s.workflow_id AND b.step = s.path
      AND b.kind = 'model' AND b.turn < s.turn ORDER BY b.n DESC LIMIT 1), 0) AS before
  FROM steps s WHERE s.workflow_id = r.workflow_id AND s.path = r.path OFFSET 0) s
JOIN calls c ON c.workflow_id = s.workflow_id AND c.step = s.path AND c.n > s.before AND c.turn = s.turn {_HISTORY}
FOR NO KEY UPDATE OF c"""

_LOAD_OPEN_CALLS: Final = f"""
SELECT {_CALL_COLUMNS}
FROM calls c {_HISTORY}
WHERE c.workflow_id = ANY(%(workflows)s) AND c.ended_at IS NULL
  AND (%(steps)s::text[] IS NULL OR split_part(c.step, '.', 1) = ANY(%(steps)s) OR c.step = ANY(%(steps)s))
FOR NO KEY UPDATE OF c"""

_LOAD_REPEATS: Final = f"""
SELECT {_CALL_COLUMNS}
FROM unnest(%(workflows)s::uuid[], %(tools)s::text[], %(hashes)s::text[]) AS r(workflow_id, tool, hash)
JOIN calls c ON c.workflow_id = r.workflow_id AND c.tool = r.tool AND c.args_sha256 = r.hash
  AND c.effect IN ('keyed', 'checkable', 'at_most_once') {_HISTORY}
FOR NO KEY UPDATE OF c"""

_LOAD_CONVERSATIONS: Final = """
SELECT m.workflow_id, m.step, m.conversation, m.ordinal, m.tenant_id, m.role, m.turn, m.body
FROM unnest(%(workflows)s::uuid[], %(paths)s::text[]) AS r(workflow_id, path)
JOIN steps s ON s.workflow_id = r.workflow_id AND s.path = r.path
JOIN messages m ON m.workflow_id = s.workflow_id AND m.step = s.path AND m.conversation = s.conversation
ORDER BY m.workflow_id, m.step, m.ordinal"""

_LOAD_TOP_STEPS: Final = f"""
SELECT {_STEP_COLUMNS.replace("r.list", "false")}
FROM steps s WHERE s.workflow_id = ANY(%(workflows)s) AND s.parent IS NULL"""

_LOAD_BEGUN_ITEMS: Final = f"""
SELECT {_STEP_COLUMNS.replace("r.list", "false")}
FROM steps s WHERE s.workflow_id = ANY(%(workflows)s) AND s.parent IS NOT NULL
  AND s.state IN ('failed', 'cancelled') AND s.started_at IS NOT NULL"""

# Of each path the latest effect that is to be undone, unless one of that path is under way: `settled` are those that
# this decision has just undone, `begun` those it has just begun with. The index ix_calls_undo holds nothing but what is
# left.
_LOAD_UNDOS: Final = f"""
SELECT {_CALL_COLUMNS}
FROM calls c {_HISTORY}
WHERE c.workflow_id = %(workflow)s AND split_part(c.step, '.', 1) = %(name)s AND c.undo = 'recorded'
  AND c.id <> ALL(%(begun)s)
  AND NOT EXISTS (
    SELECT FROM calls later WHERE later.workflow_id = c.workflow_id AND later.step = c.step
      AND (later.undo = 'recorded' AND later.n > c.n
           OR later.undo IN ('running', 'failed') AND later.id <> ALL(%(settled)s)))
ORDER BY c.n DESC LIMIT %(limit)s
FOR NO KEY UPDATE OF c"""

_LOAD_APPROVALS: Final = f"""
SELECT {columns.listed("a", columns.APPROVAL)}
FROM approvals a WHERE a.workflow_id = ANY(%(workflows)s)
  AND (a.id = ANY(%(ids)s) OR (a.workflow_id = ANY(%(open_in)s) AND a.status = 'open'))"""


async def load(connection: Connection, wanted: Mapping[UUID, tuple[Snapshot, Reads]]) -> None:
    """Read for many workflows at once. What a snapshot already holds is kept: the decision may have changed it."""
    steps = await ask_steps(connection, _missing_steps(wanted))
    await _load_items(connection, wanted)
    await _load_calls(connection, wanted)
    await _load_open(connection, wanted)
    await _load_for_operators(connection, wanted)
    await _load_waiting(connection, wanted)
    await _load_linked(connection, wanted)
    await accounts.load(connection, (snapshot for snapshot, _ in wanted.values()))
    await histories.load(connection, wanted)
    await _load_conversations(connection, wanted)
    if steps is not None:  # last, so that in a pipeline they come with the calls, in one round trip
        keep_steps(await steps.fetchall(), wanted)


def _pairs(wanted: Mapping[UUID, tuple[Snapshot, Reads]], name: str) -> list[tuple[UUID, Any]]:
    return [(workflow, one) for workflow, (_, reads) in wanted.items() for one in sorted(getattr(reads, name), key=str)]


def _missing_steps(wanted: Mapping[UUID, tuple[Snapshot, Reads]]) -> list[tuple[UUID, str, bool]]:
    """(workflow, path, with its list of items)"""
    return [
        (workflow, path, path in reads.lists)
        for workflow, (snapshot, reads) in wanted.items()
        for path in sorted((reads.steps - snapshot.steps.keys()) | reads.lists)
    ]


async def ask_steps(connection: Connection, steps: Sequence[tuple[UUID, str, bool]]) -> Cursor | None:
    if not steps:
        return None
    return await connection.execute(
        _LOAD_STEPS,
        {"workflows": [p[0] for p in steps], "paths": [p[1] for p in steps], "lists": [p[2] for p in steps]},
    )


async def ask_calls(
    connection: Connection, calls: Sequence[tuple[UUID, UUID]], *, sql: str = _LOAD_CALLS
) -> Cursor | None:
    if not calls:
        return None
    return await connection.execute(sql, {"workflows": [c[0] for c in calls], "calls": [c[1] for c in calls]})


def keep_steps(rows: Iterable[dict[str, Any]], wanted: Mapping[UUID, tuple[Snapshot, Reads]]) -> None:
    for row in rows:
        snapshot = wanted[row["workflow_id"]][0]
        there = snapshot.steps.get(row["path"])
        if there is None:
            snapshot.steps[row["path"]] = StepRow(**row)
        elif row["input"] is not None and there.input is None:
            there.input = row["input"]


def _started(snapshot: Snapshot, parent: str) -> int | None:
    """Where the next items begin, as this decision has it; None: as the row says."""
    row = snapshot.steps.get(parent)
    return None if row is None else row.items_started or 0


async def _load_items(connection: Connection, wanted: Mapping[UUID, tuple[Snapshot, Reads]]) -> None:
    counts = [(w, path, n) for w, (_, reads) in wanted.items() for path, n in sorted(reads.next_items.items())]
    if counts:
        cursor = await connection.execute(
            _LOAD_NEXT_ITEMS,
            {
                "workflows": [c[0] for c in counts],
                "paths": [c[1] for c in counts],
                "counts": [c[2] for c in counts],
                "starts": [_started(wanted[c[0]][0], c[1]) for c in counts],
            },
        )
        keep_steps(await cursor.fetchall(), wanted)
    parents = _pairs(wanted, "items_of")
    if parents:
        cursor = await connection.execute(
            _LOAD_ITEMS_OF, {"workflows": [p[0] for p in parents], "paths": [p[1] for p in parents]}
        )
        keep_steps(await cursor.fetchall(), wanted)
        for workflow, path in parents:
            wanted[workflow][0].children.add(path)


async def _load_calls(connection: Connection, wanted: Mapping[UUID, tuple[Snapshot, Reads]]) -> None:
    calls = [(w, c) for w, c in _pairs(wanted, "calls") if c not in wanted[w][0].calls]
    if (found := await ask_calls(connection, calls)) is not None:
        keep_calls(await found.fetchall(), wanted)
    turns = _pairs(wanted, "turns")
    if turns:
        cursor = await connection.execute(
            _LOAD_TURNS, {"workflows": [t[0] for t in turns], "paths": [t[1] for t in turns]}
        )
        keep_calls(await cursor.fetchall(), wanted)
    repeats = _pairs(wanted, "repeats")
    if repeats:
        cursor = await connection.execute(
            _LOAD_REPEATS,
            {
                "workflows": [r[0] for r in repeats],
                "tools": [r[1][0] for r in repeats],
                "hashes": [r[1][1] for r in repeats],
            },
        )
        keep_calls(await cursor.fetchall(), wanted)


async def _load_conversations(connection: Connection, wanted: Mapping[UUID, tuple[Snapshot, Reads]]) -> None:
    """Whole conversations: seldom, when another model goes on with one."""
    pairs = _pairs(wanted, "conversations")
    if not pairs:
        return
    asked = {"workflows": [p[0] for p in pairs], "paths": [p[1] for p in pairs]}
    for row in await (await connection.execute(_LOAD_CONVERSATIONS, asked)).fetchall():
        wanted[row["workflow_id"]][0].messages.setdefault(row["step"], []).append(Message(**row))


async def _load_open(connection: Connection, wanted: Mapping[UUID, tuple[Snapshot, Reads]]) -> None:
    """What a drain, a step's timeout or an answered approval needs."""
    whole = [w for w, (_, reads) in wanted.items() if reads.everything_open]
    if whole:
        cursor = await connection.execute(_LOAD_OPEN_CALLS, {"workflows": whole, "steps": None})
        keep_calls(await cursor.fetchall(), wanted)
        cursor = await connection.execute(_LOAD_OPEN_STEPS, {"workflows": whole})
        keep_steps(await cursor.fetchall(), wanted)
    for workflow, (_, reads) in wanted.items():
        if reads.open_calls_of:
            paths = sorted(reads.open_calls_of)
            cursor = await connection.execute(_LOAD_OPEN_CALLS, {"workflows": [workflow], "steps": paths})
            keep_calls(await cursor.fetchall(), wanted)
            cursor = await connection.execute(_LOAD_OPEN_STEPS, {"workflows": [workflow]})
            keep_steps(await cursor.fetchall(), wanted)
    approvals = [one for _, one in _pairs(wanted, "approvals")]
    open_in = [w for w, (_, reads) in wanted.items() if reads.everything_open or reads.open_calls_of]
    if approvals or open_in:
        cursor = await connection.execute(
            _LOAD_APPROVALS, {"workflows": list(wanted), "ids": approvals, "open_in": open_in}
        )
        for row in await cursor.fetchall():
            wanted[row["workflow_id"]][0].approvals.setdefault(row["id"], Approval(**row))
    for workflow in whole:
        wanted[workflow][0].complete = True


async def _load_for_operators(connection: Connection, wanted: Mapping[UUID, tuple[Snapshot, Reads]]) -> None:
    """What a saga or a reopening needs: seldom, and then perhaps every step that is no item."""
    top = [w for w, (_, reads) in wanted.items() if reads.top_steps]
    if top:
        keep_steps(await (await connection.execute(_LOAD_TOP_STEPS, {"workflows": top})).fetchall(), wanted)
        for workflow in top:
            wanted[workflow][0].top = True
    begun = [w for w, (_, reads) in wanted.items() if reads.begun_items]
    if begun:
        keep_steps(await (await connection.execute(_LOAD_BEGUN_ITEMS, {"workflows": begun})).fetchall(), wanted)
    for workflow, name in _pairs(wanted, "undos"):
        loaded = wanted[workflow][0].calls.values()
        settled = [c.id for c in loaded if c.undo in (Undo.DONE, Undo.SKIPPED)]
        begun = [c.id for c in loaded if c.undo in (Undo.RUNNING, Undo.FAILED)]
        asked = {"workflow": workflow, "name": name, "settled": settled, "begun": begun, "limit": UNDOS_AT_ONCE}
        found = await (await connection.execute(_LOAD_UNDOS, asked)).fetchall()
        items = sorted({row["step"] for row in found} - wanted[workflow][0].steps.keys() - {name})
        keep_calls(found, wanted)
        if items:
            rows = {"workflows": [workflow] * len(items), "paths": items, "lists": [False] * len(items)}
            keep_steps(await (await connection.execute(_LOAD_STEPS, rows)).fetchall(), wanted)


# Through their dues: a workflow may have had any number of calls, and few of them wait.
_LOAD_WAITING: Final = f"""
SELECT {_CALL_COLUMNS}
FROM dues d JOIN calls c ON c.workflow_id = d.workflow_id AND c.id = d.ref AND c.held_reason = 'budget' {_HISTORY}
WHERE d.workflow_id = %(workflow)s AND d.kind = 'budget' AND d.note = '{WAITS}' AND c.id <> ALL(%(known)s)
ORDER BY c.id LIMIT %(limit)s
FOR NO KEY UPDATE OF c"""


async def _load_waiting(connection: Connection, wanted: Mapping[UUID, tuple[Snapshot, Reads]]) -> None:
    """What waits for room in a budget. Those that the decision knows are as it left them."""
    for workflow, (snapshot, reads) in wanted.items():
        if reads.waiting:
            asked = {"workflow": workflow, "known": list(snapshot.calls), "limit": WAITING_AT_ONCE}
            keep_calls(await (await connection.execute(_LOAD_WAITING, asked)).fetchall(), wanted)


async def _load_linked(connection: Connection, wanted: Mapping[UUID, tuple[Snapshot, Reads]]) -> None:
    """The call that a probe or compensation is about, and the probe or compensation of a call that has one open."""
    missing = [
        (workflow, linked)
        for workflow, (snapshot, _) in wanted.items()
        for linked in {each for call in snapshot.calls.values() for each in _links(call)}
        if linked is not None and linked not in snapshot.calls
    ]
    if (found := await ask_calls(connection, missing)) is not None:
        keep_calls(await found.fetchall(), wanted)


def _links(call: Call) -> tuple[UUID | None, ...]:
    """A compensation has both: the effect it undoes, and the probe that asks about itself."""
    return (call.target if call.kind in _ABOUT_ANOTHER else None, call.probe_id)


_ABOUT_ANOTHER: Final = (CallKind.PROBE, CallKind.COMPENSATION)


def keep_calls(rows: Iterable[dict[str, Any]], wanted: Mapping[UUID, tuple[Snapshot, Reads]]) -> None:
    for row in rows:
        snapshot = wanted[row["workflow_id"]][0]
        if row["id"] in snapshot.calls:
            continue
        history = row.pop("history") or []
        call = Call(**row)
        for found in history:
            ends = [found.pop(name) for name in ("lease_until", "reaped_at", "worker_lost_at")]
            lease_until, reaped_at, lost_at = [None if end is None else _instant(end) for end in ends]
            attempt = _attempt(found)
            if lease_until is not None:
                snapshot.workers[attempt.worker] = Sender(lease_until=lease_until, reaped_at=reaped_at, lost_at=lost_at)
            call.history.append(attempt)
        snapshot.calls[call.id] = call


_ATTEMPT_INSTANTS: Final = ("intended_at", "sent_at", "received_at", "send_deadline", "lost_at", "settled_at")
_ATTEMPT_IDS: Final = ("workflow_id", "call_id", "id", "tenant_id", "worker")


def _attempt(row: dict[str, Any]) -> Attempt:
    """An attempt out of `row_to_json`: ids and instants are text there."""
    for name in _ATTEMPT_INSTANTS:
        if row[name] is not None:
            row[name] = _instant(row[name])
    for name in _ATTEMPT_IDS:
        row[name] = UUID(row[name])
    return Attempt(**row)


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)
