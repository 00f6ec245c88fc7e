"""A doubt from the death of a worker to a person's word over HTTP, and what each word makes the engine do."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.e2e.driver import until
from tests.e2e.scene import Scene

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(150)]

SETTLE = 4
"""Seconds: long enough to be refused once, short enough to wait for."""


def test_a_doubt_is_settled_by_word_when_the_parent_has_proved_the_death(scene: Scene) -> None:
    worker, calls = scene.in_one_worker(
        *(
            lambda when=when: scene.submit_held("mail", when=when, settle=f"{SETTLE}s")
            for when in ("before", "before", "after")
        )
    )
    repeat, abandon, happened = calls
    until("the last mail is sent, its answer is not", lambda: scene.executed(happened) == 1)

    scene.up.kill(worker)

    ids = {call: scene.until_in_doubt(call) for call in calls}
    for call in calls:
        (attempt,) = scene.up.attempts(call.workflow)
        (row,) = scene.up.rows("SELECT not_before, doubt_since FROM calls WHERE id = %s", attempt["call_id"])
        assert row["not_before"] == attempt["reaped_at"] + timedelta(seconds=SETTLE)
        assert row["doubt_since"] < attempt["send_deadline"]
        waits = scene.up.workflow(call.workflow)["waiting_on"]
        assert [(wait["kind"], wait["effect"]) for wait in waits] == [("doubt", ids[call])]
    early = scene.up.resolve(ids[repeat], "did_not_happen")
    assert (early.status_code, early.json()["code"]) == (409, "quarantine_active")
    assert early.json()["not_before"]
    assert 1 <= int(early.headers["retry-after"]) <= SETTLE

    assert scene.up.resolve(ids[happened], "happened", result={"message_id": "m1"}).status_code == 200
    assert scene.up.resolve(ids[abandon], "abandon").status_code == 200
    until("the quarantine is over", lambda: scene.up.resolve(ids[repeat], "did_not_happen").status_code == 200)

    assert scene.up.until_status(abandon.workflow, "failed")["failure"]["kind"] == "unknown_outcome"
    assert scene.entries(abandon) == []
    scene.up.until_status(happened.workflow, "succeeded")
    assert scene.up.step(happened.workflow, "mail")["output"] == {"message_id": "m1"}
    assert len(scene.entries(happened)) == 1
    scene.up.until_status(repeat.workflow, "succeeded")
    assert [(entry["attempt"], entry["executed"]) for entry in scene.entries(repeat)] == [("2", True)]
    for call, word in ((repeat, "happened"), (happened, "abandon")):
        again = scene.up.resolve(ids[call], word)
        assert (again.status_code, again.json()["code"]) == (409, "already_resolved")
    assert scene.up.resolve(ids[happened], "happened").status_code == 200


def test_calls_follow_their_class_when_the_tool_loses_its_answer(scene: Scene) -> None:
    calls = {}
    for name in ("look", "clear", "book", "mail"):
        tag = scene.tag()
        scene.misbehave(name, tag, do="drop_reply")
        calls[name] = scene.submit(name, tag=tag)

    doubt = scene.until_in_doubt(calls["mail"])

    for name in ("look", "clear", "book"):
        scene.up.until_status(calls[name].workflow, "succeeded")
        assert len(scene.entries(calls[name])) == 2
    assert [entry["executed"] for entry in scene.entries(calls["book"])] == [True, False]
    (row,) = scene.up.attempts(calls["mail"].workflow)
    assert (row["outcome"], row["lost_at"]) == ("unknown", None)
    assert [entry["executed"] for entry in scene.entries(calls["mail"])] == [True]
    assert scene.up.resolve(doubt, "happened").status_code == 200
    scene.up.until_status(calls["mail"].workflow, "succeeded")
