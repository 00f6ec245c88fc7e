"""SIGKILL to workers, at every point between a doorbell and the next one, with a call of every effect class in hand.

The points are held open by what the worker needs there: a table it cannot get at, a tool that keeps its request or its
answer back. What each class may do afterwards is judged by the tool's ledger.
"""

from __future__ import annotations

import signal

import pytest
import redis

from tests.e2e.driver import until
from tests.e2e.scene import Held, Scene

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(150)]

CLASSES = ("look", "clear", "book", "mail")
REPEATABLE = ("look", "clear", "book")


def test_workers_make_every_call_once_when_killed_with_the_doorbell_in_hand(scene: Scene) -> None:
    with scene.up.locked("attempts") as lock:
        calls = [scene.submit(name) for name in CLASSES]
        until("a claim stands before the lock", lambda: lock.waiting("surefoot claim"))
        with redis.Redis.from_url(scene.up.ready["redis_url"]) as client:
            until("every doorbell was taken", lambda: client.llen("calls") == 0)

        dead = scene.up.kill(*scene.up.workers)
        # Their backends do not know yet that nobody listens: only a recorded death keeps them from claiming.
        living = "SELECT id FROM workers WHERE pid = ANY(%s) AND lost_at IS NULL"
        until("their deaths are written down", lambda: not scene.up.rows(living, list(dead.values())))

    scene.up.until_back(dead)
    for call in calls:
        scene.up.until_status(call.workflow, "succeeded")
        (attempt,) = scene.up.attempts(call.workflow)
        assert attempt["pid"] not in dead.values()
        assert len(scene.entries(call)) == 1


def test_calls_follow_their_class_when_workers_are_killed_before_the_tool_acts(scene: Scene) -> None:
    calls = {name: scene.submit_held(name, when="before") for name in CLASSES}
    scene.until_held(*calls.values())

    scene.up.kill(*scene.up.workers)

    for name in REPEATABLE:
        scene.up.until_status(calls[name].workflow, "succeeded")
        assert [row["outcome"] for row in scene.up.attempts(calls[name].workflow)] == [None, "succeeded"]
    doubt = scene.until_in_doubt(calls["mail"])
    assert scene.entries(calls["mail"]) == []
    # What had left arrives after all: that is what a quarantine is for.
    scene.tools.release()
    until("the first mail is sent at last", lambda: scene.executed(calls["mail"]) == 1)
    until("the first booking arrives at last", lambda: len(scene.entries(calls["book"])) == 2)
    until("the first clearing arrives at last", lambda: len(scene.entries(calls["clear"])) == 2)
    _expect_same_bytes(scene, calls)
    assert scene.up.resolve(doubt, "happened", result={"message_id": "seen"}).status_code == 200
    scene.up.until_status(calls["mail"].workflow, "succeeded")


def test_calls_follow_their_class_when_workers_are_killed_before_the_answer(scene: Scene) -> None:
    calls = {name: scene.submit_held(name, when="after") for name in CLASSES}
    scene.until_held(*calls.values())

    scene.up.kill(*scene.up.workers)
    scene.tools.release(drop=True)

    for name in REPEATABLE:
        scene.up.until_status(calls[name].workflow, "succeeded")
        assert len(scene.entries(calls[name])) == 2
    _expect_same_bytes(scene, calls)
    doubt = scene.until_in_doubt(calls["mail"])
    assert [entry["executed"] for entry in scene.entries(calls["mail"])] == [True]
    assert scene.up.resolve(doubt, "happened").status_code == 200
    scene.up.until_status(calls["mail"].workflow, "succeeded")


def test_calls_follow_their_class_when_workers_are_killed_before_the_record(scene: Scene) -> None:
    calls = {name: scene.submit_held(name, when="after") for name in CLASSES}
    scene.until_held(*calls.values())

    with scene.up.locked("workflows") as lock:
        scene.tools.release()
        until("a record stands before the lock", lambda: lock.waiting("surefoot record"))
        until("every tool has answered", lambda: not scene.tools.held())
        dead = scene.up.kill(*scene.up.workers)

    scene.up.until_back(dead)
    for name in REPEATABLE:
        scene.up.until_status(calls[name].workflow, "succeeded")
    _expect_same_bytes(scene, calls)
    doubt = scene.until_in_doubt(calls["mail"])
    assert scene.executed(calls["mail"]) == 1
    assert scene.up.resolve(doubt, "happened").status_code == 200
    scene.up.until_status(calls["mail"].workflow, "succeeded")


def test_workflows_go_on_when_workers_and_redis_are_killed_between_record_and_ring(scene: Scene) -> None:
    tags = [scene.tag() for _ in range(4)]
    for tag in tags:
        scene.misbehave("book", tag, do="hold", when="after")
    calls = [scene.submit("book", "mail", "look", tag=tag) for tag in tags]
    scene.until_held(*calls)

    # A frozen Redis takes no ring, and the ring that lies in its socket dies with it.
    scene.up.freeze("redis")
    scene.tools.release()
    until(
        "every booking is recorded",
        lambda: all(scene.up.attempts(call.workflow)[0]["state"] == "succeeded" for call in calls),
    )
    dead = scene.up.kill(*scene.up.workers, "redis")

    scene.up.until_back(dead)
    for call in calls:
        mail = Held(workflow=call.workflow, tool="mail", tag=call.tag)
        scene.up.until_status(call.workflow, "succeeded", "waiting")
        if scene.up.workflow(call.workflow)["status"] == "waiting":  # the sweep had fed it to a worker that died
            assert scene.up.resolve(scene.until_in_doubt(mail), "happened").status_code == 200
            scene.up.until_status(call.workflow, "succeeded")
        assert scene.executed(mail) == 1
        assert len(scene.entries(call)) == 1


def test_a_keyed_call_is_made_by_the_survivor_when_its_worker_is_killed(scene: Scene) -> None:
    call = scene.submit_held("book", when="after")
    scene.until_held(call)
    worker = scene.worker_of(call)

    dead = scene.up.signal([worker], signal.SIGKILL)

    scene.up.until_status(call.workflow, "succeeded")
    first, second = scene.up.attempts(call.workflow)
    assert first["pid"] == dead[worker]
    assert second["worker_name"] != worker
    assert [entry["executed"] for entry in scene.entries(call)] == [True, False]


def _expect_same_bytes(scene: Scene, calls: dict[str, Held]) -> None:
    """Repeats of an idempotent call are identical; those of a keyed one bring the same key and are absorbed."""
    assert len({str(entry["arguments"]) for entry in scene.entries(calls["clear"])}) == 1
    books = scene.entries(calls["book"])
    assert len({entry["key"] for entry in books}) == 1
    assert sum(entry["executed"] for entry in books) == 1
