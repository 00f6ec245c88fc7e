"""The aggregate in Postgres: lock it, read what a decision needs, write what it decided. The hot path's three verbs.

    lock(…)    the workflows' rows, FOR NO KEY UPDATE in the order of their ids, and the database's clock
    load(…)    what `Reads` ask for, into snapshots; rows that are there already stay as the decision left them
    apply(…)   one statement that writes a batch of transitions: the only writer of states

All are set-based over many workflows. Rows travel as JSON (`json_to_recordset`), one parameter a table: `json` keeps
the order of keys where it is meaning. Everything runs on a driver connection inside the engine's transaction.
"""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import psycopg
from sqlalchemy import Column, Table
from sqlalchemy.dialects import postgresql

from app.domain import canonical
from app.domain.aggregate import Approval, Attempt, Call, Sender, Snapshot, StepRow, Workflow
from app.domain.facts import Reads
from app.domain.transition import Transition
from app.store import tables

Connection = psycopg.AsyncConnection[dict[str, Any]]

_DIALECT: Final = postgresql.dialect()


def _type(column: Column[Any]) -> str:
    return str(column.type.compile(dialect=_DIALECT))


def _recordset(table: Table, names: Sequence[str], parameter: str, *, base64_columns: Sequence[str] = ()) -> str:
    """`json_to_recordset(%(p)s) AS x(id uuid, …)` for those columns; bytes travel as base 64 text."""
    typed = ", ".join(f'"{n}" {"text" if n in base64_columns else _type(table.c[n])}' for n in names)
    return f"json_to_recordset(%({parameter})s::json) AS x({typed})"


def _names(row: type, *, but: Iterable[str] = ()) -> tuple[str, ...]:
    return tuple(f.name for f in fields(row) if f.name not in set(but))


_WORKFLOW: Final = _names(Workflow)
_STEP: Final = _names(StepRow)
_CALL: Final = _names(Call, but={"history"})
_ATTEMPT: Final = _names(Attempt)
_APPROVAL: Final = _names(Approval)


def _listed(alias: str, names: Sequence[str]) -> str:
    return ", ".join(f'{alias}."{name}"' for name in names)


# --- lock ----------------------------------------------------------------------------------------------------------

_LOCK: Final = f"""
SELECT {_listed("w", _WORKFLOW)}, clock_timestamp() AS now
FROM workflows w WHERE w.id = ANY(%(ids)s) ORDER BY w.id FOR NO KEY UPDATE"""


async def lock(
    connection: Connection, ids: Sequence[UUID], *, skip_locked: bool = False
) -> tuple[dict[UUID, Workflow], datetime | None]:
    """Lock the workflows, sorted by id. With `skip_locked` those that somebody else holds are left out."""
    sql = _LOCK + (" SKIP LOCKED" if skip_locked else "")
    cursor = await connection.execute(sql, {"ids": sorted(ids)})
    found, now = {}, None
    for row in await cursor.fetchall():
        now = row.pop("now")
        found[row["id"]] = Workflow(**row)
    return found, now


# --- load ----------------------------------------------------------------------------------------------------------

_STEP_COLUMNS: Final = ", ".join(
    f'CASE WHEN r.list THEN s."{n}" END AS "{n}"' if n == "input" else f's."{n}"' for n in _STEP
)
"""A step's input may be large and no decision needs it, but the list of items of a for_each, once a window."""

_LOAD_STEPS: Final = f"""
SELECT {_STEP_COLUMNS}
FROM unnest(%(workflows)s::uuid[], %(paths)s::text[], %(lists)s::bool[]) AS r(workflow_id, path, list)
JOIN steps s ON s.workflow_id = r.workflow_id AND s.path = r.path"""

