"""Bringing the schema to the newest revision when a process starts, with refusals a person can act on."""

from __future__ import annotations

from sqlalchemy.exc import OperationalError

from app.embedded.refusal import EXIT_UNREACHABLE, CannotStart
from app.store import migrating


def upgrade(url: str) -> str:
    """The revision the database is at now. Blocks. Raises `CannotStart`."""
    try:
        return migrating.upgrade(url)
    except (migrating.SchemaNewer, migrating.SchemaBusy) as refusal:
        raise CannotStart(str(refusal), fix="Nothing was changed.") from refusal
    except OperationalError as error:
        raise CannotStart(
            f"The database went away during the migrations: {error.orig}",
            fix="Start again; migrations continue where they were.",
            exit_code=EXIT_UNREACHABLE,
        ) from error
