"""`surefoot up` as a process: it comes up, stays up, says no in words, and leaves nobody behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app.embedded import process

REPOSITORY = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("stand_in_up.py")


class Running:
    """One `up`, its output in files, and every process it is known to have started."""

    def __init__(self, home: Path, *, data: Path, port: int = 0, arguments: tuple[str, ...] = (), **environment: str):
        self.data = data
        self.pids_directory = home / "pids"
        self.pids_directory.mkdir(exist_ok=True)
        self.log = home / f"log.{len(list(home.glob('log.*')))}"
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("SUREFOOT_", "ANTHROPIC_"))}
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(PROGRAM), str(data), str(port), *arguments],
                env={**clean, "PYTHONPATH": str(REPOSITORY), "PIDS": str(self.pids_directory), **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        return self.log.read_text()

    @property
    def ready(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.data / "ready.json").read_text())
        return found

    @property
    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.said
        return (self.data / "ready.json").exists()

    @property
    def family(self) -> set[int]:
        """Every living process of this `up`: those with its data directory or our stand-in's marker."""
        marked = {int(path.name) for path in self.pids_directory.iterdir()}
        listed = subprocess.run(["pgrep", "-f", str(self.data)], capture_output=True, text=True, check=False)
        found = marked | {int(pid) for pid in listed.stdout.split()}
        return {pid for pid in found if process.alive(pid)}

    def end(self, *, seconds: float = 30) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=seconds)


@pytest.fixture
def start(home: Path) -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def begin(**told: Any) -> Running:
        started.append(Running(home, **{"data": home / "data", **told}))
        return started[-1]

    yield begin
    for each in started:
        family = each.family
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait()
        for pid in family:
            process.send(pid, signal.SIGKILL)


Until = Callable[..., None]


def test_up_writes_the_ready_file_when_everything_answers(start: Callable[..., Running], until: Until) -> None:
    running = start()
    until(lambda: running.is_ready, "the ready file")
    ready = running.ready

    assert set(ready) == {
        *("url", "key", "webhook_secret", "database_url", "redis_url", "model_url", "tools_url", "data", "pids")
    }
    names = {"supervisor", "api", "postgres", "redis", "model", "tools", "worker.1", "worker.2"}
    assert set(ready["pids"]) == names
    assert all(process.alive(pid) for pid in ready["pids"].values())
    assert (running.data / "ready.json").stat().st_mode & 0o777 == 0o600
    assert json.loads(urllib.request.urlopen(ready["url"]).read()) == {"pid": ready["pids"]["api"]}
    assert json.loads(urllib.request.urlopen(ready["tools_url"] + "/ledger").read())["data"] == []
    with psycopg.connect(ready["database_url"]) as connection:
        rows = connection.execute("SELECT name, pid FROM workers ORDER BY name").fetchall()
    assert rows == [(name, ready["pids"][name]) for name in ("worker.1", "worker.2")]
    assert f"registered {ready['tools_url']}" in running.said

    family = running.family
    assert running.end() == 0
    assert len(family) >= len(names)
    assert running.family == set()
    assert not (running.data / "ready.json").exists()


def test_up_proves_a_death_and_rewrites_the_ready_file_when_a_worker_was_killed(
    start: Callable[..., Running], until: Until
) -> None:
    running = start()
    until(lambda: running.is_ready, "the ready file")
    before = running.ready

    os.kill(before["pids"]["worker.1"], signal.SIGKILL)
    until(lambda: running.ready["pids"]["worker.1"] != before["pids"]["worker.1"], "another worker.1")

    after = running.ready
    assert {**after["pids"], "worker.1": 0} == {**before["pids"], "worker.1": 0}
    assert process.alive(after["pids"]["worker.1"])
    with psycopg.connect(before["database_url"]) as connection:
        dead = connection.execute(
            "SELECT reaped_at IS NOT NULL, lost_at IS NOT NULL FROM workers WHERE pid = %s",
            [before["pids"]["worker.1"]],
        ).fetchall()
    assert dead == [(True, True)]


@pytest.mark.parametrize("part", ["api", "tools", "redis", "postgres"])
def test_up_keeps_every_address_when_a_part_was_killed(part: str, start: Callable[..., Running], until: Until) -> None:
    running = start()
    until(lambda: running.is_ready, "the ready file")
    before = running.ready

    os.kill(before["pids"][part], signal.SIGKILL)
    until(lambda: running.ready["pids"][part] != before["pids"][part], f"another {part}")

    after = running.ready
    assert {**after, "pids": {}} == {**before, "pids": {}}
    assert process.alive(after["pids"][part])
    assert running.end() == 0
    assert running.family == set()


