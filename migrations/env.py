"""What Alembic runs around the migrations: one open connection in, one transaction a migration.

The connection comes from `app/store/migrating.py`, which holds the advisory lock, or from `migrations/write.py`.
There is no other way in: `alembic upgrade` by hand would run without the lock, and is told so.
"""

from __future__ import annotations

from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import Connection

LOCK_TIMEOUT = "10s"
"""A migration that cannot get its table lock gives up: while it queues, everybody behind it waits, too."""


def _render(kind: str, item: Any, autogen: AutogenContext) -> str | Literal[False]:
    if kind == "type" and type(item).__name__ == "Xid8":
        autogen.imports.add("from migrations import xid8")
        return "xid8.Xid8()"
    return False


def _run(connection: Connection) -> None:
    connection.exec_driver_sql(f"SET lock_timeout = '{LOCK_TIMEOUT}'")
    connection.exec_driver_sql("SET statement_timeout = 0")
    connection.commit()
    context.configure(
        connection=connection,
        target_metadata=context.config.attributes.get("metadata"),
        transaction_per_migration=True,
        compare_type=True,
        compare_server_default=True,
        render_item=_render,
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is None:
    raise SystemExit("Migrations run through `surefoot migrate` and are written by `make migration name=…`.")
_run(given)
