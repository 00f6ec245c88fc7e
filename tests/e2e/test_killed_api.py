"""SIGKILL to the API around the commit of a submission: the client that lost its answer repeats with its key."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import httpx
import pytest

from tests.e2e.catalogue import CATALOGUE, definition
from tests.e2e.driver import Installation, Row, until, uuid_of
from tests.e2e.scene import Held, Scene

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(150)]


def test_client_gets_the_same_workflow_when_the_api_died_after_the_commit(scene: Scene) -> None:
    key, body = uuid4().hex, _body(scene)
    mail = Held(workflow="", tool="mail", tag=body["input"]["tag"])
    scene.misbehave(mail.tool, mail.tag, do="hold", when="before")
    # The client waits for the end, so that its answer is still to come when all is long committed.
    with _posting(scene.up, key=key, body=body, wait=60) as lost:
        scene.until_held(mail)
        dead = scene.up.kill("api")
    scene.tools.release(CATALOGUE[mail.tool].demo)
    assert isinstance(lost[0], httpx.TransportError)

    scene.up.until_back(dead)
    again = _post(scene.up, key=key, body=body)

    assert again.status_code == 202
    assert again.headers["idempotent-replayed"] == "true"
    (owner,) = _owners(scene, key)
    assert uuid_of(again.json()["id"]) == owner["workflow_id"]
    scene.workflows.append(again.json()["id"])
    scene.up.until_status(again.json()["id"], "succeeded")
    sent = [entry for entry in scene.tools.ledger() if entry["arguments"].get("subject") == body["input"]["tag"]]
    assert len(sent) == 1


def test_client_gets_a_new_workflow_when_the_api_died_before_the_commit(scene: Scene) -> None:
    key, body = uuid4().hex, _body(scene)
    # At its first statement: the second one travels together with the COMMIT, which Postgres then does by itself.
    with scene.up.locked("definitions") as lock, _posting(scene.up, key=key, body=body) as lost:
        until("the submission is about to have its key", lambda: lock.waiting("surefoot submit"))
        dead = scene.up.kill("api")
    assert isinstance(lost[0], httpx.TransportError)

    scene.up.until_back(dead)
    again = _post(scene.up, key=key, body=body)

    assert again.status_code == 202
    assert "idempotent-replayed" not in again.headers
    scene.workflows.append(again.json()["id"])
    scene.up.until_status(again.json()["id"], "succeeded")
    same = scene.up.rows("SELECT id FROM workflows WHERE idempotency_key = %s", key)
    assert [row["id"] for row in same] == [uuid_of(again.json()["id"])]
    sent = [entry for entry in scene.tools.ledger() if entry["arguments"].get("subject") == body["input"]["tag"]]
    assert len(sent) == 1


def _body(scene: Scene) -> Row:
    return {"definition": definition(scene.tools.url, ["mail"]), "input": {"tag": scene.tag()}}


def _post(up: Installation, *, key: str, body: Row, wait: int = 0) -> httpx.Response:
    headers = {"Idempotency-Key": key} | ({"Prefer": f"wait={wait}"} if wait else {})
    return up.http.post("/v1/workflows", json=body, headers=headers, timeout=wait + 60)


@contextmanager
def _posting(up: Installation, *, key: str, body: Row, wait: int = 0) -> Iterator[list[object]]:
    """A POST under way inside; afterwards what came of it is in the list."""
    came: list[object] = []

    def post() -> None:
        try:
            came.append(_post(up, key=key, body=body, wait=wait))
        except httpx.HTTPError as error:
            came.append(error)

    thread = threading.Thread(target=post)
    thread.start()
    try:
        yield came
    finally:
        thread.join()


def _owners(scene: Scene, key: str) -> list[Row]:
    return scene.up.rows("SELECT workflow_id FROM idempotency_keys WHERE key = %s", key)
