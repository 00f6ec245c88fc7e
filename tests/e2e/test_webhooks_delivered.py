"""Webhooks from submission to receiver: in order, signed, again after trouble with the same bytes, never after 410."""

from __future__ import annotations

import signal
import socket
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from tests.e2e.catalogue import definition
from tests.e2e.driver import Row, until, uuid_of
from tests.e2e.receiver import Received, Receiver
from tests.e2e.scene import Scene

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(150)]

DEFAULT_STORY = ["workflow.accepted", "workflow.started", "workflow.succeeded"]


def test_receiver_gets_every_event_in_order_and_signed_when_it_asks_for_all(scene: Scene) -> None:
    with Receiver() as receiver:
        workflow = _submit(scene, receiver.url, "book", "mail", events=["*"])
        scene.up.until_status(workflow, "succeeded")
        last = scene.up.workflow(workflow)["last_seq"]
        until("every event has arrived", lambda: len(receiver.received) >= last)

    events = [received.event for received in receiver.received]
    assert [event["data"]["sequence"] for event in events] == list(range(1, last + 1))
    told = scene.up.http.get(f"/v1/workflows/{workflow}/events?limit=200").json()["data"]
    assert [received.id for received in receiver.received] == [event["id"] for event in told]
    assert [event["type"] for event in events] == [event["type"] for event in told]
    assert {event["data"]["workflow_id"] for event in events} == {workflow}
    _expect_verified(scene, receiver.received)


def test_receiver_gets_the_story_of_each_workflow_in_order_when_many_run_and_workers_die(scene: Scene) -> None:
    with Receiver() as receiver:
        workflows = [_submit(scene, receiver.url, "look", "book") for _ in range(20)]
        scene.up.signal(["worker.2"], signal.SIGKILL)
        for workflow in workflows:
            scene.up.until_status(workflow, "succeeded")
        _until_delivered(scene, workflows, seconds=40)

    for workflow in workflows:
        mine = [received for received in receiver.received if received.event["data"]["workflow_id"] == workflow]
        first_times = list({received.id: received for received in mine}.values())
        assert [received.event["type"] for received in first_times] == DEFAULT_STORY
        assert len({(received.id, received.body) for received in mine}) == len(first_times)
    _expect_verified(scene, receiver.received)


def test_receiver_gets_the_same_bytes_again_and_nothing_before_them_when_it_was_down(scene: Scene) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    away = _submit(scene, f"http://127.0.0.1:{port}/hooks", "look")
    with Receiver([500]) as stumbling:
        stumbled = _submit(scene, stumbling.url, "look")
        for workflow in (away, stumbled):
            scene.up.until_status(workflow, "succeeded")
            until("its first delivery failed", lambda workflow=workflow: _deliveries(scene, workflow)[0]["attempts"])
        with Receiver(port=port) as back:
            _until_delivered(scene, [away, stumbled])

    assert [received.event["type"] for received in back.received] == DEFAULT_STORY
    first, second, *rest = stumbling.received
    assert (first.status, second.status) == (500, 204)
    assert (first.id, first.body) == (second.id, second.body)
    assert [received.event["type"] for received in (second, *rest)] == DEFAULT_STORY
    assert "surefoot-gap" not in second.headers
    _expect_verified(scene, [*stumbling.received, *back.received])


def test_receiver_is_left_alone_when_it_said_gone(scene: Scene) -> None:
    with Receiver([410]) as gone:
        workflow = _submit(scene, gone.url, "look", "book")
        scene.up.until_status(workflow, "succeeded")
        until("its deliveries have ended", lambda: _ended(scene, workflow))
        other = _submit(scene, gone.url, "look")
        scene.up.until_status(other, "succeeded")
        _until_delivered(scene, [other])

    # One answer speaks for the stream it was given to, which is this workflow's.
    mine = [received for received in gone.received if received.event["data"]["workflow_id"] == workflow]
    assert [received.status for received in mine] == [410]
    assert {row["state"] for row in _deliveries(scene, workflow)} == {"disabled"}
    left = scene.up.rows("SELECT kind FROM dues WHERE workflow_id = %s", uuid_of(workflow))
    assert left == []


def _submit(scene: Scene, url: str, *names: str, events: list[str] | None = None) -> str:
    webhook: dict[str, Any] = {"url": url} | ({} if events is None else {"events": events})
    document = definition(scene.tools.url, names)
    workflow = scene.up.submit(document, input={"tag": scene.tag()}, webhook=webhook)
    scene.workflows.append(workflow)
    return workflow


def _deliveries(scene: Scene, workflow: str) -> list[Row]:
    return scene.up.rows("SELECT * FROM deliveries WHERE workflow_id = %s ORDER BY seq", uuid_of(workflow))


def _ended(scene: Scene, workflow: str) -> bool:
    return all(row["state"] != "open" for row in _deliveries(scene, workflow))


def _until_delivered(scene: Scene, workflows: list[str], *, seconds: float = 20.0) -> None:
    for workflow in workflows:
        until(
            f"every delivery of {workflow} has arrived",
            lambda workflow=workflow: {row["state"] for row in _deliveries(scene, workflow)} == {"delivered"},
            seconds=seconds,
        )


def _expect_verified(scene: Scene, received: list[Received]) -> None:
    secret = scene.up.ready["webhook_secret"]
    library = Webhook(secret)
    for each in received:
        library.verify(each.body, each.headers)
        assert each.signed_by(secret)
        assert not each.signed_by("whsec_" + "A" * 32)
