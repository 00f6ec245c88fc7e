"""Postgres stopped without a goodbye (SIGQUIT, as `pg_ctl -m immediate`) in the middle of the work of 50 workflows."""

from __future__ import annotations

import signal

import pytest

from tests.e2e.driver import until
from tests.e2e.scene import Held, Scene

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(110)]

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
    until(
        f"{doubt} is settled as {word}", lambda: scene.up.resolve(doubt, word).status_code == 200, seconds=40
    )
