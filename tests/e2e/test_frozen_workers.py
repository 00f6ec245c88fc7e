"""A worker frozen (SIGSTOP) for longer than its lease and thawed: what it learnt counts, what it planned does not.

A zombie is worse than a corpse: nobody has proof of its death, and it goes on where it stopped.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.e2e.driver import until
from tests.e2e.scene import Held, Scene

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(150)]


def test_a_thawed_worker_settles_its_calls_by_late_evidence_when_its_lease_is_over(scene: Scene) -> None:
    worker, (mail, book) = scene.in_one_worker(
        lambda: scene.submit_held("mail", when="after"), lambda: scene.submit_held("book", when="after")
    )
    scene.until_held(mail, book)
    scene.tools.forget_rules()
    # The repeat by the other worker must still be open when the first answer comes.
    scene.misbehave("book", book.tag, do="hold", when="after")

    zombie = _freeze_until_lost(scene, worker)
    until("the other worker asks again", lambda: len(scene.up.attempts(book.workflow)) == 2)
    until("the second request is held, too", lambda: len(_held(scene, book)) == 2)
    before = scene.up.attempts(mail.workflow)
    others = _pause(scene, worker)
    scene.up.thaw_only(zombie["pid"])
    scene.tools.release()

    # Only the thawed worker can tell: the other one is frozen now.
    for call in (book, mail):
        scene.up.until_status(call.workflow, "succeeded")
    first, _ = scene.up.attempts(book.workflow)
    assert (first["worker"], first["outcome"], first["lost_at"] is not None) == (zombie["id"], "succeeded", True)
    assert first["settled_at"] > first["lost_at"]
    (sent,) = scene.up.attempts(mail.workflow)
    assert (sent["worker"], sent["outcome"]) == (zombie["id"], "succeeded")
    assert [row["state"] for row in before] == ["intended"]
    assert _doubts(scene, mail, book) == 0
    assert [entry["executed"] for entry in scene.entries(mail)] == [True]
    assert sorted(entry["executed"] for entry in scene.entries(book)) == [False, True]
    scene.up.thaw_only(*others)
    until("the thawed worker has a lease of its own again", lambda: _alive(scene, zombie))


def test_a_thawed_worker_sends_nothing_when_it_was_frozen_between_claim_and_send(scene: Scene) -> None:
    # A plan that no worker has read yet is read between claim and send: there it stops.
    name = f"unread_{scene.tag()}"
    scene.up.freeze(*scene.up.workers)
    calls = [scene.submit(tool, name=name) for tool in ("book", "mail") for _ in range(4)]
    with scene.up.locked("plans"):
        scene.up.thaw()
        until("every call is claimed", lambda: all(len(scene.up.attempts(call.workflow)) == 1 for call in calls))
        worker = scene.worker_of(calls[0])
        zombie = _freeze_until_lost(scene, worker)
    frozen = [call for call in calls if scene.up.attempts(call.workflow)[0]["worker"] == zombie["id"]]
    books = [call for call in frozen if call.tool == "book"]
    for call in books:
        scene.up.until_status(call.workflow, "succeeded")
    scene.up.thaw()

    for call in calls:
        scene.up.until_status(call.workflow, "succeeded")
    for call in frozen:
        until("the thawed worker has told", lambda call=call: scene.up.attempts(call.workflow)[0]["outcome"])
        first, second = scene.up.attempts(call.workflow)
        assert (first["outcome"], second["outcome"]) == ("not_sent", "succeeded")
        assert [entry["attempt"] for entry in scene.entries(call)] == ["2"]
    assert _doubts(scene, *calls) == 0
    assert {call.tool for call in frozen} >= {"book"}


def test_a_doubt_outlasts_the_zombie_when_its_deadline_passed_while_it_was_frozen(scene: Scene) -> None:
    mail = scene.submit_held("mail", when="before", timeout="5s", settle="2s")
    scene.until_held(mail)
    zombie = _freeze_until_lost(scene, scene.worker_of(mail))
    scene.tools.release()
    until("the mail is sent", lambda: scene.executed(mail) == 1)

    doubt = scene.until_in_doubt(mail)
    (attempt,) = scene.up.attempts(mail.workflow)
    (call,) = scene.up.rows("SELECT not_before FROM calls WHERE id = %s", attempt["call_id"])
    assert attempt["reaped_at"] is None
    assert call["not_before"] >= attempt["send_deadline"] + timedelta(seconds=2)
    scene.up.thaw()

    until("the thawed worker has told", lambda: scene.up.attempts(mail.workflow)[0]["outcome"])
    (attempt,) = scene.up.attempts(mail.workflow)
    assert attempt["worker"] == zombie["id"]
    # Its deadline is over, so it may give up on the answer that lies in its socket: then the quarantine begins anew.
    if attempt["outcome"] == "unknown":
        (later,) = scene.up.rows("SELECT not_before FROM calls WHERE id = %s", attempt["call_id"])
        assert later["not_before"] >= attempt["settled_at"] + timedelta(seconds=2) > call["not_before"]
        assert scene.up.resolve(doubt, "happened").status_code == 200
    scene.up.until_status(mail.workflow, "succeeded")
    assert [entry["executed"] for entry in scene.entries(mail)] == [True]


def _freeze_until_lost(scene: Scene, worker: str) -> dict[str, Any]:
    """Stop that worker and wait until its lease was ended; its row of before."""
    pid = scene.up.workers[worker]
    (row,) = scene.up.rows("SELECT * FROM workers WHERE pid = %s AND lost_at IS NULL AND stopped_at IS NULL", pid)
    scene.up.freeze(worker)
    until(
        f"the lease of {worker} is over",
        lambda: scene.up.rows("SELECT id FROM workers WHERE id = %s AND lost_at IS NOT NULL", row["id"]),
    )
    return row


def _pause(scene: Scene, but: str) -> list[int]:
    return scene.up.freeze_at_rest(*(name for name in scene.up.workers if name != but))


def _alive(scene: Scene, zombie: dict[str, Any]) -> bool:
    """The same process as another worker."""
    found = scene.up.rows("SELECT id FROM workers WHERE pid = %s AND lost_at IS NULL", zombie["pid"])
    return bool(found) and found[0]["id"] != zombie["id"]


def _held(scene: Scene, call: Held) -> list[dict[str, Any]]:
    return [held for held in scene.tools.held() if held["arguments"].get("title") == call.tag]


def _doubts(scene: Scene, *calls: Held) -> int:
    found = scene.up.rows(
        "SELECT count(*) AS n FROM events WHERE type = 'effect.in_doubt' AND workflow_id = ANY(%s)", scene.uuids(*calls)
    )
    return int(found[0]["n"])
