"""The rows of `limits`: what the providers of models let pass, shared by all workers. None while nothing is short."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any, Final

import psycopg

from app.domain.quotas import Limits

Connection = psycopg.AsyncConnection[dict[str, Any]]

KEPT_FOR: Final = timedelta(minutes=10)
"""A row that nobody has written to for so long says nothing about now."""

_NAMES: Final = tuple(name for name in Limits.__slots__ if name != "scope")
_COLUMNS: Final = ", ".join(("scope", *_NAMES))
_READ: Final = f"SELECT {_COLUMNS} FROM limits WHERE scope = ANY(%(scopes)s) ORDER BY scope"
_ALL: Final = f"SELECT {_COLUMNS} FROM limits ORDER BY scope"
_WRITE: Final = f"""
INSERT INTO limits ({_COLUMNS}) VALUES ({", ".join(f"%({name})s" for name in ("scope", *_NAMES))})
ON CONFLICT (scope) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in _NAMES)}"""
_OPEN_ROWS: Final = """
INSERT INTO limits (scope, refilled_at, updated_at)
SELECT x.scope, clock_timestamp(), clock_timestamp() FROM unnest(%(scopes)s::text[]) AS x(scope) ORDER BY x.scope
ON CONFLICT DO NOTHING"""
_TIDY: Final = """
DELETE FROM limits WHERE updated_at < clock_timestamp() - %(kept)s
  AND coalesce(blocked_until, updated_at) < clock_timestamp()"""


async def opened(connection: Connection, scopes: Sequence[str]) -> None:
    """A row for each that has none yet."""
    await connection.execute(_OPEN_ROWS, {"scopes": list(scopes)})


async def locked(connection: Connection, scopes: Sequence[str], *, skip_locked: bool = False) -> dict[str, Limits]:
    """To be written. With `skip_locked` those that somebody else is writing are left out."""
    if not scopes:
        return {}
    sql = _READ + (" FOR UPDATE SKIP LOCKED" if skip_locked else " FOR UPDATE")
    rows = await (await connection.execute(sql, {"scopes": sorted(scopes)})).fetchall()
    return {row["scope"]: Limits(**row) for row in rows}


async def read(connection: Connection, scopes: Sequence[str] | None = None) -> dict[str, Limits]:
    """Of these, or all."""
    asked = {} if scopes is None else {"scopes": list(scopes)}
    rows = await (await connection.execute(_ALL if scopes is None else _READ, asked)).fetchall()
    return {row["scope"]: Limits(**row) for row in rows}


async def write(connection: Connection, rows: Sequence[Limits]) -> None:
    for row in rows:
        await connection.execute(_WRITE, asdict(row))


async def tidy(connection: Connection) -> None:
    await connection.execute(_TIDY, {"kept": KEPT_FOR})
