"""SIGTERM to workers: what is on the wire is finished and written down, what is harmless is given back at once."""

from __future__ import annotations

import signal

import pytest

from app.embedded import process
from tests.e2e.driver import until, uuid_of
from tests.e2e.scene import Scene

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(150)]

LOAD = 30


def test_a_sent_effect_is_recorded_and_a_read_given_back_when_its_worker_is_stopped(scene: Scene) -> None:
    worker, (mail, look) = scene.in_one_worker(
        lambda: scene.submit_held("mail", when="after"), lambda: scene.submit_held("look", when="after")
    )
    scene.until_held(mail, look)

    stopped = scene.up.signal([worker], signal.SIGTERM)

    scene.up.until_status(look.workflow, "succeeded")
    assert scene.tools.held_marks("email.send") >= {mail.tag}
    assert process.alive(stopped[worker])
    given_back, again = scene.up.attempts(look.workflow)
    assert (given_back["worker_name"], again["outcome"]) == (worker, "succeeded")
    assert again["worker_name"] != worker
    scene.tools.release()
    scene.up.until_status(mail.workflow, "succeeded")
    (sent,) = scene.up.attempts(mail.workflow)
    assert (sent["pid"], sent["outcome"]) == (stopped[worker], "succeeded")
    assert len(scene.entries(mail)) == 1
    until("it has ended", lambda: not process.alive(stopped[worker]))
    assert f"{worker} (pid {stopped[worker]}) ended with exit code 0" in scene.up.log.read_text()
    # A process that was frozen past its lease in another test has an earlier, lost incarnation: the newest ended.
    newest = "SELECT stopped_at, lost_at FROM workers WHERE pid = %s ORDER BY started_at DESC LIMIT 1"
    (ended,) = scene.up.rows(newest, stopped[worker])
    assert (ended["stopped_at"] is not None, ended["lost_at"]) == (True, None)
    scene.up.until_back(stopped)


def _mails_in_flight(scene: Scene) -> bool:
    open_mails = (
        "SELECT count(*) AS n FROM attempts a JOIN calls c ON c.workflow_id = a.workflow_id AND c.id = a.call_id "
        "WHERE c.tool = 'mail' AND a.outcome IS NULL AND a.workflow_id = ANY(%s)"
    )
    (found,) = scene.up.rows(open_mails, [uuid_of(workflow) for workflow in scene.workflows])
    return bool(found["n"])


def test_no_doubt_and_no_repeat_when_workers_are_restarted_one_by_one_under_load(scene: Scene) -> None:
    scene.tools.behave(tool="email.send", do="delay", ms=300, times=None)
    calls = []
    for worker in sorted(scene.up.workers):
        calls += [scene.submit("book", "mail", "look") for _ in range(LOAD // 2)]
        # A slow machine may have finished them all before it looks: then there is more to do.
        while not _mails_in_flight(scene):
            calls.append(scene.submit("book", "mail", "look"))
        scene.up.until_back(scene.up.signal([worker], signal.SIGTERM))

    for call in calls:
        scene.up.until_status(call.workflow, "succeeded", seconds=40)
    told = scene.up.rows(
        "SELECT type FROM events WHERE workflow_id = ANY(%s) AND type IN ('effect.in_doubt', 'agent.worker.lost')",
        scene.uuids(*calls),
    )
    assert told == []
    ledger = scene.tools.ledger()
    for call in calls:
        sent = [entry["tool"] for entry in ledger if entry["workflow"] == call.workflow]
        assert (sent.count("calendar.create_event"), sent.count("email.send")) == (1, 1)
