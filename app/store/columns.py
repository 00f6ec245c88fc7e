"""The columns of the aggregate's rows, named once: by the dataclasses of the domain, typed by the tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any, Final

from sqlalchemy import Column, Table
from sqlalchemy.dialects import postgresql

from app.domain.accounts import Account
from app.domain.aggregate import Approval, Attempt, Call, StepRow, Workflow

_DIALECT: Final = postgresql.dialect()  # type: ignore[no-untyped-call]


def type_of(column: Column[Any]) -> str:
    return str(column.type.compile(dialect=_DIALECT))


def recordset(table: Table, names: Sequence[str], parameter: str, *, base64_columns: Sequence[str] = ()) -> str:
    """`json_to_recordset(%(p)s) AS x(id uuid, …)` for those columns; bytes travel as base 64 text."""
    typed = ", ".join(f'"{n}" {"text" if n in base64_columns else type_of(table.c[n])}' for n in names)
    return f"json_to_recordset(%({parameter})s::json) AS x({typed})"


def names_of(row: type, *, but: Iterable[str] = ()) -> tuple[str, ...]:
    return tuple(f.name for f in fields(row) if f.name not in set(but))


WORKFLOW: Final = names_of(Workflow)
STEP: Final = names_of(StepRow)
CALL: Final = names_of(Call, but={"history"})
ATTEMPT: Final = names_of(Attempt)
APPROVAL: Final = names_of(Approval)
ACCOUNT: Final = names_of(Account)


def listed(alias: str, names: Sequence[str]) -> str:
    return ", ".join(f'{alias}."{name}"' for name in names)
