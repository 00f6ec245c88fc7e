"""History in bulk: a million finished workflows, made inside Postgres from a few that were really executed.

    ballast.fill(connection, count=1_000_000, templates=[uuid, …])     what was there before is gone
    ballast.sizes(connection)

Each template's rows are read once; then set-based INSERT … SELECT copies them with new ids (version 7, of the time the
copy was submitted), shifted instants and a new idempotency key, spread evenly over the 30 days before now and written
in the order of time, as a real history is. Foreign keys and CHECKs hold: ids within a workflow are moved by one rule.

All in one transaction that begins with TRUNCATE: the new files need no log (`wal_level = minimal`), which halves the
time. Then VACUUM (FREEZE, ANALYZE) and a checkpoint: what autovacuum would do for an hour, before anything is measured.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import contextmanager
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg import sql
from sqlalchemy import DateTime, Table, Uuid

from app.store import tables
from bench.verdicts import say

Connection = psycopg.Connection[Any]

HISTORY: Final = (
    tables.workflows,
    tables.idempotency_keys,
    tables.steps,
    tables.calls,
    tables.attempts,
    tables.payloads,
    tables.messages,
    tables.events,
)
"""What a finished workflow leaves behind. Approvals, effect keys and deliveries are not part of these templates."""

DAYS: Final = 30
BATCH: Final = 20_000
"""Workflows copied by one round of statements: a few seconds, so that progress is seen."""

_KEPT: Final = frozenset({"tenant_id", "worker"})
"""Ids of things that are there once, whoever names them."""

_CLONES: Final = """
INSERT INTO clones
SELECT n, number, lpad(to_hex(n), 12, '0'),
  (lpad(to_hex(made), 12, '0') || '7000a000' || lpad(to_hex(n), 12, '0'))::uuid,
  made - began, (made - began) * interval '1 millisecond'
FROM (
  SELECT n, t.number, (extract(epoch FROM t.created_at) * 1000)::bigint AS began,
    (extract(epoch FROM clock_timestamp() - %(days)s * interval '1 day') * 1000
      + n * (%(days)s * 86400000.0 / %(count)s))::bigint AS made
  FROM generate_series(%(first)s::bigint, %(last)s::bigint) n JOIN templates t ON t.number = n %% %(kinds)s
) s ORDER BY n"""


def fill(connection: Connection, *, count: int, templates: Sequence[UUID]) -> float:
    """Seconds it took. The connection is in autocommit mode."""
    began = time.monotonic()
    with _quick(connection), connection.transaction():
        connection.execute("SET LOCAL session_replication_role = replica")  # the copies' parents are copies, too
        connection.execute("SET LOCAL work_mem = '256MB'")
        _stash(connection, templates)
        listed = sql.SQL(", ").join(sql.Identifier(table.name) for table in HISTORY)
        connection.execute(sql.SQL("TRUNCATE {} CASCADE").format(listed))
        copies = [_copy(table) for table in HISTORY]
        for first in range(0, count, BATCH):
            last = min(first + BATCH, count) - 1
            asked = {"days": DAYS, "count": count, "first": first, "last": last, "kinds": len(templates)}
            connection.execute("TRUNCATE clones")
            connection.execute(_CLONES, asked)
            connection.execute("ANALYZE clones")
            for copy in copies:
                connection.execute(copy)
            _progress(last + 1, count, began)
    say(f"  written and on disk after {time.monotonic() - began:.0f} s; VACUUM (FREEZE, ANALYZE), CHECKPOINT")
    with _quick(connection):
        connection.execute("VACUUM (FREEZE, ANALYZE)")
        connection.execute("CHECKPOINT")
    connection.execute("CHECKPOINT")
    return time.monotonic() - began


def sizes(connection: Connection) -> dict[str, tuple[int, int, int]]:
    """Of each table of history: rows (as ANALYZE estimates them), bytes of the table, bytes of its indexes."""
    found = {}
    for table in HISTORY:
        row = connection.execute(
            "SELECT reltuples::bigint, pg_table_size(oid), pg_indexes_size(oid) FROM pg_class WHERE oid = %s::regclass",
            [table.name],
        ).fetchone()
        if row is not None:
            found[table.name] = (int(row[0]), int(row[1]), int(row[2]))
    return found


@contextmanager
def _quick(connection: Connection) -> Any:
    """Without full-page images and with rare checkpoints, as nobody would measure; afterwards as it was."""
    settings = {"full_page_writes": "off", "max_wal_size": "'16GB'", "checkpoint_timeout": "'1h'", "autovacuum": "off"}
    # What is given on the command line (durability, for one) beats ALTER SYSTEM: then that one stays as it is.
    for name, value in settings.items():
        connection.execute(sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), sql.SQL(value)))
    connection.execute("SELECT pg_reload_conf()")
    try:
        yield
    finally:
        if connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
            for name in settings:
                connection.execute(sql.SQL("ALTER SYSTEM RESET {}").format(sql.Identifier(name)))
            connection.execute("SELECT pg_reload_conf()")


def _stash(connection: Connection, templates: Sequence[UUID]) -> None:
    """The templates' rows, numbered, in temporary tables."""
    connection.execute("CREATE TEMP TABLE templates (number int, id uuid, created_at timestamptz) ON COMMIT DROP")
    connection.execute(
        "INSERT INTO templates SELECT x.n - 1, w.id, w.created_at "
        "FROM unnest(%s::uuid[]) WITH ORDINALITY x(id, n) JOIN workflows w ON w.id = x.id",
        [list(templates)],
    )
    for table in HISTORY:
        parts = sql.SQL("").join(sql.SQL(_PARTS).format(*_names(column)) for column in _ids(table))
        stash = sql.SQL(_STASH)
        names = (f"of_{table.name}", table.name, _owner(table))
        stashed, source, owner = (sql.Identifier(name) for name in names)
        connection.execute(stash.format(stashed, parts, source, owner))
    connection.execute(
        "CREATE TEMP TABLE clones (n bigint, number int, tail text, workflow uuid, ms bigint, shift interval) "
        "ON COMMIT DROP"
    )


