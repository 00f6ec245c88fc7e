"""Python tools in real worker processes: the example package, and workers that are killed while a function runs.

The functions keep a ledger of their own, one file per tag, and return when the test lets them.
"""

from __future__ import annotations

import os
import signal
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from app.embedded import process
from tests import packages
from tests.e2e import oracle
from tests.e2e.driver import REPOSITORY, Installation, until, uuid_of

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(200)]

PATIENCE = 60.0
"""Seconds a condition may take on a busy machine before it is called false."""

EXAMPLE = REPOSITORY / "examples" / "python-tools"
SOURCE = '''
import asyncio, os, threading
from pathlib import Path

def _enter(ledger, key):
    with open(ledger, "a") as file:
        file.write(f"{os.getpid()} {key}\\n")
        file.flush()
        os.fsync(file.fileno())

async def wait(ledger, context):
    """Async: on the event loop of the worker."""
    _enter(ledger, context.key)
    while not Path(f"{ledger}.go").exists():
        await asyncio.sleep(0.02)
    return {"by": os.getpid()}

def block(ledger, context):
    """In a thread of the worker."""
    _enter(ledger, context.key)
    tick = threading.Event()
    while not Path(f"{ledger}.go").exists():
        tick.wait(0.02)
    return {"by": os.getpid()}
'''


class Site:
    """An installation whose workers see these packages."""

    def __init__(self, folder: Path, up: Installation) -> None:
        self.folder, self.up = folder, up
        self.workflows: list[str] = []

    def submit(self, definition: dict[str, Any], **given: Any) -> str:
        workflow = self.up.submit(definition, input=given)
        self.workflows.append(workflow)
        return workflow

    def call(self, function: str, effect: str) -> tuple[str, Path]:
        """A workflow of one call that does not return until `let_go`; its ledger."""
        ledger = self.folder / uuid4().hex
        tool = {"python": f"acme-tools:{function}", "effect": effect, "timeout": "60s", "settle_time": "1s"}
        if effect == "keyed":
            tool["key_ttl"] = "1h"
        step = {"tool": "acme", "with": {"ledger": str(ledger)}}
        return self.submit({"name": "acme", "tools": {"acme": tool}, "steps": {"s": step}}), ledger


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    declared = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    entries = declared["entry-points"]["surefoot.tools"]
    info = packages.write(
        folder / "example", "", entries, distribution=declared["name"], module="surefoot_examples", version="1.0"
    )
    (info / "surefoot_examples.py").unlink()  # the real one stands later on the path
    acme = packages.write(folder / "acme", SOURCE, ["wait", "block"])
    path = os.pathsep.join(str(place) for place in (info, EXAMPLE, acme))
    up = Installation(folder, environment={"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"})
    up.start()
    try:
        yield Site(folder, up)
    finally:
        up.stop()


@pytest.fixture
def lawful(site: Site) -> Iterator[Site]:
    site.workflows = []
    # The test before has killed one, and its restart takes as long as the machine likes.
    until("every worker runs", lambda: all(site.up.workers.values()), seconds=PATIENCE)
    yield site
    oracle.check_rows(site.up.ready["database_url"], [uuid_of(workflow) for workflow in site.workflows])


def entered(ledger: Path) -> list[tuple[int, str]]:
    """(pid, key) of every time the function was entered."""
    lines = ledger.read_text().splitlines() if ledger.exists() else []
    return [(int(line.split()[0]), line.split()[1]) for line in lines]


def kill_its_worker(site: Site, ledger: Path) -> int:
    [(pid, _)] = until("the function is at work", lambda: entered(ledger), seconds=PATIENCE)
    site.up.kill(site.up.name_of(pid))
    return pid


def let_go(ledger: Path) -> None:
    Path(f"{ledger}.go").touch()


def test_example_package_works_as_its_definition_says(lawful: Site) -> None:
    definition = (REPOSITORY / "examples" / "python-tools.yaml").read_text()
    body = {"definition_text": definition, "input": {"folder": str(lawful.folder), "title": "note", "text": "hello"}}

    answer = lawful.up.http.post("/v1/workflows", json=body, headers={"Idempotency-Key": uuid4().hex})
    assert answer.status_code == 202, answer.text
    lawful.workflows.append(answer.json()["id"])
    done = lawful.up.until_status(answer.json()["id"], "succeeded", seconds=PATIENCE)

    assert done["output"] == {"path": str(lawful.folder / "note.txt")}
    assert (lawful.folder / "note.txt").read_text() == "HELLO"
    assert not list(lawful.folder.glob("note.call_*"))


@pytest.mark.parametrize("function", ["wait", "block"])
@pytest.mark.parametrize("effect", ["idempotent", "keyed"])
def test_function_is_called_again_by_another_worker_when_its_own_is_killed(
    lawful: Site, function: str, effect: str
) -> None:
    workflow, ledger = lawful.call(function, effect)

    dead = kill_its_worker(lawful, ledger)
    until("it was called again", lambda: len(entered(ledger)) == 2, seconds=PATIENCE)
    let_go(ledger)

    lawful.up.until_status(workflow, "succeeded", seconds=PATIENCE)
    (_, first), (again, second) = entered(ledger)
    assert again != dead
    assert first == second
    assert (first == "None") == (effect == "idempotent")
    assert lawful.up.step(workflow, "s")["output"] == {"by": again}


@pytest.mark.parametrize("function", ["wait", "block"])
def test_at_most_once_function_is_in_doubt_and_never_called_again_when_its_worker_is_killed(
    lawful: Site, function: str
) -> None:
    workflow, ledger = lawful.call(function, "at_most_once")

    kill_its_worker(lawful, ledger)
    [doubt] = until(
        "the call is in doubt",
        lambda: [each for each in lawful.up.effects(workflow) if each["state"] == "in_doubt"],
        seconds=PATIENCE,
    )
    let_go(ledger)

    assert lawful.up.resolve(doubt["id"], "happened", result={"seen": True}).status_code == 200
    lawful.up.until_status(workflow, "succeeded", seconds=PATIENCE)
    assert len(entered(ledger)) == 1
    assert lawful.up.step(workflow, "s")["output"] == {"seen": True}


def test_worker_that_is_told_to_end_waits_for_the_function_it_has_called(lawful: Site) -> None:
    workflow, ledger = lawful.call("block", "at_most_once")
    [(pid, _)] = until("the function is at work", lambda: entered(ledger), seconds=PATIENCE)
    name = lawful.up.name_of(pid)

    lawful.up.signal([name], signal.SIGTERM)
    let_go(ledger)

    lawful.up.until_status(workflow, "succeeded", seconds=PATIENCE)
    until("the worker has ended", lambda: not process.alive(pid), seconds=PATIENCE)
    assert entered(ledger) == [(pid, "None")]
