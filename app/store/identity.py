"""Which database this is: the cluster, its timeline, the database in it; compared with the one that last worked for us.

    EXPRESSION    the identity as SQL; NULL on a standby, which nobody can write to
    SAME          a condition for statements that may only run on the database we know (the claim)
    read          the identity and the one on record
    record        written once, when nothing is on record
    notice        another one than on record: noted once, so that one process says so
    close, accept the door of `surefoot recover`: nothing matches until the recovered identity is written
    alive, audit  for that command: the workflows it looks through, and what it writes down

The identity changes when the world may have gone on without these rows: a promotion or a point-in-time recovery (the
timeline), a dump loaded into another cluster (the system identifier) or into another database of the same one, a clone
(the database's oid). It does not change when files are put back and started as they were: nothing inside can see that.

It is asked of the server in each statement that needs it, not remembered by the connection: sessions of a standby
survive its promotion. Measured: 11 µs, and a claim pays it only if an effect is in the batch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import psycopg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from app.domain.ids import DEFAULT_TENANT
from app.domain.outcomes import JSON

Connection = psycopg.AsyncConnection[dict[str, Any]]

# Not pg_control_checkpoint(): for a while after a promotion its last checkpoint is still of the old timeline.
EXPRESSION: Final = """CASE WHEN NOT pg_is_in_recovery() THEN
    (SELECT system_identifier FROM pg_control_system())
    || '/' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)
    || '/' || (SELECT oid FROM pg_database WHERE datname = current_database()) END"""

SAME: Final = f"""NOT EXISTS (
    SELECT FROM system WHERE name = 'identity' AND value IS DISTINCT FROM {EXPRESSION})"""
"""Also true where nothing is on record yet: `surefoot migrate` and the first sweep write it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    actual: str | None
    """None: a standby."""
    recorded: str | None
    """None: nobody has worked here yet."""

    @property
    def changed(self) -> bool:
        return self.recorded is not None and self.actual != self.recorded


_READ: Final = f"SELECT {EXPRESSION} AS actual, (SELECT value FROM system WHERE name = 'identity') AS recorded"

_RECORD: Final = f"""
INSERT INTO system (name, value) SELECT 'identity', found FROM (SELECT {EXPRESSION} AS found) AS f
WHERE found IS NOT NULL
ON CONFLICT (name) DO NOTHING"""

_NOTICE: Final = """
INSERT INTO system AS s (name, value) VALUES ('restored', %(actual)s)
ON CONFLICT (name) DO UPDATE SET value = excluded.value, updated_at = clock_timestamp() WHERE s.value <> excluded.value
RETURNING name"""

_CLOSE: Final = """
INSERT INTO system (name, value) VALUES ('identity', 'being recovered')
ON CONFLICT (name) DO UPDATE SET value = excluded.value, updated_at = clock_timestamp()"""

_ACCEPT: Final = f"""
INSERT INTO system (name, value) SELECT 'identity', %(expected)s WHERE %(expected)s = {EXPRESSION}
ON CONFLICT (name) DO UPDATE SET value = excluded.value, updated_at = clock_timestamp()
RETURNING name"""


async def read(connection: Connection) -> Identity:
    row = await (await connection.execute(_READ)).fetchone()
    if row is None:
        raise LookupError("a SELECT without FROM returns its row")
    return Identity(actual=row["actual"], recorded=row["recorded"])


async def looked_at(connection: AsyncConnection) -> Identity:
    """The same over SQLAlchemy, for readiness checks."""
    row = (await connection.execute(text(_READ))).one()
    return Identity(actual=row.actual, recorded=row.recorded)


async def record(connection: Connection) -> None:
    await connection.execute(_RECORD)


def record_first(url: str) -> None:
    """After the migrations, over a connection of its own."""
    with psycopg.connect(url, autocommit=True, connect_timeout=5, application_name="surefoot migrate") as connection:
        connection.execute(_RECORD)


async def notice(connection: Connection, actual: str) -> bool:
    """True for the first who noticed this identity."""
    cursor = await connection.execute(_NOTICE, {"actual": actual})
    return await cursor.fetchone() is not None


async def close(connection: Connection) -> None:
    """From the commit of this on no effect is claimed, whatever the identity is."""
    await connection.execute(_CLOSE)


async def accept(connection: Connection, expected: str) -> bool:
    """This is the database we work with from now on. False: it has become yet another one meanwhile."""
    cursor = await connection.execute(_ACCEPT, {"expected": expected})
    if await cursor.fetchone() is None:
        return False
    await connection.execute("DELETE FROM system WHERE name = 'restored'")
    return True


# Pages of the primary key, so that one statement's time does not grow with the history.
_ALIVE: Final = """
WITH page AS (SELECT id, ended_at FROM workflows WHERE id > %(after)s ORDER BY id LIMIT %(look)s)
SELECT array_agg(id ORDER BY id) FILTER (WHERE ended_at IS NULL) AS alive,
  (SELECT id FROM page ORDER BY id DESC LIMIT 1) AS last
FROM page"""

PAGE: Final = 10_000
"""Workflows, finished ones included, looked through by one statement."""


async def alive(connection: Connection, *, after: UUID) -> tuple[list[UUID], UUID | None]:
    """Workflows of all tenants that have not ended, among the next page; where the next begins, None after the last."""
    row = await (await connection.execute(_ALIVE, {"after": after, "look": PAGE})).fetchone()
    return ([], None) if row is None else (list(row["alive"] or ()), row["last"])


async def audit(connection: Connection, *, actor: str, action: str, data: Mapping[str, JSON]) -> None:
    """In every tenant's log: a restore is everybody's."""
    cursor = await connection.execute("SELECT id FROM tenants UNION SELECT %s ORDER BY id", (DEFAULT_TENANT,))
    for tenant in await cursor.fetchall():
        await connection.execute(
            "INSERT INTO audit (id, tenant_id, actor, action, object, data) VALUES (%s, %s, %s, %s, 'database', %s)",
            (uuid7(), tenant["id"], actor, action, json.dumps(data)),
        )
