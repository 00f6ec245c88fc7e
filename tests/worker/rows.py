"""Rows as the engine would have left them, for tests that need no engine."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import psycopg

from app.domain.ids import DEFAULT_TENANT


def insert_call(database: psycopg.Connection[Any], *, attempt: UUID) -> UUID:
    """A call that this attempt has claimed (`intended`); its id. Its workflow and step are left out."""
    call = uuid4()
    with database.transaction():
        # The foreign keys to what the lease never looks at are not checked for these rows.
        database.execute("SET LOCAL session_replication_role = replica")
        database.execute(
            "INSERT INTO calls (workflow_id, id, tenant_id, step, n, kind, args_sha256, effect, state, attempt_id,"
            " request, timeout_ms, settle_ms, lane, engine_version, created_at)"
            " VALUES (%s, %s, %s, 'book', 1, 'tool', '', 'read_only', 'intended', %s, '{}', 1, 1, 'calls', 1,"
            " clock_timestamp())",
            [uuid4(), call, DEFAULT_TENANT, attempt],
        )
    return call
