"""The rows of real Postgres beside those in memory: read, compared, aged.

Beside.differences(store)    every column that is not the same, in words
Beside.age(by)               time passes: every instant is moved back by that much
Beside.clear()               an empty database again
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import psycopg
from sqlalchemy import DateTime, Table

from app.store import columns, tables
from tests.domain import replaying
from tests.domain.machine_sight import row_of
from tests.domain.machine_store import Store

Row = dict[str, Any]

_CLEARED: Final = (
    "dues", "deliveries", "events", "messages", "payloads", "approvals", "attempts", "calls", "steps", "effect_keys",
    "idempotency_keys", "switches", "audit", "workflows", "workers",
)  # fmt: skip
_COMPARED: Final = (
    "workflows", "steps", "calls", "attempts", "approvals", "dues", "events", "messages", "effect_keys",
)  # fmt: skip
_AGED: Final = (tables.workflows, tables.steps, tables.calls, tables.attempts, tables.approvals, tables.dues)
_NEARLY: Final = ("key_deadline",)
"""Taken from the clock a moment later than what it is compared with."""
_MOMENT: Final = timedelta(seconds=30)
_WOKEN: Final = ("attached", "switch", "apply")
"""Dues that another transaction brings forward, by its own clock."""


def _aging(table: Table) -> str:
    names = [column.name for column in table.c if isinstance(column.type, DateTime)]
    return f"UPDATE {table.name} SET " + ", ".join(f'"{n}" = "{n}" - %(by)s::interval' for n in names)


_AGE: Final = [
    *(_aging(table) for table in _AGED),
    _aging(tables.workers) + " WHERE lost_at IS NOT NULL",
]


@dataclass(kw_only=True)
class Beside:
    connection: psycopg.AsyncConnection[Row]

    async def now(self) -> datetime:
        [row] = await self.rows("SELECT clock_timestamp() AS now")
        now: datetime = row["now"]
        return now

    async def rows(self, sql: str, *values: Any) -> list[Row]:
        cursor = await self.connection.execute(sql, values or None)
        return await cursor.fetchall() if cursor.description else []

    async def told(self) -> dict[str, list[Row]]:
        """What a replay of the events is compared with."""
        found = {}
        for name, sql in replaying.QUERIES.items():
            cursor = await self.connection.execute(sql, {"workflows": None})
            found[name] = await cursor.fetchall()
        return found

    async def age(self, by: timedelta) -> None:
        async with self.connection.pipeline():
            for sql in _AGE:
                await self.connection.execute(sql, {"by": by})

    async def clear(self) -> None:
        await self.connection.execute("; ".join(f"DELETE FROM {name}" for name in _CLEARED))

    async def differences(self, store: Store) -> list[str]:
        cursors = {}
        async with self.connection.pipeline():
            for name in _COMPARED:
                cursors[name] = await self.connection.execute(f"SELECT * FROM {name}")
            cursors["clock"] = await self.connection.execute("SELECT clock_timestamp() AS now")
        there = {name: await cursor.fetchall() for name, cursor in cursors.items()}
        return list(_differences(store, there, now=there["clock"][0]["now"]))


def _differences(store: Store, there: dict[str, list[Row]], *, now: datetime) -> Iterator[str]:
    calls = list(store.every_call())
    yield from _compare("workflow", columns.WORKFLOW, ("id",), there["workflows"], list(store.workflows.values()))
    steps = [row for rows in store.steps.values() for row in rows.values()]
    yield from _compare("step", columns.STEP, ("workflow_id", "path"), there["steps"], steps)
    yield from _compare("call", columns.CALL, ("id",), there["calls"], calls)
    attempts = [attempt for call in calls for attempt in call.history]
    yield from _compare("attempt", columns.ATTEMPT, ("id",), there["attempts"], attempts)
    approvals = [row for rows in store.approvals.values() for row in rows.values()]
    yield from _compare("approval", columns.APPROVAL, ("id",), there["approvals"], approvals)
    yield from _dues(store, there["dues"], now=now)
    yield from _events(store, there["events"])
    yield from _messages(store, there["messages"])
    keys = {(row["tool"], row["key"]): row for row in there["effect_keys"]}
    for place, key in store.keys.items():
        row = keys.pop(place, None)
        found = None if row is None else (row["call_id"], row["generation"], row["released_at"] is not None)
        if found != (key.call_id, key.generation, key.released):
            yield f"key {place}: Postgres has {found}, memory {(key.call_id, key.generation, key.released)}"
    yield from (f"key {place} is only in Postgres" for place in keys)


def _messages(store: Store, there: Sequence[Row]) -> Iterator[str]:
    """Byte for byte: what a model is sent is made of them."""
    found = {
        (row["workflow_id"], row["step"], row["conversation"], row["ordinal"]): (row["role"], bytes(row["body"]))
        for row in there
    }
    for place, message in store.messages.items():
        if found.pop(place, None) != (message.role, message.body):
            yield f"message {place[1:]} is not the same in Postgres"
    yield from (f"message {place[1:]} is only in Postgres" for place in found)


def _compare(
    what: str, names: Sequence[str], key: Sequence[str], there: Sequence[Row], here: Sequence[Any]
) -> Iterator[str]:
    found = {tuple(row[each] for each in key): row for row in there}
    for row in here:
        name = tuple(getattr(row, each) for each in key)
        other = found.pop(name, None)
        if other is None:
            yield f"{what} {name} is only in memory: {row}"
            continue
        for column in names:
            ours, theirs = getattr(row, column), other[column]
            if column in _NEARLY and ours is not None and theirs is not None and abs(ours - theirs) < _MOMENT:
                setattr(row, column, theirs)
            elif ours != theirs and _plain(ours) != _plain(theirs):
                yield f"{what} {name[-1]}.{column}: Postgres has {theirs!r}, memory {ours!r}"
    yield from (f"{what} {name} is only in Postgres: {row}" for name, row in found.items())


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str)) if isinstance(value, dict | list | tuple) else value


def _dues(store: Store, there: Sequence[Row], *, now: datetime) -> Iterator[str]:
    found = {(row["kind"], row["ref"]): row for row in there}
    for (kind, ref), (owner, due) in store.dues.items():
        row = found.pop((kind, ref), None)
        if row is None:
            yield f"due {kind} {ref} is only in memory"
            continue
        ours = (owner, due.due_at <= now if kind in _WOKEN else due.due_at, due.lane, due.worker)
        at = row["due_at"] <= now if kind in _WOKEN else row["due_at"]
        if ours != (row["workflow_id"], at, row["lane"], row["worker"]):
            yield f"due {kind} {ref}: Postgres has {row}, memory {due}"
    yield from (f"due {kind} {ref} is only in Postgres" for kind, ref in found)


def _events(store: Store, there: Sequence[Row]) -> Iterator[str]:
    """Rows are read in no certain order, so what one decision tells of several calls has none: what is told of each
    does."""
    for workflow_id, events in store.events.items():
        ours = _by_entity([row_of(event) for event in events])
        rows = sorted((row for row in there if row["workflow_id"] == workflow_id), key=lambda row: row["seq"])
        theirs = _by_entity(rows)
        for entity in ours.keys() | theirs.keys():
            if ours.get(entity) != theirs.get(entity):
                yield f"events of {entity}: Postgres has {theirs.get(entity)}, memory {ours.get(entity)}"
        if Counter(event.seq for event in events) != Counter(row["seq"] for row in rows):
            yield f"events are numbered {[row['seq'] for row in rows]} in Postgres"


def _by_entity(events: Sequence[Row]) -> dict[UUID | str, list[Any]]:
    found: dict[UUID | str, list[Any]] = {}
    for event in events:
        told = [event[name] for name in ("type", "attempt_id", "from_state", "to_state")]
        found.setdefault(event["call_id"] or event["step"] or "workflow", []).append(
            [*told, _plain(dict(event["data"]))]
        )
    return found
