"""Postgres really rewinds: a base backup, work that is lost, a promotion; and processes that live through all of it.

    W1   mail (at_most_once, due at the backup) → book (keyed, not begun)
    W2   book (due at the backup) → mail (not begun)

Both are done after the backup, and the world keeps what they did. The restored rows know nothing of it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from app.embedded import homes, postgres_installation, schema
from app.embedded.postgres import EmbeddedPostgres
from tests.e2e import oracle
from tests.e2e.driver import REPOSITORY, Installation, Row, until, uuid_of
from tests.e2e.scene import Held, Scene

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]

REPLICABLE = {"wal_level": "replica", "max_wal_senders": "4", "hot_standby": "on"}


class Rewindable:
    """A Postgres with one base backup, to which it can be set back."""

    def __init__(self, home: Path) -> None:
        self.server = EmbeddedPostgres(home / "postgres", settings=REPLICABLE)
        self._backup = home / "backup"
        self.server.start()
        self.url = self.server.ensure_database("surefoot")

    def back_up(self) -> datetime:
        """The instant of the backup, by the database's clock."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            row = connection.execute("SELECT clock_timestamp()").fetchone()
        self._run(
            "pg_basebackup", "-h", str(self.server.sockets), "-U", "postgres", "-D", str(self._backup), "-c", "fast"
        )
        assert row is not None
        found: datetime = row[0]
        return found

    def rewind(self) -> None:
        """The database is what it was at the backup, on a new timeline."""
        self.put_back()
        self.promote()

    def put_back(self) -> None:
        """The data of the backup becomes the server's, as a standby."""
        owner = self.server.data.stat()
        self.server.stop_immediate()
        shutil.rmtree(self.server.data)
        shutil.copytree(self._backup, self.server.data)
        (self.server.data / "standby.signal").touch()
        for place in (self.server.data, *self.server.data.rglob("*")):
            os.chown(place, owner.st_uid, owner.st_gid)
        self.server.start()

    def promote(self) -> None:
        with psycopg.connect(self.server.url, autocommit=True) as connection:
            connection.execute("SELECT pg_promote()")
            until("the standby is promoted", lambda: self._is_primary(connection))

    def stop(self) -> None:
        self.server.stop()
        self.server.remove()

    def _is_primary(self, connection: psycopg.Connection) -> bool:
        row = connection.execute("SELECT NOT pg_is_in_recovery()").fetchone()
        return row is not None and bool(row[0])

    def _run(self, program: str, *arguments: str) -> None:
        binary = postgres_installation.binary(self.server.home, program)
        subprocess.run([str(binary), *arguments], check=True, capture_output=True, timeout=60)


@pytest.fixture
def rewindable() -> Iterator[Rewindable]:
    with homes.temporary_home() as home:
        found = Rewindable(home)
        try:
            yield found
        finally:
            found.stop()


@pytest.fixture
def up(rewindable: Rewindable, tmp_path: Path) -> Iterator[Installation]:
    found = Installation(tmp_path, environment={"SUREFOOT_DATABASE_URL": rewindable.url})
    found.start()
    try:
        yield found
    finally:
        found.stop()


def test_no_effect_is_repeated_when_the_database_was_set_back(rewindable: Rewindable, up: Installation) -> None:
    scene = Scene(up, name="restored")
    up.freeze(*up.workers)
    first, second = scene.submit("mail", "book"), scene.submit("book", "mail")
    backed_up = rewindable.back_up()
    up.thaw()
    for call in (first, second):
        up.until_status(call.workflow, "succeeded")
    done = len(_effects(scene))

    rewindable.rewind()
    until("the API sees it", lambda: up.http.get("/readyz").json()["database"] == "restored", seconds=40)
    _until_rung(up, first, second)
    before = len(_effects(scene))
    ready = up.http.get("/readyz").json()
    said = _recover(up, backed_up)
    scene.until_in_doubt(first)
    mail = Held(workflow=second.workflow, tool="mail", tag=second.tag)
    doubts = [scene.until_in_doubt(first), scene.until_in_doubt(mail)]
    for doubt in doubts:
        assert up.resolve(doubt, "happened").status_code == 200
    for call in (first, second):
        up.until_status(call.workflow, "succeeded")

    assert (done, before) == (4, 4)
    assert (ready["status"], "surefoot recover --since" in ready["attention"][0]) == ("degraded", True)
    assert "1  are in doubt" in said
    assert "1  are made again" in said
    assert up.http.get("/readyz").json()["database"] == "ok"
    books = [entry for entry in _effects(scene) if entry["tool"] == "calendar.create_event"]
    mails = [entry for entry in _effects(scene) if entry["tool"] == "email.send"]
    assert sorted(entry["executed"] for entry in books) == [False, False, True, True]
    assert len({entry["key"] for entry in books}) == 2
    assert [entry["executed"] for entry in mails] == [True, True]
    oracle.check_rows(rewindable.url, [uuid_of(call.workflow) for call in (first, second)])


def test_recover_waits_for_the_promotion_of_a_standby(rewindable: Rewindable) -> None:
    schema.upgrade(rewindable.url)
    rewindable.back_up()
    rewindable.put_back()

    refused = _run_recover(rewindable.url, "--nothing-lost")
    rewindable.promote()
    done = _run_recover(rewindable.url, "--nothing-lost")

    assert (refused.returncode, "This database is a standby" in refused.stderr) == (1, True)
    assert (done.returncode, "Effects are made again" in done.stdout) == (0, True), done.stderr


def _effects(scene: Scene) -> list[Row]:
    return [entry for entry in scene.tools.ledger() if entry["tool"] in ("calendar.create_event", "email.send")]


def _until_rung(up: Installation, *calls: Held) -> None:
    """Workers have been told of each of these calls since the restore, and have settled another one meanwhile."""
    workflows = [uuid_of(call.workflow) for call in calls]
    told = "workflow_id = ANY(%s) AND kind = 'call'"
    up.rows(f"UPDATE dues SET rung = 0, ring_at = clock_timestamp() WHERE {told} RETURNING 1", workflows)
    until(
        "the calls are rung twice",
        lambda: len(up.rows(f"SELECT 1 FROM dues WHERE {told} AND rung >= 2", workflows)) == len(calls),
    )
    reading = Scene(up, name="reading").submit("look")
    up.until_status(reading.workflow, "succeeded")


def _recover(up: Installation, to: datetime) -> str:
    told = _run_recover(up.ready["database_url"], "--since", to.astimezone(UTC).isoformat())
    assert told.returncode == 0, told.stderr
    return told.stdout


def _run_recover(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app.cli.main", "recover", *arguments],
        env={**os.environ, "SUREFOOT_DATABASE_URL": url},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