_LOAD_NEXT_ITEMS: Final = f"""
SELECT {_STEP_COLUMNS}
FROM (SELECT r.workflow_id, r.path, r.n, false AS list
      FROM unnest(%(workflows)s::uuid[], %(paths)s::text[], %(counts)s::int[]) AS r(workflow_id, path, n)) r
JOIN steps p ON p.workflow_id = r.workflow_id AND p.path = r.path
CROSS JOIN LATERAL generate_series(coalesce(p.items_started, 0), coalesce(p.items_started, 0) + r.n - 1) AS g(i)
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
    SELECT a.*, w.lease_until, w.reaped_at, w.lost_at AS worker_lost_at FROM attempts a LEFT JOIN workers w ON w.id = a.worker
    WHERE a.workflow_id = c.workflow_id AND a.call_id = c.id) a
) h ON true"""

_CALL_COLUMNS: Final = f"{_listed('c', _CALL)}, h.history"

_LOAD_CALLS: Final = f"""
SELECT {_CALL_COLUMNS}
FROM unnest(%(workflows)s::uuid[], %(calls)s::uuid[]) AS r(workflow_id, id)
JOIN calls c ON c.workflow_id = r.workflow_id AND c.id = r.id {_HISTORY}
FOR NO KEY UPDATE OF c"""

_LOAD_TURNS: Final = f"""
SELECT {_CALL_COLUMNS}
FROM unnest(%(workflows)s::uuid[], %(paths)s::text[]) AS r(workflow_id, path)
JOIN steps s ON s.workflow_id = r.workflow_id AND s.path = r.path
JOIN calls c ON c.workflow_id = s.workflow_id AND c.step = s.path AND c.turn = s.turn {_HISTORY}
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

_LOAD_APPROVALS: Final = f"""
SELECT {_listed("a", _APPROVAL)}
FROM approvals a WHERE a.workflow_id = ANY(%(workflows)s)
  AND (a.id = ANY(%(ids)s) OR (a.workflow_id = ANY(%(open_in)s) AND a.status = 'open'))"""


async def load(connection: Connection, wanted: Mapping[UUID, tuple[Snapshot, Reads]]) -> None:
    """Read for many workflows at once. What a snapshot already holds is kept: the decision may have changed it."""
    steps = await _ask_steps(connection, wanted)
    await _load_items(connection, wanted)
    await _load_calls(connection, wanted)
    await _load_open(connection, wanted)
    if steps is not None:  # last, so that in a pipeline they come with the calls, in one round trip
        _keep_steps(await steps.fetchall(), wanted)


def _pairs(wanted: Mapping[UUID, tuple[Snapshot, Reads]], name: str) -> list[tuple[UUID, Any]]:
    return [(workflow, one) for workflow, (_, reads) in wanted.items() for one in sorted(getattr(reads, name), key=str)]


async def _ask_steps(
    connection: Connection, wanted: Mapping[UUID, tuple[Snapshot, Reads]]
) -> psycopg.AsyncCursor[dict[str, Any]] | None:
    pairs = []
    for workflow, (snapshot, reads) in wanted.items():
        missing = (reads.steps - snapshot.steps.keys()) | reads.lists
        pairs += [(workflow, path, path in reads.lists) for path in sorted(missing)]
    if not pairs:
        return None
    return await connection.execute(
        _LOAD_STEPS,
        {"workflows": [p[0] for p in pairs], "paths": [p[1] for p in pairs], "lists": [p[2] for p in pairs]},
    )


def _keep_steps(rows: Iterable[dict[str, Any]], wanted: Mapping[UUID, tuple[Snapshot, Reads]]) -> None:
    for row in rows:
        snapshot = wanted[row["workflow_id"]][0]
        there = snapshot.steps.get(row["path"])
        if there is None:
            snapshot.steps[row["path"]] = StepRow(**row)
        elif row["input"] is not None and there.input is None:
            there.input = row["input"]


async def _load_items(connection: Connection, wanted: Mapping[UUID, tuple[Snapshot, Reads]]) -> None:
    counts = [(w, path, n) for w, (_, reads) in wanted.items() for path, n in sorted(reads.next_items.items())]
    if counts:
        cursor = await connection.execute(
            _LOAD_NEXT_ITEMS,
            {"workflows": [c[0] for c in counts], "paths": [c[1] for c in counts], "counts": [c[2] for c in counts]},
        )
        _keep_steps(await cursor.fetchall(), wanted)
    parents = _pairs(wanted, "items_of")
    if parents:
        cursor = await connection.execute(
            _LOAD_ITEMS_OF, {"workflows": [p[0] for p in parents], "paths": [p[1] for p in parents]}
        )
        _keep_steps(await cursor.fetchall(), wanted)
        for workflow, path in parents:
            wanted[workflow][0].children.add(path)


async def _load_calls(connection: Connection, wanted: Mapping[UUID, tuple[Snapshot, Reads]]) -> None:
    calls = [(w, c) for w, c in _pairs(wanted, "calls") if c not in wanted[w][0].calls]
    if calls:
        cursor = await connection.execute(
            _LOAD_CALLS, {"workflows": [c[0] for c in calls], "calls": [c[1] for c in calls]}
        )
        _keep_calls(await cursor.fetchall(), wanted)
    turns = _pairs(wanted, "turns")
    if turns:
        cursor = await connection.execute(
            _LOAD_TURNS, {"workflows": [t[0] for t in turns], "paths": [t[1] for t in turns]}
        )
        _keep_calls(await cursor.fetchall(), wanted)
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
        _keep_calls(await cursor.fetchall(), wanted)


async def _load_open(connection: Connection, wanted: Mapping[UUID, tuple[Snapshot, Reads]]) -> None:
    """What a drain, a step's timeout or an answered approval needs."""
    whole = [w for w, (_, reads) in wanted.items() if reads.everything_open]
    if whole:
        cursor = await connection.execute(_LOAD_OPEN_CALLS, {"workflows": whole, "steps": None})
        _keep_calls(await cursor.fetchall(), wanted)
        cursor = await connection.execute(_LOAD_OPEN_STEPS, {"workflows": whole})
        _keep_steps(await cursor.fetchall(), wanted)
    for workflow, (_, reads) in wanted.items():
        if reads.open_calls_of:
            paths = sorted(reads.open_calls_of)
            cursor = await connection.execute(_LOAD_OPEN_CALLS, {"workflows": [workflow], "steps": paths})
            _keep_calls(await cursor.fetchall(), wanted)
            cursor = await connection.execute(_LOAD_OPEN_STEPS, {"workflows": [workflow]})
            _keep_steps(await cursor.fetchall(), wanted)
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


