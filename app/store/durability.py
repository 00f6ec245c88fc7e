"""What Postgres promises to keep: the settings that a crash-safe database needs, read and named if they are weak."""

from __future__ import annotations

from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_ASK: Final = text(
    "SELECT current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes, "
    "(SELECT reset_val FROM pg_settings WHERE name = 'synchronous_commit') AS synchronous_commit"
)
_WEAK_COMMITS: Final = frozenset({"off", "local"})
"""`local` does not wait for a synchronous standby, `off` not even for the disk: an intent may vanish."""


async def weaknesses(connection: AsyncConnection) -> list[str]:
    """One sentence per setting under which an acknowledged commit may be lost; empty if there is none."""
    row = (await connection.execute(_ASK)).one()
    found = []
    if row.fsync != "on":
        found.append("Postgres runs with fsync=off: a crash of the machine loses accepted workflows.")
    if row.full_page_writes != "on":
        found.append("Postgres runs with full_page_writes=off: a crash of the machine may damage pages.")
    if row.synchronous_commit in _WEAK_COMMITS:
        found.append(
            f"Postgres runs with synchronous_commit={row.synchronous_commit}: Surefoot's own connections use `on`, "
            "but other writers' commits may vanish."
        )
    return found
