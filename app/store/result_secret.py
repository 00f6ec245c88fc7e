"""The secret that result tokens are made with: one of the installation, in `system`, made when it is first needed."""

from __future__ import annotations

from typing import Any, Final

import psycopg

Connection = psycopg.AsyncConnection[dict[str, Any]]

_ENSURE: Final = """
INSERT INTO system (name, value) VALUES ('result_secret', %(secret)s) ON CONFLICT (name) DO NOTHING"""


async def ensure(connection: Connection, *, secret: str) -> str:
    """The secret; `secret` becomes it if there is none yet."""
    await connection.execute(_ENSURE, {"secret": secret})
    row = await (await connection.execute("SELECT value FROM system WHERE name = 'result_secret'")).fetchone()
    if row is None:
        raise LookupError("the secret was just made")
    return str(row["value"])