def _keep_calls(rows: Iterable[dict[str, Any]], wanted: Mapping[UUID, tuple[Snapshot, Reads]]) -> None:
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


# --- apply ---------------------------------------------------------------------------------------------------------

_WORKFLOW_FIXED: Final = {
    "id", "tenant_id", "name", "version", "definition_digest", "plan_digest", "engine_version", "idempotency_key",
    "input", "labels", "webhook", "traceparent", "created_at", "deadline_at",
}  # fmt: skip
_STEP_FIXED: Final = {
    "workflow_id", "path", "tenant_id", "name", "position", "parent", "item_index", "item", "kind",
}  # fmt: skip
_STEP_KEPT: Final = {"input", "output", "title"}
"""Written once or seldom, and perhaps large: NULL in the change keeps the row's value, so that it is not written again."""
_CALL_CHANGING: Final = (
    "state", "held_reason", "attempt_id", "lost_in_a_row", "tries", "key", "generation", "key_deadline", "recovery",
    "result", "failure", "not_before", "doubt_since", "resolved", "undo", "ended_at",
)  # fmt: skip
_ATTEMPT_CHANGING: Final = (
    "sent_at", "received_at", "outcome", "lost_at", "failure", "status_code", "evidence", "media_type", "truncated",
    "request_id", "usage", "cost_microusd", "settled_at",
)  # fmt: skip
_APPROVAL_CHANGING: Final = ("status", "decision", "values", "comment", "by", "decided_at")
_EVENT: Final = (
    "workflow_id", "seq", "id", "tenant_id", "type", "step", "call_id", "attempt_id", "from_state", "to_state", "data",
    "at",
)  # fmt: skip
_DELIVERY: Final = (
    "workflow_id", "id", "tenant_id", "stream", "url", "event_id", "seq", "type", "state", "created_at",
)  # fmt: skip
_DUE: Final = (
    "kind", "ref", "tenant_id", "workflow_id", "note", "lane", "priority", "due_at", "ring_at", "worker",
)  # fmt: skip
_MESSAGE: Final = ("workflow_id", "step", "conversation", "ordinal", "tenant_id", "role", "turn", "body")
_PAYLOAD: Final = ("workflow_id", "sha256", "tenant_id", "body", "size")