def test_second_up_is_refused_when_the_first_runs_on_the_same_data(start: Callable[..., Running], until: Until) -> None:
    first = start()
    until(lambda: first.is_ready, "the ready file")

    second = start(port=int(first.ready["url"].rpartition(":")[2]))

    assert second.process.wait(timeout=20) == 1
    assert f"already runs on {first.data}: {first.ready['url']} (pid {first.process.pid})" in second.said
    assert first.process.poll() is None


def test_up_is_refused_when_its_port_is_taken(start: Callable[..., Running]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        running = start(port=taken.getsockname()[1])

        code = running.process.wait(timeout=20)

    assert code == 1
    assert "is taken by another program" in running.said
    assert "--port 0" in running.said
    assert not (running.data / "postgres").exists()


def test_up_continues_with_data_and_key_when_it_was_killed(start: Callable[..., Running], until: Until) -> None:
    first = start()
    until(lambda: first.is_ready, "the ready file")
    ready = first.ready
    with psycopg.connect(ready["database_url"], autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (n int)")
    family = first.family

    first.process.kill()
    first.process.wait()
    (first.data / "ready.json").unlink()
    second = start()
    until(lambda: second.is_ready, "the ready file of the second")

    assert second.ready["key"] == ready["key"]
    with psycopg.connect(second.ready["database_url"]) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)
    until(lambda: not [pid for pid in family if process.alive(pid) and pid not in second.family], "orphans end")
    assert second.end() == 0
    assert second.family == set()


@pytest.mark.parametrize("moment", ["lock", "postgres/data", "run/tools.port", "key"])
def test_up_leaves_nobody_when_ctrl_c_comes_during_its_start(
    moment: str, start: Callable[..., Running], until: Until, home: Path
) -> None:
    running = start(DELAY_READY=str(home / "never"))
    until(lambda: (running.data / moment).exists() or running.process.poll() is not None, moment)

    code = running.end()

    assert code == 0, running.said
    assert "never retrieved" not in running.said
    assert running.family == set()
    assert not (running.data / "ready.json").exists()


def test_up_ends_at_once_when_ctrl_c_comes_twice(start: Callable[..., Running], until: Until) -> None:
    running = start(STUBBORN="1")
    until(lambda: running.is_ready, "the ready file")
    running.process.send_signal(signal.SIGINT)
    until(lambda: "stopping: workers first" in running.said, "the first Ctrl-C")

    running.process.send_signal(signal.SIGINT)

    assert running.process.wait(timeout=4) == 0
    assert running.family == set()


def test_up_leaves_no_directory_when_it_was_ephemeral(start: Callable[..., Running], until: Until) -> None:
    running = start(arguments=("--ephemeral",))
    until(lambda: "ready http" in running.said, "the welcome")
    data = Path(next(line.removeprefix("data ") for line in running.said.splitlines() if line.startswith("data ")))
    was_there = (data / "postgres").exists()

    assert running.end() == 0

    assert was_there
    assert not data.exists()
    assert not running.data.exists()


def test_up_starts_degraded_when_the_redis_of_the_settings_is_away(
    start: Callable[..., Running], until: Until, home: Path
) -> None:
    running = start(SUREFOOT_REDIS_URL=f"unix://{home}/nobody.sock?db=0")
    until(lambda: running.is_ready, "the ready file")

    assert running.ready["redis_url"] == f"unix://{home}/nobody.sock?db=0"
    assert running.ready["pids"]["redis"] is None
    assert "Redis at SUREFOOT_REDIS_URL does not answer" in running.said


def test_up_says_who_answers_when_a_model_url_is_set_without_its_key(
    start: Callable[..., Running], until: Until
) -> None:
    running = start(ANTHROPIC_BASE_URL="http://127.0.0.1:1", ANTHROPIC_API_KEY="")
    until(lambda: running.is_ready, "the ready file")

    assert "ANTHROPIC_API_KEY is not: the scripted model answers" in running.said
    assert running.ready["model_url"] != "http://127.0.0.1:1"


def test_up_leaves_a_directory_as_it_is_when_it_was_there_before(
    start: Callable[..., Running], until: Until, home: Path
) -> None:
    mine = home / "mine"
    mine.mkdir(mode=0o755)
    mine.chmod(0o755)

    running = start(data=mine)
    until(lambda: running.is_ready, "the ready file")

    assert mine.stat().st_mode & 0o777 == 0o755
    assert not (mine / ".gitignore").exists()


def test_up_is_refused_when_its_data_is_a_file(start: Callable[..., Running], home: Path) -> None:
    (home / "file").write_text("")

    running = start(data=home / "file")

    assert running.process.wait(timeout=30) == 1
    assert "is not a directory we may write to" in running.said
