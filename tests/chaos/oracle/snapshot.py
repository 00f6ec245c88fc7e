"""One instant of the database, read only: the other side of every comparison.

`with at_one_instant(url) as rows: rows("SELECT …", …)`. REPEATABLE READ, so that all laws judge the same instant
while everything goes on: `now()` is that instant, however long judging takes. `workflows` limits every law to those (a
matrix has many small scenes in one database).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from app.domain import ids

Row = dict[str, Any]

LONGEST: Final = "300s"
"""Of one statement: a headline run has a million events."""


class Snapshot:
    def __init__(self, connection: psycopg.Connection[Row], workflows: Sequence[UUID] | None) -> None:
        self._connection = connection
        self._workflows = None if workflows is None else list(workflows)

    def __call__(self, sql: str, **parameters: Any) -> list[Row]:
        """Rows of a statement; `{ours}` in it stands for the condition on `w.id` that limits it."""
        ours = "(%(workflows)s::uuid[] IS NULL OR w.id = ANY(%(workflows)s))"
        statement = sql.replace("{ours}", ours)
        return self._connection.execute(statement, {"workflows": self._workflows, **parameters}).fetchall()

    def count(self, sql: str, **parameters: Any) -> int:
        return int(next(iter(self(sql, **parameters)[0].values())))


@contextmanager
def at_one_instant(url: str, *, workflows: Sequence[UUID] | None = None) -> Iterator[Snapshot]:
    with psycopg.connect(url, row_factory=dict_row, application_name="oracle") as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        connection.execute(f"SET LOCAL statement_timeout = '{LONGEST}'")
        connection.execute("SET LOCAL jit = off")
        yield Snapshot(connection, workflows)
        connection.rollback()


def wf(value: UUID) -> str:
    return ids.encode("wf", value)


def call(value: UUID) -> str:
    return ids.encode("call", value)