def _sets(names: Iterable[str], alias: str, kept: Iterable[str] = ()) -> str:
    return ", ".join(
        f'"{n}" = coalesce(x."{n}", {alias}."{n}")' if n in set(kept) else f'"{n}" = x."{n}"' for n in names
    )


def _insert(table: Table, names: Sequence[str], parameter: str, tail: str = "") -> str:
    columns = ", ".join(f'"{n}"' for n in names)
    return f"INSERT INTO {table.name} ({columns}) SELECT {columns} FROM {_recordset(table, names, parameter)} {tail}"


def _insert_bytes(table: Table, names: Sequence[str], parameter: str, tail: str = "") -> str:
    columns = ", ".join(f'"{n}"' for n in names)
    values = ", ".join("decode(x.body, 'base64')" if n == "body" else f'x."{n}"' for n in names)
    source = _recordset(table, names, parameter, base64_columns=("body",))
    return f"INSERT INTO {table.name} ({columns}) SELECT {values} FROM {source} {tail}"


_WORKFLOW_CHANGING: Final = tuple(n for n in _WORKFLOW if n not in _WORKFLOW_FIXED)
_STEP_CHANGING: Final = tuple(n for n in _STEP if n not in _STEP_FIXED)

_STATEMENTS: Final[Mapping[str, str]] = {
    "accepted": _insert(tables.workflows, _WORKFLOW, "rows"),
    "workflows": f"UPDATE workflows w SET {_sets(_WORKFLOW_CHANGING, 'w')} "
    f"FROM {_recordset(tables.workflows, ('id', *_WORKFLOW_CHANGING), 'rows')} WHERE w.id = x.id",
    "new_steps": _insert(tables.steps, _STEP, "rows"),
    "steps": f"UPDATE steps s SET {_sets(_STEP_CHANGING, 's', _STEP_KEPT)} "
    f"FROM {_recordset(tables.steps, ('workflow_id', 'path', *_STEP_CHANGING), 'rows')} "
    "WHERE s.workflow_id = x.workflow_id AND s.path = x.path",
    "messages": _insert_bytes(tables.messages, _MESSAGE, "rows"),
    "new_calls": _insert(tables.calls, _CALL, "rows"),
    "calls": f"UPDATE calls c SET {_sets(_CALL_CHANGING, 'c')} "
    f"FROM {_recordset(tables.calls, ('workflow_id', 'id', *_CALL_CHANGING), 'rows')} "
    "WHERE c.workflow_id = x.workflow_id AND c.id = x.id",
    "attempts": f"UPDATE attempts a SET {_sets(_ATTEMPT_CHANGING, 'a')} "
    f"FROM {_recordset(tables.attempts, ('workflow_id', 'call_id', 'id', *_ATTEMPT_CHANGING), 'rows')} "
    "WHERE a.workflow_id = x.workflow_id AND a.call_id = x.call_id AND a.id = x.id "
    "AND (a.outcome IS NULL OR a.outcome = x.outcome)",
    "payloads": _insert_bytes(tables.payloads, _PAYLOAD, "rows", "ON CONFLICT (workflow_id, sha256) DO NOTHING"),
    "new_approvals": _insert(tables.approvals, _APPROVAL, "rows"),
    "approvals": f"UPDATE approvals a SET {_sets(_APPROVAL_CHANGING, 'a')} "
    f"FROM {_recordset(tables.approvals, ('workflow_id', 'id', *_APPROVAL_CHANGING), 'rows')} "
    "WHERE a.workflow_id = x.workflow_id AND a.id = x.id",
    "events": _insert(tables.events, _EVENT, "rows"),
    "deliveries": _insert(tables.deliveries, _DELIVERY, "rows"),
    "dues_gone": "DELETE FROM dues d USING json_to_recordset(%(rows)s::json) AS x(kind text, ref uuid) "
    "WHERE d.kind = x.kind AND d.ref = x.ref",
    # A stream that waits for its receiver keeps its own time: what is new queues behind it. DO UPDATE and not DO
    # NOTHING, because only an update waits for a transaction that is just deleting that due.
    "dues": _insert(
        tables.dues,
        _DUE,
        "rows",
        "ON CONFLICT (kind, ref) DO UPDATE SET "
        "due_at = CASE WHEN dues.kind = 'delivery' THEN dues.due_at ELSE excluded.due_at END, "
        "ring_at = CASE WHEN dues.kind = 'delivery' THEN dues.ring_at ELSE excluded.ring_at END, "
        "worker = excluded.worker, rung = CASE WHEN excluded.kind = 'attempt' THEN 1 ELSE 0 END",
    ),
}
_CANCEL_STEPS: Final = """
UPDATE steps SET state = 'cancelled', ended_at = %(now)s
WHERE workflow_id = %(workflow)s AND state = ANY(%(states)s)"""
_END_DUES: Final = "DELETE FROM dues WHERE workflow_id = ANY(%(workflows)s) AND kind <> 'delivery'"
_RELEASE_KEYS: Final = """
UPDATE effect_keys SET released_at = clock_timestamp(), generation = generation + 1
WHERE workflow_id = ANY(%(workflows)s) AND call_id = ANY(%(calls)s) AND released_at IS NULL"""
_OWN_KEYS: Final = """
UPDATE effect_keys k SET call_id = x.call_id
FROM json_to_recordset(%(rows)s::json) AS x(workflow_id uuid, step text, call_id uuid)
WHERE k.workflow_id = x.workflow_id AND k.step = x.step AND k.call_id IS NULL AND k.released_at IS NULL"""


