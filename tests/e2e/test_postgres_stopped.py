"""Postgres stopped without a goodbye (SIGQUIT, as `pg_ctl -m immediate`) in the middle of the work of 50 workflows."""

from __future__ import annotations

import signal
from collections import defaultdict

import pytest

from tests.e2e.driver import until
from tests.e2e.scene import Held, Scene

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(150)]

WORKFLOWS = 50


def test_every_workflow_ends_or_waits_in_a_true_doubt_when_postgres_is_stopped_at_once(scene: Scene) -> None:
    scene.tools.behave(do="delay", ms=100, times=None)
    calls = [scene.submit("book", "mail", "look") for _ in range(WORKFLOWS)]
    until("mails are being sent", lambda: _count(scene, "email.send") >= 3)

    dead = scene.up.signal(["postgres"], signal.SIGQUIT)
    scene.up.until_back(dead)

    doubts = [call for call in calls if _settled(scene, call) == "waiting"]
    for call in doubts:
        _settle_by_the_books(scene, call)
    for call in calls:
        scene.up.until_status(call.workflow, "succeeded", seconds=40)
    for call in calls:
        mail = Held(workflow=call.workflow, tool="mail", tag=call.tag)
        assert (scene.executed(call), scene.executed(mail)) == (1, 1)
    lived = scene.up.rows("SELECT id FROM workers WHERE lost_at IS NULL AND stopped_at IS NULL")
    assert len(lived) == len(scene.up.workers)


def test_answers_are_recorded_when_they_arrive_while_postgres_is_away(scene: Scene) -> None:
    calls = [scene.submit_held(name, when="after") for name in ("mail", "book", "clear", "look")]
    scene.until_held(*calls)
    before = scene.up.workers

    dead = scene.up.signal(["postgres"], signal.SIGQUIT)
    scene.tools.release()
    scene.up.until_back(dead)

    for call in calls:
        scene.up.until_status(call.workflow, "succeeded")
        (attempt,) = scene.up.attempts(call.workflow)
        assert attempt["outcome"] == "succeeded"
        assert attempt["pid"] in before.values()
        assert len(scene.entries(call)) == 1


def test_an_agent_goes_on_when_postgres_was_restarted_since_its_worker_last_read(scene: Scene) -> None:
    first = [_agent(scene) for _ in range(6)]
    for workflow in first:
        scene.up.until_status(workflow, "succeeded")

    scene.up.until_back(scene.up.signal(["postgres"], signal.SIGQUIT))
    until("the API is back", lambda: scene.up.http.get("/readyz").status_code == 200)
    second = [_agent(scene) for _ in range(6)]

    for workflow in second:
        scene.up.until_status(workflow, "succeeded")


def test_a_model_call_is_made_again_when_postgres_stops_between_claim_and_send(scene: Scene) -> None:
    scene.up.freeze(*scene.up.workers)  # for less than a lease
    workflow = _agent(scene)
    with scene.up.locked("messages") as lock:
        scene.up.thaw()
        until("a worker reads what to send", lambda: lock.waiting("surefoot messages"))

        scene.up.until_back(scene.up.signal(["postgres"], signal.SIGQUIT))

    scene.up.until_status(workflow, "succeeded")
    outcomes: dict[str, list[str]] = defaultdict(list)
    for attempt in scene.up.attempts(workflow):
        outcomes[str(attempt["call_id"])].append(attempt["outcome"])
    assert ["not_sent", "succeeded"] in outcomes.values()


def _agent(scene: Scene) -> str:
    """A workflow of two model calls, with a definition that no worker has read yet."""
    steps = {
        name: {"agent": {"model": "fast"}, "prompt": "Say yes.", "output_schema": {"yes": {"type": "boolean"}}}
        for name in ("first", "second")
    }
    workflow = scene.up.submit({"name": f"agent_{scene.tag()}", "steps": steps})
    scene.workflows.append(workflow)
    return workflow


def _count(scene: Scene, tool: str) -> int:
    return sum(entry["tool"] == tool and entry["workflow"] in scene.workflows for entry in scene.tools.ledger())


def _settled(scene: Scene, call: Held) -> str:
    found: str = scene.up.until_status(call.workflow, "succeeded", "waiting", seconds=40)["status"]
    return found


def _settle_by_the_books(scene: Scene, call: Held) -> None:
    """Do what a person would: look whether the mail was sent, then say so."""
    mail = Held(workflow=call.workflow, tool="mail", tag=call.tag)
    doubt = scene.until_in_doubt(mail)
    word = "happened" if scene.executed(mail) else "did_not_happen"
    until(f"{doubt} is settled as {word}", lambda: scene.up.resolve(doubt, word).status_code == 200, seconds=40)
