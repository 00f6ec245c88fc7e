"""`surefoot recover`: after a restore or a failover, say what was lost; then effects are claimed again.

Works on the database itself (SUREFOOT_DATABASE_URL, else the one of the ready file), because the API may be down, and
who restores a database has its keys. What it does is in `app/engine/recover.py`; when to use it in `docs/restore.md`.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import printing, reading_settings, target
from app.cli.exits import UNREACHABLE, Stop
from app.cli.processes import refusing
from app.domain.durations import DurationError, parse_duration

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from app.domain.states import Lane
    from app.engine.recover import Recovered
    from app.engine.services import Services
    from app.settings import Settings
    from app.store.database import Database


def recover(
    since: Annotated[
        str | None,
        typer.Option(
            metavar="WHEN",
            help="The instant the database was set back to: 2026-11-22T13:05:00Z, or 2h ago. Early is safe.",
        ),
    ] = None,
    nothing_lost: Annotated[
        bool, typer.Option("--nothing-lost", help="A standby that had everything took over, or Postgres was upgraded.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done; change nothing.")] = False,
    by: Annotated[str, typer.Option("--by", help="Who says so; kept in the audit log.")] = "operator",
    as_json: Annotated[bool, typer.Option("--json", help="What was done, as JSON.")] = False,
) -> None:
    """After a restore or failover of Postgres: put in doubt what may have happened, then make effects again."""
    if (since is None) != nothing_lost:
        raise Stop("Say what was lost: either --since WHEN or --nothing-lost.", fix="docs/restore.md says which.")
    with refusing():
        settings = _with_database(reading_settings.read())
        from app import logs

        # Or a workflow that cannot be decided is told with everything in reach: rows, and the database's password.
        logs.configure(level=settings.log_level, as_json=settings.log_json)
        told = None if since is None else parse_instant(since)
        done = asyncio.run(_recover(settings, since=told, by=by, dry_run=dry_run))
    if as_json:
        printing.out(json.dumps(asdict(done), indent=2, default=str))
    else:
        _print(done, dry_run=dry_run)


def parse_instant(text: str, *, option: str = "--since") -> datetime | timedelta:
    """RFC 3339 with its offset, or a duration: that long ago."""
    try:
        return parse_duration(text)
    except DurationError:
        found = None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise Stop(
            f"{option} {text} is neither an instant with its time zone nor a duration.",
            fix="Write 2026-11-22T13:05:00Z (or +01:00), or 90m, 2h, 1d for that long ago.",
        )
    return found


async def _recover(settings: Settings, *, since: datetime | timedelta | None, by: str, dry_run: bool) -> Recovered:
    import psycopg

    from app.engine import recover as engine
    from app.errors import NotRecovered
    from app.store.database import Database

    database = Database(settings.database_url, pool_size=1, statement_timeout=settings.statement_timeout)
    try:
        return await engine.recover(_services(settings, database), since=since, by=by, dry_run=dry_run)
    except NotRecovered as error:
        raise Stop(error.what, fix=error.fix) from error
    except psycopg.OperationalError as error:
        raise Stop(
            f"The database does not answer: {str(error).splitlines()[0]}",
            fix="Start it, then the same command again: it goes on where it was.",
            code=UNREACHABLE,
        ) from error
    finally:
        await database.close()


def _services(settings: Settings, database: Database) -> Services:
    """What deciding needs, and nothing that talks to anybody: Redis and the world may be away on such a day."""
    from app.domain.rules import Rules
    from app.engine.plans import Plans
    from app.engine.services import Services
    from app.ports.outbound import OutboundPolicy

    return Services(
        settings=settings,
        database=database,
        bell=NoBell(),
        plans=Plans(database),
        rules=Rules(
            poison_after=settings.poison_after,
            items_limit=settings.items_limit,
            model_windows=settings.model_windows,
        ),
        outbound=OutboundPolicy.parse(settings.outbound_allow),
    )


class NoBell:
    """Nobody is rung: the sweep of a living worker finds what is due."""

    broker_away = False

    def ring(self, lane: Lane, ids: Sequence[UUID]) -> None:
        return None


def _with_database(settings: Settings) -> Settings:
    url = settings.database_url or _of_ready_file(target.READY_FILE)
    if not url:
        raise Stop(
            "No database is known: neither SUREFOOT_DATABASE_URL nor a ready file.",
            fix="Set SUREFOOT_DATABASE_URL to the restored database.",
        )
    return settings.model_copy(update={"database_url": url})


def _of_ready_file(path: Path) -> str | None:
    """What `surefoot up` wrote beside the key: the address of the Postgres it started."""
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text()).get("database_url")
    except (ValueError, AttributeError) as error:
        raise Stop(f"{path} is no ready file: {error}.", fix="Remove it, or set SUREFOOT_DATABASE_URL.") from error
    return found if isinstance(found, str) else None


def _print(done: Recovered, *, dry_run: bool) -> None:
    found = done.identity
    if found.changed:
        printing.out(f"The database was {found.recorded}, it is {found.actual}.")
    else:
        printing.out(f"The database is {found.actual}, as before: nothing in it shows a restore.")
    if done.since is not None:
        printing.out(f"{done.workflows} workflows were alive and may have done more than it knows. Of their effects")
        for count, what in (
            (done.in_doubt, "are in doubt: a person says what happened"),
            (done.probing, "are being probed"),
            (done.abandoned, "were given up, as their definitions say"),
            (done.repeated, "are made again: idempotent, or with the same key"),
            (done.held, "wait for something else, and go in doubt before they are sent"),
        ):
            if count:
                printing.out(f"  {count:>6}  {what}")
    if dry_run:
        printing.out("Nothing was changed: that was a dry run.")
        return
    printing.out("Effects are made again.")
    if done.in_doubt:
        printing.note("  surefoot effects --state in_doubt")