_STASH: Final = """
CREATE TEMP TABLE {} ON COMMIT DROP AS SELECT t.number, x.*{} FROM templates t JOIN {} x ON x.{} = t.id"""

_PARTS: Final = """,
  ('x' || translate(left(x.{0}::text, 13), '-', ''))::bit(48)::bigint AS {1},
  translate(substr(x.{0}::text, 15, 9), '-', '') AS {2}"""
"""Of a template's id: its milliseconds, and the 32 bits after them (version, variant, randomness)."""

_MOVED: Final = "(lpad(to_hex(t.{1} + c.ms), 12, '0') || t.{2} || c.tail)::uuid"
"""An id of the copy: the template's time plus the shift, its own 32 bits, and the copy's number, so that every row that
names it comes to the same."""


def _ids(table: Table) -> list[str]:
    """Columns with ids that every copy has of its own."""
    return [c.name for c in table.columns if isinstance(c.type, Uuid) and c.name not in {*_KEPT, _owner(table)}]


def _names(column: str) -> tuple[sql.Identifier, sql.Identifier, sql.Identifier]:
    return sql.Identifier(column), sql.Identifier(f"{column}__ms"), sql.Identifier(f"{column}__mid")


def _owner(table: Table) -> str:
    return "id" if table is tables.workflows else "workflow_id"


def _copy(table: Table) -> sql.Composed:
    """The statement that copies one table's rows for what is in `clones`."""
    # `tx` has a default that is right: the transaction that writes it.
    columns = [column for column in table.columns if column.name != "tx"]
    values = [_value(table, column.name, column.type) for column in columns]
    return sql.SQL("INSERT INTO {} ({}) SELECT {} FROM clones c JOIN {} t ON t.number = c.number").format(
        sql.Identifier(table.name),
        sql.SQL(", ").join(sql.Identifier(column.name) for column in columns),
        sql.SQL(", ").join(values),
        sql.Identifier(f"of_{table.name}"),
    )


def _value(table: Table, name: str, kind: Any) -> sql.Composable:
    if name == _owner(table):
        return sql.SQL("c.workflow")
    if (table is tables.idempotency_keys and name == "key") or name == "idempotency_key":
        return sql.SQL("md5('key' || c.n)")
    column = sql.SQL("t.{}").format(sql.Identifier(name))
    if name in _ids(table):
        return sql.SQL(_MOVED).format(*_names(name))
    if isinstance(kind, DateTime):
        return sql.SQL("{} + c.shift").format(column)
    return column


def _progress(done: int, count: int, began: float) -> None:
    step = max(BATCH, count // 10)
    if done % step < BATCH or done == count:
        seconds = time.monotonic() - began
        say(f"  {done:,} of {count:,} workflows, {seconds:.0f} s, {done / seconds:,.0f} a second")
