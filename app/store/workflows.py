"""What was decided, written: `apply`, the only writer of states.

One statement writes a batch of transitions over many workflows. Rows travel as JSON (`json_to_recordset`), one
parameter a table: `json` keeps the order of keys where it is meaning. The workflows' rows are locked, or new
(`app/store/locking.py`); everything runs on a driver connection inside the engine's transaction.
"""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import psycopg
from pydantic_core import to_json
from sqlalchemy import Table

from app.domain import canonical
from app.domain.states import DueKind
from app.domain.transition import Transition
from app.store import columns, numbered, plans, tables

Connection = psycopg.AsyncConnection[dict[str, Any]]

_WORKFLOW_FIXED: Final = {
    "id", "tenant_id", "name", "version", "definition_digest", "plan_digest", "engine_version", "idempotency_key",
    "submitted_by", "input", "labels", "webhook", "traceparent", "created_at", "budgeted",
}  # fmt: skip
_STEP_FIXED: Final = {
    "workflow_id", "path", "tenant_id", "name", "position", "parent", "item_index", "item", "kind",
}  # fmt: skip
_STEP_KEPT: Final = {"input", "output", "title"}
"""Written once or seldom, and perhaps large: NULL in the change keeps the row's value, not written again."""
_CALL_CHANGING: Final = (
    "state", "held_reason", "attempt_id", "lost_in_a_row", "tries", "key", "generation", "key_deadline", "recovery",
    "result", "failure", "not_before", "doubt_since", "resolved", "undo", "compensation", "probe_id", "target",
    "budget", "ended_at",
)  # fmt: skip
_ATTEMPT_CHANGING: Final = (
    "sent_at", "received_at", "outcome", "lost_at", "failure", "status_code", "evidence", "media_type", "truncated",
    "request_id", "usage", "cost_microusd", "reserved_microusd", "reserved_tokens", "settled_at",
)  # fmt: skip
_APPROVAL_CHANGING: Final = ("status", "decision", "values", "comment", "by", "decided_at", "arguments_sha256")
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
    into = ", ".join(f'"{n}"' for n in names)
    return f"INSERT INTO {table.name} ({into}) SELECT {into} FROM {columns.recordset(table, names, parameter)} {tail}"


def _insert_bytes(table: Table, names: Sequence[str], parameter: str, tail: str = "") -> str:
    into = ", ".join(f'"{n}"' for n in names)
    values = ", ".join("decode(x.body, 'base64')" if n == "body" else f'x."{n}"' for n in names)
    source = columns.recordset(table, names, parameter, base64_columns=("body",))
    return f"INSERT INTO {table.name} ({into}) SELECT {values} FROM {source} {tail}"


_WORKFLOW_CHANGING: Final = tuple(n for n in columns.WORKFLOW if n not in _WORKFLOW_FIXED)
_STEP_CHANGING: Final = tuple(n for n in columns.STEP if n not in _STEP_FIXED)
_ACCOUNT_CHANGING: Final = tuple(n for n in columns.ACCOUNT if n not in ("workflow_id", "scope", "tenant_id"))

