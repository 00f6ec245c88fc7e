"""What an operator does to workflows and their steps through the API, over the real engine."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from uuid_utils.compat import uuid7

from app.api.shapes.step import StepDetail
from app.api.shapes.workflow import Workflow
from app.domain import ids
from app.errors import StateConflict
from app.store.database import Database
from tests.api import rows
from tests.api.operated import audited, failed, two
from tests.api.rows import path as where
from tests.engine import world as engine
from tests.engine.world import World

NOWHERE = "wf_00000000000000000000000000"
NO_EFFECT = "call_00000000000000000000000000"


# --- bodies and ids ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        ("{wf}/pause", {"reason": 7}, "/reason"),
        ("{wf}/pause", {"note": "n"}, "/note"),
        ("{wf}/resume", {"reason": "x" * 2001}, "/reason"),
        ("{wf}/retry", {"reason": "n"}, "/reason"),
        ("{wf}/compensate", {"mode": "undo"}, "/note"),
        ("{wf}/compensate", {"mode": "undo", "note": "  "}, "/note"),
        ("{wf}/compensate", {"mode": "both", "note": "n"}, "/mode"),
        ("{wf}/steps/create/skip", {"output": 1}, "/output"),
        ("{wf}/steps/create/complete", {"outptu": 1}, "/outptu"),
        ("{wf}/steps/create/fail", {"note": []}, "/note"),
        ("{call}/resolve", {"outcome": "probably", "note": "n"}, "/outcome"),
        ("{call}/compensation", {"action": "done"}, "/note"),
        ("{call}/compensation", {"action": "undo", "note": "n"}, "/action"),
        ("/v1/effects/resolve", {"outcome": "happened", "note": "n"}, "/filter"),
        ("/v1/effects/resolve", {"filter": {}, "outcome": "happened", "note": "n"}, "/filter"),
        ("/v1/effects/resolve", {"filter": {"tol": "x"}, "outcome": "happened", "note": "n"}, "/filter/tol"),
        ("/v1/effects/resolve", {"filter": {"workflow": "7"}, "outcome": "happened", "note": "n"}, "/filter/workflow"),
        ("/v1/effects/resolve", {"filter": {"since": 7}, "outcome": "happened", "note": "n"}, "/filter/since"),
        (
            "/v1/effects/resolve",
            {"filter": {"until": "2026-01-01T00:00:00"}, "outcome": "happened", "note": "n"},
            "/filter/until",
        ),
        ("/v1/effects/resolve", {"filter": {"tool": "x"}, "outcome": "happened", "note": "n", "limit": 5001}, "/limit"),
        ("/v1/effects/resolve", {"filter": {"tool": "x"}, "outcome": "happened", "note": "n", "result": 1}, "/result"),
    ],
)
async def test_verb_names_the_place_when_its_body_is_wrong(
    api: httpx.AsyncClient, database: Database, path: str, body: dict[str, Any], pointer: str
) -> None:
    workflow_id = await rows.story(database)

    response = await api.post(path.format(wf=where(workflow_id), call=f"/v1/effects/{NO_EFFECT}"), json=body)

    assert (response.status_code, response.json()["code"]) == (422, "invalid_value")
    assert pointer in [fault["pointer"] for fault in response.json()["errors"]]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (f"/v1/workflows/{NOWHERE}/pause", {}),
        (f"/v1/workflows/{NOWHERE}/resume", {}),
        (f"/v1/workflows/{NOWHERE}/retry", {}),
        (f"/v1/workflows/{NOWHERE}/compensate", {"mode": "keep", "note": "n"}),
        (f"/v1/workflows/{NOWHERE}/steps/s/skip", {}),
        (f"/v1/workflows/{NOWHERE}/steps/s/retry-now", {}),
        ("/v1/workflows/wf_1/pause", {}),
        (f"/v1/effects/{NO_EFFECT}/compensation", {"action": "done", "note": "n"}),
        ("/v1/effects/call_1/compensation", {"action": "done", "note": "n"}),
    ],
)
async def test_nothing_is_found_when_the_id_is_nobodys(api: httpx.AsyncClient, path: str, body: dict[str, Any]) -> None:
    response = await api.post(path, json=body)

    assert (response.status_code, response.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("path", ["nowhere", "S", "s.1.2", "s'--", "%00", "a" * 300])
async def test_step_is_not_found_when_the_workflow_has_none_of_that_path(
    api: httpx.AsyncClient, world: World, path: str
) -> None:
    workflow_id = await world.submit(engine.one("keyed"))

    response = await api.post(where(workflow_id, f"/steps/{path}/skip"))

    assert (response.status_code, response.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    "scope", ["everything", "tool:", "tool:9", "tool:a b", "tenant:x", "model:", "tool:%00", "x:y"]
)
@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_switch_is_refused_when_its_scope_is_none(api: httpx.AsyncClient, scope: str, method: str) -> None:
    response = await api.request(method, f"/v1/switches/{scope}")

    assert (response.status_code, response.json()["code"]) == (422, "invalid_value")
    assert "tool:<name>" in response.json()["fix"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "{wf}/pause", {}),
        ("POST", "{wf}/resume", {}),
        ("POST", "{wf}/retry", {}),
        ("POST", "{wf}/compensate", {"mode": "keep", "note": "n"}),
        ("POST", "{wf}/steps/s/skip", {}),
        ("POST", "{wf}/steps/s/complete", {}),
        ("POST", "/v1/effects/resolve", {"filter": {"tool": "do"}, "outcome": "happened", "note": "n"}),
        ("POST", "{call}/compensation", {"action": "skip", "note": "n"}),
        ("PUT", "/v1/switches/tenant", {}),
        ("DELETE", "/v1/switches/tenant", None),
    ],
)
async def test_key_is_refused_when_it_may_only_read_and_submit(
    base_url: str, database: Database, world: World, method: str, path: str, body: dict[str, Any] | None
) -> None:
    workflow_id = await world.submit(engine.one("keyed"))
    reader = await rows.key(database, seed=9, scopes=("read", "submit", "approve"))
    target = path.format(wf=where(workflow_id), call=f"/v1/effects/{NO_EFFECT}")

    async with httpx.AsyncClient(base_url=base_url, headers=reader.header, trust_env=False) as client:
        response = await client.request(method, target, json=body)

    assert (response.status_code, response.json()["code"]) == (403, "forbidden")
    assert (await world.workflow(workflow_id))["status"] == "running"


async def test_other_tenant_moves_nothing_when_it_knows_the_ids(
    base_url: str, database: Database, world: World
) -> None:
    workflow_id = await world.submit(engine.one("keyed"))
    call = await world.call(workflow_id, "s")
    other = await rows.tenant(database, tenant_id=uuid7())
    stranger = await rows.key(database, tenant_id=other, seed=7)

    async with httpx.AsyncClient(base_url=base_url, headers=stranger.header, trust_env=False) as client:
        answers = [
            await client.post(where(workflow_id, "/pause")),
            await client.post(where(workflow_id, "/retry")),
            await client.post(where(workflow_id, "/steps/s/skip")),
            await client.post(where(workflow_id, "/compensate"), json={"mode": "undo", "note": "n"}),
            await client.post(
                f"/v1/effects/{ids.encode('call', call['id'])}/compensation", json={"action": "done", "note": "n"}
            ),
        ]

    assert [answer.status_code for answer in answers] == [404] * 5
    assert (await world.workflow(workflow_id))["revision"] == 1


def test_every_conflict_says_what_is_possible_instead() -> None:
    def below(kind: type[StateConflict]) -> list[type[StateConflict]]:
        return [each for child in kind.__subclasses__() for each in (child, *below(child))]

    assert [kind.__name__ for kind in below(StateConflict) if not kind().extra["possible"]] == []


# --- workflows --------------------------------------------------------------------------------------------------------


async def test_workflow_sends_nothing_while_it_is_paused_and_goes_on_when_resumed(
    api: httpx.AsyncClient, world: World
) -> None:
    workflow_id = await world.submit(two())

    paused = await api.post(where(workflow_id, "/pause"), json={"reason": "bank is down"})
    again = await api.post(where(workflow_id, "/pause"))
    await world.run(await world.worker())
    sent_meanwhile = len(world.tools.ledger)
    resumed = await api.post(where(workflow_id, "/resume"), headers={"Idempotency-Key": "k"})
    await world.run(await world.worker("worker.2"))

    assert [answer.status_code for answer in (paused, again, resumed)] == [202, 202, 202]
    assert paused.headers["location"] == where(workflow_id)
    assert Workflow.model_validate_json(paused.content).status == "paused"
    assert sent_meanwhile == 0
    assert (await world.workflow(workflow_id))["status"] == "succeeded"
    assert await audited(world) == ["workflow.pause", "workflow.resume"]


async def test_failed_workflow_goes_on_without_repeating_what_succeeded_when_retried(
    api: httpx.AsyncClient, world: World
) -> None:
    workflow_id = await failed(world, compensate_on=[])

    answer = await api.post(where(workflow_id, "/retry"), json={"note": "mended"})
    await world.run(await world.worker("worker.2"))

    assert (answer.status_code, answer.json()["status"]) == (202, "running")
    assert (await world.workflow(workflow_id))["status"] == "succeeded"
    assert (len(world.tools.sent("do")), len(world.tools.sent("last"))) == (1, 2)


async def test_retry_is_refused_with_what_is_possible_when_effects_were_undone(
    api: httpx.AsyncClient, world: World
) -> None:
    workflow_id = await failed(world)

    answer = await api.post(where(workflow_id, "/retry"))

    assert (answer.status_code, answer.json()["code"]) == (409, "not_possible")
    assert "submit again" in answer.json()["possible"]
    assert (await api.get(where(workflow_id))).json()["compensation"] == "done"


@pytest.mark.parametrize(("mode", "undone", "left"), [("undo", 1, "done"), ("keep", 0, "skipped")])
async def test_held_failure_ends_as_the_operator_decides_when_they_say_what_becomes_of_its_effects(
    api: httpx.AsyncClient, world: World, mode: str, undone: int, left: str
) -> None:
    workflow_id = await failed(world, on_failure="hold")
    held = (await api.get(where(workflow_id))).json()

    body = {"mode": mode, "note": "asked the customer"}
    answer = await api.post(where(workflow_id, "/compensate"), json=body)
    await world.run(await world.worker("worker.2"))

    assert "failure_held" in held["attention"]
    assert answer.status_code == 202
    ended = (await api.get(where(workflow_id))).json()
    assert (ended["status"], ended["compensation"], ended["effects"]["undone"]) == ("failed", left, undone)
    assert len(world.tools.sent("undo")) == undone


async def test_compensating_is_refused_with_what_is_possible_when_nothing_is_held(
    api: httpx.AsyncClient, world: World
) -> None:
    workflow_id = await world.submit(two())

    answer = await api.post(where(workflow_id, "/compensate"), json={"mode": "undo", "note": "n"})

    assert (answer.status_code, answer.json()["code"], answer.json()["possible"]) == (
        409,
        "not_possible",
        ["pause", "cancel"],
    )


# --- steps ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "body", "state", "ends"),
    [
        ("skip", {"note": "n"}, "skipped", "succeeded"),
        ("complete", {"output": {"id": 9}}, "succeeded", "succeeded"),
        ("fail", {}, "failed", "failed"),
    ],
)
async def test_step_is_ended_by_hand_when_nothing_of_it_has_left(
    api: httpx.AsyncClient, world: World, verb: str, body: dict[str, Any], state: str, ends: str
) -> None:
    workflow_id = await world.submit(engine.one("at_most_once"))

    answer = await api.post(where(workflow_id, f"/steps/s/{verb}"), json=body)
    again = await api.post(where(workflow_id, f"/steps/s/{verb}"), json=body)

    assert (answer.status_code, again.status_code) == (200, 200)
    step = StepDetail.model_validate_json(answer.content)
    assert (step.path, step.state, step.output) == ("s", state, body.get("output"))
    assert (await world.workflow(workflow_id))["status"] == ends
    assert world.tools.ledger == []


async def test_step_is_not_ended_by_hand_when_nobody_knows_what_its_effect_did(
    api: httpx.AsyncClient, world: World
) -> None:
    world.tools.script["do"] = [engine.unknown()]
    workflow_id = await world.submit(engine.one("at_most_once"))
    await world.run(await world.worker())

    answer = await api.post(where(workflow_id, "/steps/s/skip"))

    assert (answer.status_code, answer.json()["code"], answer.json()["possible"]) == (409, "not_possible", ["resolve"])


async def test_next_try_is_now_when_an_operator_does_not_want_to_wait(api: httpx.AsyncClient, world: World) -> None:
    world.tools.script["do"] = [engine.rate_limited(600)]
    workflow_id = await world.submit(engine.one("at_most_once"))
    worker = await world.worker()
    await worker.run((await world.call(workflow_id, "s"))["id"])
    waiting = await world.due_calls()

    answer = await api.post(where(workflow_id, "/steps/s/retry-now"))
    await world.run(worker, hurry=False)

    assert (waiting, answer.status_code) == ([], 200)
    assert (await world.workflow(workflow_id))["status"] == "succeeded"


# --- the document -----------------------------------------------------------------------------------------------------


async def test_document_names_every_verb_with_an_example_when_built(api: httpx.AsyncClient) -> None:
    document = (await api.get("/openapi.json")).json()

    operations = {
        operation["operationId"]: operation for path in document["paths"].values() for operation in path.values()
    }
    assert {
        "cancel_workflow", "pause_workflow", "resume_workflow", "retry_workflow", "compensate_workflow", "skip_step",
        "complete_step", "fail_step", "retry_step_now", "resolve_effect", "resolve_effects", "settle_compensation",
        "list_switches", "hold_scope", "release_scope", "post_result",
    } <= set(operations)  # fmt: skip
    read = [operation for operation in operations.values() if "requestBody" in operation]
    bodies = [operation["requestBody"]["content"]["application/json"]["schema"]["$ref"] for operation in read]
    schemas = document["components"]["schemas"]
    assert [ref for ref in bodies if not schemas[ref.rpartition("/")[2]].get("examples")] == []
