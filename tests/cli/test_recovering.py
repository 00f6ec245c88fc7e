"""`surefoot recover` as a real process against a real database: what it refuses, what it says, what it leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from app.cli.exits import Stop
from app.cli.recovering import parse_instant
from app.domain import ids
from app.embedded import schema
from app.store.database import Database
from tests.api import rows

Recover = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def recover(tmp_path: Path) -> Recover:
    """The command, in a directory without a ready file."""

    def run(*arguments: str, url: str = "") -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("SUREFOOT_")}
        told = {"SUREFOOT_DATABASE_URL": url} if url else {}
        return subprocess.run(
            [sys.executable, "-m", "app.cli.main", "recover", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            cwd=tmp_path,
            env={**clean, "PYTHONPATH": os.getcwd(), **told},
        )

    return run


def recorded(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        return [row[0] for row in connection.execute("SELECT value FROM system WHERE name = 'identity'")]


def set_back(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO system (name, value) VALUES ('identity', 'before')")


def test_migrate_records_which_database_it_is_once(empty_database_url: str) -> None:
    schema.upgrade(empty_database_url)
    first = recorded(empty_database_url)
    schema.upgrade(empty_database_url)

    assert len(first) == 1
    assert recorded(empty_database_url) == first


@pytest.mark.parametrize("arguments", [(), ("--since", "2h", "--nothing-lost")])
def test_recover_wants_to_know_what_was_lost(recover: Recover, database_url: str, arguments: tuple[str, ...]) -> None:
    set_back(database_url)

    ended = recover(*arguments, url=database_url)

    assert (ended.returncode, "either --since WHEN or --nothing-lost" in ended.stderr) == (1, True)
    assert recorded(database_url) == ["before"]


def test_recover_says_what_it_is_missing_when_no_database_is_known(recover: Recover) -> None:
    ended = recover("--since", "2h")

    assert (ended.returncode, "No database is known" in ended.stderr) == (1, True)


def test_recover_says_so_when_the_database_does_not_answer(recover: Recover, tmp_path: Path) -> None:
    ended = recover("--nothing-lost", url=f"postgresql://postgres@/postgres?host={tmp_path}")

    assert (ended.returncode, "does not answer" in ended.stderr) == (5, True)


def test_recover_finds_the_database_of_up_in_its_ready_file(
    recover: Recover, database_url: str, tmp_path: Path
) -> None:
    set_back(database_url)
    (tmp_path / ".surefoot").mkdir()
    (tmp_path / ".surefoot" / "ready.json").write_text(json.dumps({"database_url": database_url}))

    ended = recover("--nothing-lost", "--by", "kim")

    assert (ended.returncode, "Effects are made again." in ended.stdout) == (0, True), ended.stderr
    assert recorded(database_url) != ["before"]
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT actor, action FROM audit").fetchall() == [("kim", "database.recovered")]


def test_recover_asks_for_the_migration_first_when_the_restored_database_is_older(
    recover: Recover, database_url: str
) -> None:
    set_back(database_url)
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'older'")

    ended = recover("--since", "2h", url=database_url)

    assert ended.returncode == 1
    assert "surefoot migrate" in ended.stderr
    assert recorded(database_url) == ["before"]


def test_recover_tells_a_program_what_it_would_do(recover: Recover, database_url: str) -> None:
    set_back(database_url)

    ended = recover("--since", "90m", "--dry-run", "--json", url=database_url)

    told = json.loads(ended.stdout)
    assert (told["identity"]["recorded"], told["workflows"], told["in_doubt"]) == ("before", 0, 0)
    assert recorded(database_url) == ["before"]


async def test_recover_tells_a_defect_on_stderr_and_nothing_of_the_settings_when_a_workflow_cannot_be_decided(
    recover: Recover, database_url: str
) -> None:
    database = Database(database_url, pool_size=1, statement_timeout=30)
    await rows.tenant(database)
    workflow = await rows.workflow(database)
    await rows.change(database, "UPDATE plans SET body = '{}'")
    await database.close()

    ended = recover("--since", "90m", "--json", url=database_url)

    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ids.encode("wf", workflow) in ended.stderr
    assert "recover.workflow_failed" in ended.stderr
    assert "Settings(" not in ended.stderr


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2h", timedelta(hours=2)),
        ("2026-11-22T13:05:00Z", datetime(2026, 11, 22, 13, 5, tzinfo=UTC)),
        ("2026-11-22T14:05:00+01:00", datetime(2026, 11, 22, 13, 5, tzinfo=UTC)),
    ],
)
def test_instant_is_read_as_people_write_it(text: str, meant: datetime | timedelta) -> None:
    assert parse_instant(text) == meant


@pytest.mark.parametrize("text", ["yesterday", "2026-11-22T13:05:00", "13:05", "2"])
def test_instant_is_refused_when_it_is_none_or_has_no_time_zone(text: str) -> None:
    with pytest.raises(Stop, match="neither an instant with its time zone nor a duration"):
        parse_instant(text)