_STATEMENTS: Final[Mapping[str, str]] = {
    "accepted": _insert(tables.workflows, columns.WORKFLOW, "rows"),
    "workflows": f"UPDATE workflows w SET {_sets(_WORKFLOW_CHANGING, 'w')} "
    f"FROM {columns.recordset(tables.workflows, ('id', *_WORKFLOW_CHANGING), 'rows')} WHERE w.id = x.id",
    "new_steps": _insert(tables.steps, columns.STEP, "rows"),
    "steps": f"UPDATE steps s SET {_sets(_STEP_CHANGING, 's', _STEP_KEPT)} "
    f"FROM {columns.recordset(tables.steps, ('workflow_id', 'path', *_STEP_CHANGING), 'rows')} "
    "WHERE s.workflow_id = x.workflow_id AND s.path = x.path",
    "messages": _insert_bytes(tables.messages, _MESSAGE, "rows"),
    "new_calls": _insert(tables.calls, columns.CALL, "rows"),
    "calls": f"UPDATE calls c SET {_sets(_CALL_CHANGING, 'c')} "
    f"FROM {columns.recordset(tables.calls, ('workflow_id', 'id', *_CALL_CHANGING), 'rows')} "
    "WHERE c.workflow_id = x.workflow_id AND c.id = x.id",
    "attempts": f"UPDATE attempts a SET {_sets(_ATTEMPT_CHANGING, 'a')} "
    f"FROM {columns.recordset(tables.attempts, ('workflow_id', 'call_id', 'id', *_ATTEMPT_CHANGING), 'rows')} "
    "WHERE a.workflow_id = x.workflow_id AND a.call_id = x.call_id AND a.id = x.id "
    "AND (a.outcome IS NULL OR a.outcome = x.outcome)",
    "payloads": _insert_bytes(tables.payloads, _PAYLOAD, "rows", "ON CONFLICT (workflow_id, sha256) DO NOTHING"),
    "new_approvals": _insert(tables.approvals, columns.APPROVAL, "rows"),
    "approvals": f"UPDATE approvals a SET {_sets(_APPROVAL_CHANGING, 'a')} "
    f"FROM {columns.recordset(tables.approvals, ('workflow_id', 'id', *_APPROVAL_CHANGING), 'rows')} "
    "WHERE a.workflow_id = x.workflow_id AND a.id = x.id",
    "new_accounts": _insert(tables.budgets, columns.ACCOUNT, "rows"),
    "accounts": f"UPDATE budgets b SET {_sets(_ACCOUNT_CHANGING, 'b')} "
    f"FROM {columns.recordset(tables.budgets, ('workflow_id', 'scope', *_ACCOUNT_CHANGING), 'rows')} "
    "WHERE b.workflow_id = x.workflow_id AND b.scope = x.scope",
    "events": _insert(tables.events, _EVENT, "rows"),
    "audits": _insert(tables.audit, ("id", "tenant_id", "actor", "action", "object", "data"), "rows"),
    "deliveries": _insert(tables.deliveries, _DELIVERY, "rows"),
    "dues_gone": "DELETE FROM dues d USING json_to_recordset(%(rows)s::json) AS x(kind text, ref uuid) "
    "WHERE d.kind = x.kind AND d.ref = x.ref",
    # Of a call that is new: there cannot be one yet, and a plain insert writes less than one that looks.
    "new_dues": _insert(tables.dues, _DUE, "rows"),
    # A stream that waits for its receiver keeps its own time: what is new queues behind it. DO UPDATE and not DO
    # NOTHING, because only an update waits for a transaction that is just deleting that due.
    "dues": _insert(
        tables.dues,
        _DUE,
        "rows",
        "ON CONFLICT (kind, ref) DO UPDATE SET "
        "due_at = CASE WHEN dues.kind = 'delivery' THEN dues.due_at ELSE excluded.due_at END, "
        "ring_at = CASE WHEN dues.kind = 'delivery' THEN dues.ring_at ELSE excluded.ring_at END, "
        "note = coalesce(excluded.note, CASE WHEN dues.kind <> 'call' THEN dues.note END), "
        "worker = excluded.worker, rung = CASE WHEN excluded.kind = 'attempt' THEN 1 ELSE 0 END",
    ),
}
# Of a call that was held and of which nothing was ever sent: its answer is to be shorter (`app/domain/budgets.py`). By
# itself, because one statement cannot write a row twice, and seldom.
_REQUEST: Final = """
UPDATE calls SET request = %(request)s::json, args_sha256 = %(sha256)s
WHERE workflow_id = %(workflow)s AND id = %(id)s AND attempts = 0"""
_CANCEL_STEPS: Final = """
UPDATE steps SET state = 'cancelled', ended_at = %(now)s
WHERE workflow_id = %(workflow)s AND state = ANY(%(states)s)"""
_CANCEL_ITEMS: Final = """
UPDATE steps SET state = 'cancelled', ended_at = %(now)s
WHERE workflow_id = %(workflow)s AND parent = ANY(%(parents)s) AND state = 'pending'"""
_END_DUES: Final = "DELETE FROM dues WHERE workflow_id = ANY(%(workflows)s) AND kind <> 'delivery'"
_RELEASE_KEYS: Final = """
UPDATE effect_keys k SET released_at = clock_timestamp(), generation = greatest(k.generation, c.generation) + 1
FROM calls c
WHERE c.workflow_id = ANY(%(workflows)s) AND c.id = ANY(%(calls)s)
  AND k.workflow_id = c.workflow_id AND k.call_id = c.id AND k.released_at IS NULL"""