@functools.lru_cache(maxsize=256)
def _together(names: tuple[str, ...]) -> str:
    """These statements as one. Each message to the driver costs more than what it does (measured: a fifth of a step).

    Sound because no two parts write the same row and none reads what another writes; foreign keys are checked at the
    end, when all parts are written. The parameter of each part has its name.
    """
    parts = (f"_{name} AS ({_STATEMENTS[name].replace('%(rows)s', f'%({name})s')})" for name in names)
    return f"WITH {', '.join(parts)} SELECT"


async def apply(connection: Connection, transitions: Sequence[Transition]) -> None:
    """Write what was decided: the only writer of states. The workflows' rows are locked (or new)."""
    rows = {name: _json(found) for name, found in _rows(transitions).items() if found}
    if rows:
        await connection.execute(_together(tuple(rows)), rows)
    for transition in transitions:
        if transition.cancel_steps is not None:
            states = (
                ["pending", "ready"]
                if transition.cancel_steps == "unstarted"
                else ["pending", "ready", "running", "waiting"]
            )
            await connection.execute(
                _CANCEL_STEPS,
                {"workflow": transition.workflow.id, "now": transition.workflow.updated_at, "states": states},
            )
    await _apply_keys(connection, transitions)
    ended = [t.workflow.id for t in transitions if t.end_dues]
    if ended:
        await connection.execute(_END_DUES, {"workflows": ended})


async def _apply_keys(connection: Connection, transitions: Sequence[Transition]) -> None:
    owned = [
        {"workflow_id": call.workflow_id, "step": call.step, "call_id": call.id}
        for t in transitions
        for call in t.new_calls
        if call.business_key
    ]
    if owned:
        await connection.execute(_OWN_KEYS, {"rows": _json(owned)})
    released = [call for t in transitions for call in t.keys_released if t.workflow and _has_key(t, call)]
    if released:
        workflows = sorted({t.workflow.id for t in transitions if t.keys_released})
        await connection.execute(_RELEASE_KEYS, {"workflows": workflows, "calls": released})


