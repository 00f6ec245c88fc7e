"""MCP tools in real worker processes: a real git server's commits are counted, and workers are killed in mid-call."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.embedded import process
from tests.e2e import oracle
from tests.e2e.driver import REPOSITORY, Installation, until, uuid_of

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(200)]

PATIENCE = 60.0
"""Seconds a condition may take on a busy machine before it is called false."""

GIT = str(Path(sys.executable).parent / "mcp-server-git")
MISBEHAVING = str(REPOSITORY / "tests" / "ports" / "mcp_server.py")


class Site:
    def __init__(self, folder: Path, up: Installation) -> None:
        self.folder, self.up = folder, up
        self.workflows: list[str] = []

    def submit(self, definition: dict[str, Any]) -> str:
        workflow = self.up.submit(definition)
        self.workflows.append(workflow)
        return workflow


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("mcp")
    installation = Installation(folder)
    installation.start()
    try:
        yield Site(folder, installation)
    finally:
        installation.stop()


@pytest.fixture
def site(up: Site) -> Iterator[Site]:
    up.workflows = []
    until("every worker runs", lambda: all(up.up.workers.values()), seconds=PATIENCE)
    yield up
    oracle.check_rows(up.up.ready["database_url"], [uuid_of(workflow) for workflow in up.workflows])


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for command in (["init", "-q"], ["config", "user.email", "a@x.io"], ["config", "user.name", "Ana"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    (tmp_path / "a.txt").write_text("a\n")
    subprocess.run(["git", "-C", str(tmp_path), "add", "a.txt"], check=True)
    return tmp_path


def book(folder: Path) -> list[dict[str, Any]]:
    noted = folder / "book.jsonl"
    return [json.loads(line) for line in noted.read_text().splitlines()] if noted.exists() else []


def at_work(folder: Path) -> list[int]:
    """The processes of the server's call, once it is under way."""
    return next((line["pids"] for line in book(folder) if "pids" in line), [])


def hanging(folder: Path, **server: Any) -> dict[str, Any]:
    command = [sys.executable, MISBEHAVING, "--book", str(folder / "book.jsonl")]
    declared = {"mcp": {"command": command}, "timeout": "60s", "settle_time": "1s", **server}
    return {"name": "hangs", "tools": {"bad": declared}, "steps": {"s": {"tool": "bad.hang", "with": {}}}}


def test_git_server_commits_once_and_the_log_shows_it(site: Site, repository: Path) -> None:
    place = {"repo_path": str(repository)}
    definition = {
        "name": "commit",
        "tools": {"git": {"mcp": {"command": [GIT, "--repository", str(repository)]}, "trust_annotations": True}},
        "steps": {
            "commit": {"tool": "git.git_commit", "with": {**place, "message": "first"}},
            "log": {"needs": ["commit"], "tool": "git.git_log", "with": place},
        },
        "output": {"log": "${{ steps.log.output }}"},
    }

    done = site.up.until_status(site.submit(definition), "succeeded", seconds=PATIENCE)

    assert "first" in json.dumps(done["output"])
    log = subprocess.run(["git", "-C", str(repository), "log", "--oneline"], check=True, capture_output=True, text=True)
    assert len(log.stdout.splitlines()) == 1


def test_call_is_in_doubt_and_its_server_gone_when_the_worker_is_killed(site: Site, tmp_path: Path) -> None:
    workflow = site.submit(hanging(tmp_path))
    pids = until("the server is at work", lambda: at_work(tmp_path), seconds=PATIENCE)
    worker = _parent_of(pids[0])

    site.up.kill(site.up.name_of(worker))
    [doubt] = until(
        "the call is in doubt",
        lambda: [each for each in site.up.effects(workflow) if each["state"] == "in_doubt"],
        seconds=PATIENCE,
    )

    until("the server is gone", lambda: not process.alive(pids[0]), seconds=PATIENCE)
    os.kill(pids[1], signal.SIGKILL)  # what a server has started itself outlives it: nobody else ends it
    assert site.up.resolve(doubt["id"], "happened", result={"seen": True}).status_code == 200
    site.up.until_status(workflow, "succeeded", seconds=PATIENCE)
    assert len([line for line in book(tmp_path) if "name" in line]) == 1  # never called again


def _parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_read_only_call_is_made_again_by_another_worker_when_its_own_is_killed(site: Site, tmp_path: Path) -> None:
    workflow = site.submit(hanging(tmp_path, effect="read_only"))
    pids = until("the server is at work", lambda: at_work(tmp_path), seconds=PATIENCE)

    site.up.kill(site.up.name_of(_parent_of(pids[0])))
    until(
        "it was called again", lambda: len([line for line in book(tmp_path) if "pids" in line]) == 2, seconds=PATIENCE
    )

    assert site.up.http.post(f"/v1/workflows/{workflow}/cancel", json={}).status_code in (200, 202)
    site.up.until_status(workflow, "cancelled", seconds=PATIENCE)
    again = [line["pids"] for line in book(tmp_path) if "pids" in line][-1]
    until("its server is gone, too", lambda: not any(process.alive(pid) for pid in again), seconds=PATIENCE)