_PASS_KEYS: Final = """
UPDATE effect_keys k SET call_id = c.id, args_sha256 = c.args_sha256
FROM unnest(%(old)s::uuid[], %(new)s::uuid[]) AS x(old, new) JOIN calls c ON c.id = x.new
WHERE k.workflow_id = c.workflow_id AND k.call_id = x.old AND k.released_at IS NULL"""
# Who attaches to a call has its key's row locked until it is committed: locked here first, it is seen by what follows.
# In the order in which keys are asked for (`app/engine/advance.py`), so that two batches wait one way.
_LOCK_KEYS: Final = """
SELECT FROM effect_keys WHERE workflow_id = ANY(%(workflows)s) AND call_id = ANY(%(calls)s)
ORDER BY tool COLLATE "C", key COLLATE "C" FOR UPDATE"""
_TELL_ATTACHED: Final = """
UPDATE dues d SET due_at = clock_timestamp(), ring_at = clock_timestamp(), rung = 0
FROM calls c WHERE c.target = ANY(%(calls)s) AND c.state = 'held' AND d.kind = 'attached' AND d.ref = c.id"""
_REOPEN_ITEMS: Final = """
UPDATE steps SET state = 'pending', ended_at = NULL
WHERE workflow_id = %(workflow)s AND parent = ANY(%(parents)s) AND state = 'cancelled' AND started_at IS NULL"""


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
        await numbered.execute(connection, _together(tuple(rows)), rows)
    for transition in transitions:
        for call in transition.requests:
            rewritten = {"workflow": call.workflow_id, "id": call.id, "sha256": call.args_sha256}
            await connection.execute(_REQUEST, {**rewritten, "request": json.dumps(call.request)})
        if transition.reopen_items:  # first: what is reopened may fail again in the same decision
            reopened = {"workflow": transition.workflow.id, "parents": transition.reopen_items}
            await connection.execute(_REOPEN_ITEMS, reopened)
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
        if transition.cancel_items:
            await connection.execute(
                _CANCEL_ITEMS,
                {
                    "workflow": transition.workflow.id,
                    "now": transition.workflow.updated_at,
                    "parents": transition.cancel_items,
                },
            )
    for transition in transitions:
        if transition.plan_body is not None:
            await _change_plan(connection, transition)
    await _apply_keys(connection, transitions)
    ended = [t.workflow.id for t in transitions if t.end_dues]
    if ended:
        await connection.execute(_END_DUES, {"workflows": ended})


async def _change_plan(connection: Connection, transition: Transition) -> None:
    """Once for each MCP server that a definition names without its list."""
    workflow = transition.workflow
    await plans.put_plan(connection, workflow.tenant_id, workflow.plan_digest, transition.plan_body)
    changed = {"workflow": workflow.id, "plan": workflow.plan_digest}
    await connection.execute("UPDATE workflows SET plan_digest = %(plan)s WHERE id = %(workflow)s", changed)


async def _apply_keys(connection: Connection, transitions: Sequence[Transition]) -> None:
    """Business keys: passed on, released, and whoever is attached to their owners told."""
    passed = [pair for t in transitions for pair in t.keys_passed]
    if passed:
        await connection.execute(_PASS_KEYS, {"old": [old for old, _ in passed], "new": [new for _, new in passed]})
    ended = [call for t in transitions for call in (*t.owners_ended, *t.keys_released) if _has_key(t, call)]
    if ended:
        workflows = sorted({t.workflow.id for t in transitions})
        await connection.execute(_LOCK_KEYS, {"workflows": workflows, "calls": ended})
    released = [call for t in transitions for call in t.keys_released if t.workflow and _has_key(t, call)]
    if released:
        workflows = sorted({t.workflow.id for t in transitions if t.keys_released})
        await connection.execute(_RELEASE_KEYS, {"workflows": workflows, "calls": released})
    if ended:
        await connection.execute(_TELL_ATTACHED, {"calls": ended})