def _has_key(transition: Transition, call_id: UUID) -> bool:
    call = transition.calls.get(call_id)
    return call is not None and call.business_key


def _rows(transitions: Sequence[Transition]) -> dict[str, list[dict[str, Any]]]:
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in _STATEMENTS}
    for t in transitions:
        tenant, workflow = t.workflow.tenant_id, t.workflow.id
        if t.accepted:
            rows["accepted"].append(_row(t.workflow, _WORKFLOW))
        else:
            rows["workflows"].append(_row(t.workflow, ("id", *_WORKFLOW_CHANGING)))
        new_steps = {step.path for step in t.new_steps}
        rows["new_steps"] += [_row(step, _STEP) for step in t.new_steps]
        rows["steps"] += [
            _row(step, ("workflow_id", "path", *_STEP_CHANGING))
            for step in t.steps.values()
            if step.path not in new_steps
        ]
        new_calls = {call.id for call in t.new_calls}
        rows["new_calls"] += [_row(call, _CALL) for call in t.new_calls]
        rows["calls"] += [
            _row(call, ("workflow_id", "id", *_CALL_CHANGING)) for call in t.calls.values() if call.id not in new_calls
        ]
        rows["attempts"] += [_row(a, ("workflow_id", "call_id", "id", *_ATTEMPT_CHANGING)) for a in t.attempts.values()]
        rows["new_approvals"] += [_row(a, _APPROVAL) for a in t.new_approvals]
        fresh = {a.id for a in t.new_approvals}
        rows["approvals"] += [
            _row(a, ("workflow_id", "id", *_APPROVAL_CHANGING)) for a in t.approvals.values() if a.id not in fresh
        ]
        rows["messages"] += [{**_row(m, _MESSAGE), "body": _base64(m.body)} for m in t.messages]
        for evidence in t.evidence:
            rows["payloads"].append(
                {
                    "workflow_id": workflow,
                    "sha256": canonical.sha256_hex(evidence.body),
                    "tenant_id": tenant,
                    "body": _base64(evidence.body),
                    "size": len(evidence.body),
                }
            )
        rows["events"] += [
            {
                "workflow_id": workflow, "seq": e.seq, "id": e.id, "tenant_id": tenant, "type": e.type, "step": e.step,
                "call_id": e.call_id, "attempt_id": e.attempt_id, "from_state": e.from_state, "to_state": e.to_state,
                "data": e.data, "at": e.at,
            }
            for e in t.events
        ]  # fmt: skip
        rows["deliveries"] += [
            {
                "workflow_id": workflow, "id": d.id, "tenant_id": tenant, "stream": d.stream, "url": d.url,
                "event_id": d.event_id, "seq": d.seq, "type": d.type, "state": "open", "created_at": t.workflow.updated_at,
            }
            for d in t.deliveries
        ]  # fmt: skip
        for (kind, ref), due in t.dues.items():
            if due is None:
                rows["dues_gone"].append({"kind": kind, "ref": ref})
            elif not (t.end_dues and kind != "delivery"):
                rows["dues"].append(
                    {
                        "kind": due.kind, "ref": due.ref, "tenant_id": tenant, "workflow_id": workflow,
                        "note": due.note, "lane": due.lane, "priority": due.priority, "due_at": due.due_at,
                        "ring_at": due.ring_at, "worker": due.worker,
                    }
                )  # fmt: skip
    return rows


def _row(row: object, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(row, name) for name in names}


def _base64(body: bytes) -> str:
    return base64.b64encode(body).decode("ascii")


def _json(rows: Sequence[Mapping[str, Any]]) -> str:
    return json.dumps(rows, default=_default, separators=(",", ":"))


def _default(value: object) -> str:
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is no JSON value")
