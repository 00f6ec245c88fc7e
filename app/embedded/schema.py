"""Bringing the schema to the newest revision when a process starts, with refusals a person can act on; then which
database this is goes on record, if nothing is."""

from __future__ import annotations

import psycopg
from sqlalchemy.exc import OperationalError

from app.embedded.refusal import EXIT_UNREACHABLE, CannotStart
from app.store import identity, migrating


def upgrade(url: str) -> str:
    """The revision the database is at now. Blocks. Raises `CannotStart`."""
    try:
        revision = migrating.upgrade(url)
        identity.record_first(url)
        return revision
    except (migrating.SchemaNewer, migrating.SchemaBusy) as refusal:
        raise CannotStart(str(refusal), fix="Nothing was changed.") from refusal
    except (OperationalError, psycopg.OperationalError) as error:
        raise CannotStart(
            f"The database went away during the migrations: {getattr(error, 'orig', error)}",
            fix="Start again; migrations continue where they were.",
            exit_code=EXIT_UNREACHABLE,
        ) from error