def _has_key(transition: Transition, call_id: UUID) -> bool:
    call = transition.calls.get(call_id)
    return call is not None and call.business_key


def _rows(transitions: Sequence[Transition]) -> dict[str, list[dict[str, Any]]]:
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in _STATEMENTS}
    for t in transitions:
        tenant, workflow = t.workflow.tenant_id, t.workflow.id
        if t.accepted:
            rows["accepted"].append(_row(t.workflow, columns.WORKFLOW))
        else:
            rows["workflows"].append(_row(t.workflow, ("id", *_WORKFLOW_CHANGING)))
        new_steps = {step.path for step in t.new_steps}
        rows["new_steps"] += [_row(step, columns.STEP) for step in t.new_steps]
        rows["steps"] += [
            _row(step, ("workflow_id", "path", *_STEP_CHANGING))
            for step in t.steps.values()
            if step.path not in new_steps
        ]
        new_calls = {call.id for call in t.new_calls}
        rows["new_calls"] += [_row(call, columns.CALL) for call in t.new_calls]
        rows["calls"] += [
            _row(call, ("workflow_id", "id", *_CALL_CHANGING)) for call in t.calls.values() if call.id not in new_calls
        ]
        rows["attempts"] += [_row(a, ("workflow_id", "call_id", "id", *_ATTEMPT_CHANGING)) for a in t.attempts.values()]
        rows["new_approvals"] += [_row(a, columns.APPROVAL) for a in t.new_approvals]
        fresh = {a.id for a in t.new_approvals}
        rows["approvals"] += [
            _row(a, ("workflow_id", "id", *_APPROVAL_CHANGING)) for a in t.approvals.values() if a.id not in fresh
        ]
        rows["new_accounts"] += [_row(a, columns.ACCOUNT) for a in t.new_accounts]
        opened = {a.scope for a in t.new_accounts}
        rows["accounts"] += [
            _row(a, ("workflow_id", "scope", *_ACCOUNT_CHANGING)) for a in t.accounts.values() if a.scope not in opened
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
        rows["audits"] += [
            {"id": a.id, "tenant_id": tenant, "actor": a.actor, "action": a.action, "object": a.object, "data": a.data}
            for a in t.audits
        ]
        rows["deliveries"] += [
            {
                "workflow_id": workflow, "id": d.id, "tenant_id": tenant, "stream": d.stream, "url": d.url,
                "event_id": d.event_id, "seq": d.seq, "type": d.type, "state": "open",
                "created_at": t.workflow.updated_at,
            }
            for d in t.deliveries
        ]  # fmt: skip
        for (kind, ref), due in t.dues.items():
            if due is None:
                rows["dues_gone"].append({"kind": kind, "ref": ref})
            elif not (t.end_dues and kind != "delivery"):
                rows["new_dues" if kind == DueKind.CALL and ref in new_calls else "dues"].append(
                    {
                        "kind": due.kind, "ref": due.ref, "tenant_id": tenant, "workflow_id": workflow,
                        "note": due.note, "lane": due.lane, "priority": due.priority, "due_at": due.due_at,
                        "ring_at": due.ring_at, "worker": due.worker,
                    }
                )  # fmt: skip
    return rows


def _row(row: object, names: Sequence[str]) -> dict[str, Any]:
    """What is empty is not written, which is half of the columns: `json_to_recordset` makes NULL of it, too."""
    return {name: value for name in names if (value := getattr(row, name)) is not None}


def _base64(body: bytes) -> str:
    return base64.b64encode(body).decode("ascii")


def _json(rows: Sequence[Mapping[str, Any]]) -> str:
    """As `json.dumps` with UUIDs and instants would (measured: seven times as fast; a tenth of a step's CPU)."""
    return to_json(rows).decode()
