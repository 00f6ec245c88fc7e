"""Redis is a doorbell: rung twice, emptied, killed, away. Nothing is made twice, nothing is forgotten."""

from __future__ import annotations

import signal
from contextlib import closing
from uuid import UUID

import pytest
import redis

from app.domain.states import Lane
from app.ports.bell import RedisBell
from tests.e2e.driver import until, uuid_of
from tests.e2e.scene import Held, Scene

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(150)]

STEPS = ("look", "book", "mail", "clear")
WORKFLOWS = 50


def test_every_attempt_is_made_once_when_each_doorbell_is_copied_in_its_queue(scene: Scene) -> None:
    scene.up.freeze(*scene.up.workers)  # for less than a lease
    calls = [scene.submit(name) for name in ("book", "mail") for _ in range(15)]
    with redis.Redis.from_url(scene.up.ready["redis_url"]) as client:
        # A frozen worker that was waiting for the queue is given a bell all the same.
        until("the doorbells are in the queue", lambda: client.llen("calls") >= len(calls) - 2 * len(scene.up.workers))
        bells = client.lrange("calls", 0, -1)
        client.lpush("calls", *bells, *bells)
    scene.up.thaw()

    for call in calls:
        scene.up.until_status(call.workflow, "succeeded")

    with redis.Redis.from_url(scene.up.ready["redis_url"]) as client:
        until("every copy was looked at", lambda: client.llen("calls") == 0)
    for call in calls:
        assert len(scene.up.attempts(call.workflow)) == 1
        assert len(scene.entries(call)) == 1


def test_an_attempt_is_made_once_when_its_bell_rings_while_and_after_it_is_made(scene: Scene) -> None:
    calls = [scene.submit_held("mail", when="before") for _ in range(6)]
    scene.until_held(*calls)
    refs = [_call_id(scene, call) for call in calls]
    with closing(RedisBell(scene.up.ready["redis_url"])) as bell:
        bell.ring(Lane.CALLS, refs * 5)
        until("the bells are rung", lambda: bell.published == len(refs) * 5)
        scene.tools.release()
        for call in calls:
            scene.up.until_status(call.workflow, "succeeded")
        bell.ring(Lane.CALLS, refs * 5)
        until("the bells are rung again", lambda: bell.published == len(refs) * 10)

    after = scene.submit("look")
    scene.up.until_status(after.workflow, "succeeded")
    for call in calls:
        assert len(scene.up.attempts(call.workflow)) == 1
        assert len(scene.entries(call)) == 1


def test_every_workflow_succeeds_when_redis_is_emptied_again_and_again(scene: Scene) -> None:
    calls = []
    with redis.Redis.from_url(scene.up.ready["redis_url"]) as client:
        for number in range(WORKFLOWS):
            calls.append(scene.submit(*STEPS))
            if number % 10 == 5:
                client.flushall()
        client.flushall()

    _expect_each_done_once(scene, calls)


def test_a_lost_doorbell_is_rung_at_once_when_redis_was_emptied(scene: Scene) -> None:
    """Its `ring_at` is far away, so that only the missing marker can bring it back soon."""
    scene.up.freeze(*scene.up.workers)
    calls = [scene.submit("look") for _ in range(10)]
    with redis.Redis.from_url(scene.up.ready["redis_url"]) as client:
        until("the doorbells are in the queue", lambda: client.llen("calls") >= len(calls) - 2 * len(scene.up.workers))
        client.flushall()
    later = "UPDATE dues SET ring_at = clock_timestamp() + interval '1 hour' WHERE workflow_id = ANY(%s) RETURNING ref"
    scene.up.rows(later, [uuid_of(call.workflow) for call in calls])

    scene.up.thaw()

    for call in calls:
        scene.up.until_status(call.workflow, "succeeded", seconds=10)


def test_every_workflow_succeeds_when_redis_is_killed_and_restarted(scene: Scene) -> None:
    calls = [scene.submit(*STEPS) for _ in range(WORKFLOWS // 2)]
    dead = scene.up.signal(["redis"], signal.SIGKILL)
    calls += [scene.submit(*STEPS) for _ in range(WORKFLOWS // 2)]

    _expect_each_done_once(scene, calls)

    scene.up.until_back(dead)


def _expect_each_done_once(scene: Scene, calls: list[Held]) -> None:
    for call in calls:
        scene.up.until_status(call.workflow, "succeeded", seconds=40)
    ledger = scene.tools.ledger()
    for call in calls:
        mine = [(entry["tool"], entry["executed"]) for entry in ledger if entry["workflow"] == call.workflow]
        assert sorted(mine) == [
            ("calendar.create_event", True),
            ("calendar.delete_event", False),  # there was no such event: a request all the same
            ("calendar.free_busy", True),
            ("email.send", True),
        ]


def _call_id(scene: Scene, call: Held) -> UUID:
    (attempt,) = scene.up.attempts(call.workflow)
    found: UUID = attempt["call_id"]
    return found
