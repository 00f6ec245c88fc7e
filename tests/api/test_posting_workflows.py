"""POST /v1/workflows: accepted, replayed, refused."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import psycopg
import pytest

from app.api.shapes.problem import Problem
from app.api.shapes.workflow import Workflow
from app.domain import ids
from app.engine.definitions import Definitions
from app.engine.register_tools import register_tools
from app.engine.services import Services
from app.store.database import Database
from tests.api import rows
from tests.api.conftest import SilentBell

pytestmark = pytest.mark.anyio

DEFINITION: dict[str, Any] = {
    "name": "meeting",
    "input": {"who": {"type": "string"}},
    "tools": {"greet": {"http": {"method": "POST", "url": "https://tools.example.com/greet"}, "effect": "idempotent"}},
    "steps": {"greet": {"tool": "greet", "with": {"name": "${{ input.who }}"}}},
}
BODY: dict[str, Any] = {"definition": DEFINITION, "input": {"who": "Ana"}}


async def submit(api: httpx.AsyncClient, body: Any = BODY, *, key: str = "k-1", **headers: str) -> httpx.Response:
    return await api.post("/v1/workflows", json=body, headers={"Idempotency-Key": key, **headers})


async def workflows_in(database: Database) -> int:
    async with database.reading() as connection:
        return int((await connection.exec_driver_sql("SELECT count(*) FROM workflows")).scalar_one())


async def test_client_gets_the_whole_workflow_when_it_submits(api: httpx.AsyncClient, bell: SilentBell) -> None:
    response = await submit(api)

    assert response.status_code == 202
    workflow = Workflow.model_validate_json(response.content)
    assert response.headers["location"] == f"/v1/workflows/{workflow.id}" == workflow.links.self
    assert response.headers["retry-after"] == "1"
    assert "idempotent-replayed" not in response.headers
    assert workflow.status == "running"
    assert workflow.input == {"who": "Ana"}
    assert workflow.next_poll_ms == 500
    assert workflow.cost.usd == "0.0000"
    assert workflow.definition.name == "meeting"
    assert len(bell.rung) == 1


async def test_client_gets_the_same_workflow_when_it_repeats_the_request(
    api: httpx.AsyncClient, database: Database
) -> None:
    first = await submit(api)

    again = await submit(api, dict(reversed(BODY.items())))

    assert again.status_code == 202
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json()["id"] == first.json()["id"]
    assert await workflows_in(database) == 1


async def test_twins_get_one_workflow_when_they_come_at_once(api: httpx.AsyncClient, database: Database) -> None:
    responses = await asyncio.gather(*(submit(api) for _ in range(8)))

    assert {response.status_code for response in responses} <= {202, 409}
    assert len({response.json()["id"] for response in responses if response.status_code == 202}) == 1
    assert await workflows_in(database) == 1


async def test_bare_and_quoted_key_are_the_same_when_they_hold_the_same_text(api: httpx.AsyncClient) -> None:
    first = await submit(api, key='order "7731"')

    again = await submit(api, key='"order \\"7731\\""')

    assert again.json()["id"] == first.json()["id"]


async def test_client_is_told_which_fields_differ_when_a_key_is_reused(
    api: httpx.AsyncClient, database: Database
) -> None:
    await submit(api)

    response = await submit(api, {**BODY, "input": {"who": "Bo"}, "labels": {"team": "a"}})

    assert response.status_code == 422
    assert response.json()["code"] == "idempotency_key_reused"
    assert sorted(error["pointer"] for error in response.json()["errors"]) == ["/input", "/labels"]
    assert await workflows_in(database) == 1


async def test_reused_key_is_found_before_the_body_is_judged_when_the_body_has_faults(api: httpx.AsyncClient) -> None:
    await submit(api)

    response = await submit(api, {"nonsense": 1})

    assert response.json()["code"] == "idempotency_key_reused"


async def test_client_gets_the_same_workflow_when_its_repetition_would_be_refused_by_now(
    api: httpx.AsyncClient, services: Services, database: Database
) -> None:
    await register_tools(database, {"shared": DEFINITION["tools"]["greet"]})
    body = {"definition": {"name": "meeting", "steps": {"greet": {"tool": "shared", "with": {}}}}}
    first = await submit(api, body)
    await rows.change(database, "DELETE FROM tools")
    services.definitions = Definitions()  # as after a restart: it has to be checked again

    again = await submit(api, body)
    other = await submit(api, body, key="k-2")

    assert (again.status_code, again.headers["idempotent-replayed"]) == (202, "true")
    assert again.json()["id"] == first.json()["id"]
    assert (other.status_code, other.json()["code"]) == (422, "definition_invalid")


async def test_numbers_are_told_apart_by_their_literal_when_a_key_is_reused(api: httpx.AsyncClient) -> None:
    body = {"definition": {**DEFINITION, "input": {"who": {"type": "number"}}}}
    await submit(api, {**body, "input": {"who": 1}})

    response = await submit(api, {**body, "input": {"who": 1.0}})

    assert response.json()["code"] == "idempotency_key_reused"


async def test_failed_validation_leaves_the_key_free_when_the_body_is_corrected(api: httpx.AsyncClient) -> None:
    refused = await submit(api, {**BODY, "input": {}})

    accepted = await submit(api)

    assert (refused.status_code, accepted.status_code) == (422, 202)


async def test_client_is_refused_when_it_sends_no_key(api: httpx.AsyncClient, database: Database) -> None:
    response = await api.post("/v1/workflows", json=BODY)

    assert (response.status_code, response.json()["code"]) == (400, "idempotency_key_missing")
    assert await workflows_in(database) == 0


@pytest.mark.parametrize("header", [b"", b'""', b'"open', "é".encode(), b"x" * 256, b"tab\there", b'"a" "b"'])
async def test_client_is_refused_when_its_key_is_unusable(api: httpx.AsyncClient, header: bytes) -> None:
    response = await api.post("/v1/workflows", json=BODY, headers=[(b"idempotency-key", header)])

    assert (response.status_code, response.json()["code"]) == (400, "idempotency_key_invalid")


async def test_client_is_refused_when_it_sends_two_keys(api: httpx.AsyncClient) -> None:
    response = await api.post("/v1/workflows", json=BODY, headers=[("Idempotency-Key", "a"), ("Idempotency-Key", "b")])

    assert response.json()["code"] == "idempotency_key_invalid"


@pytest.mark.parametrize(
    ("change", "code", "place"),
    [
        ({"imput": {}}, "invalid_value", "/imput"),
        ({"budget": {"usd": 0}}, "invalid_value", "/budget/usd"),
        ({"budget": {"usd": "1e99"}}, "invalid_value", "/budget/usd"),
        ({"budget": {"usd": True}}, "invalid_value", "/budget/usd"),
        ({"budget": {"turns": 1.5}}, "invalid_value", "/budget/turns"),
        ({"budget": {"duration": "soon"}}, "invalid_value", "/budget/duration"),
        ({"budget": {"on_exceeded": "pause"}}, "invalid_value", "/budget"),
        ({"budget": {"dollars": 1}}, "invalid_value", "/budget/dollars"),
        ({"on_conflict": "attach"}, "unsupported", "/on_conflict"),
        ({"workflow_key": "x"}, "unsupported", "/workflow_key"),
        ({"definition": "meeting@3"}, "unsupported", "/definition"),
        ({"definition": 7}, "invalid_value", "/definition"),
        ({"definition": None}, "invalid_value", "/definition"),
        ({"definition_text": "name: x"}, "invalid_value", "/definition"),
        ({"input": [1]}, "invalid_value", "/input"),
        ({"labels": {"team": 1}}, "invalid_value", "/labels/team"),
        ({"labels": {"bad name": "x"}}, "invalid_value", "/labels"),
        ({"webhook": {"url": "ftp://x"}}, "invalid_value", "/webhook/url"),
        ({"webhook": {"url": "https://u:p@x.example"}}, "invalid_value", "/webhook/url"),
        ({"webhook": {"url": "https://x.example", "events": ["workflow.won"]}}, "invalid_value", "/webhook/events/0"),
        ({"webhook": {"url": "https://x.example", "secret": "s"}}, "invalid_value", "/webhook/secret"),
        ({"webhook": {"url": "http://127.0.0.1:9/x"}}, "outbound_forbidden", "/webhook/url"),
        ({"deadline": "2 hours"}, "invalid_value", "/deadline"),
        ({"deadline": 7200}, "invalid_value", "/deadline"),
        ({"input": {"who": 7}}, "input_invalid", "/input/who"),
        ({"definition": {**DEFINITION, "stepps": {}}}, "definition_invalid", "/definition/stepps"),
    ],
)
async def test_client_is_told_the_field_when_it_is_wrong_or_not_built(
    api: httpx.AsyncClient, database: Database, change: dict[str, Any], code: str, place: str
) -> None:
    response = await submit(api, {**BODY, **change})

    problem = Problem.model_validate_json(response.content)
    assert (response.status_code, problem.code) == (422, code)
    assert any(error.pointer.startswith(place) for error in problem.errors)
    assert await workflows_in(database) == 0


async def test_client_is_offered_the_right_name_when_it_misspells_a_field(api: httpx.AsyncClient) -> None:
    response = await submit(api, {**BODY, "imput": {}})

    [error] = response.json()["errors"]
    assert (error["code"], error["fix"]) == ("unknown_field", "Did you mean input?")


async def test_client_is_told_the_line_when_the_definition_came_as_text(api: httpx.AsyncClient) -> None:
    source = "name: meeting\nsteps:\n  a:\n    set: {x: 1}\n    needs: [b]\n"

    response = await submit(api, {"definition_text": source, "source_name": "meeting.yaml"})

    [error] = response.json()["errors"]
    assert error["pointer"] == "/definition/steps/a/needs/0"
    assert error["line"] == 5


async def test_client_is_told_when_to_repeat_when_a_twin_is_in_flight(
    api: httpx.AsyncClient, database_url: str, database: Database
) -> None:
    async with await psycopg.AsyncConnection.connect(database_url) as twin:
        await twin.execute(
            "INSERT INTO idempotency_keys (tenant_id, route, key, fingerprint, field_hashes, response_status)"
            " VALUES (%s, 'POST /v1/workflows', 'k-1', 'f', '{}', 202)",
            (ids.DEFAULT_TENANT,),
        )
        response = await submit(api)
        await twin.rollback()

    assert (response.status_code, response.json()["code"]) == (409, "request_in_progress")
    assert response.headers["retry-after"] == "1"
    assert response.json()["retryable"] is True


async def stored(database: Database) -> None:
    """The submission is committed, whatever its answer waits for."""
    async with asyncio.timeout(10):
        while not await workflows_in(database):
            pass


async def test_client_gets_the_end_when_it_waits_for_it(api: httpx.AsyncClient, database: Database) -> None:
    waiting = asyncio.create_task(submit(api, Prefer="wait=30"))
    await stored(database)

    await rows.change(
        database,
        "UPDATE workflows SET status='succeeded', open_calls=0, ended_at=now(), revision=9, output='{\"a\": 1}'",
    )
    response = await waiting

    assert response.status_code == 200
    assert response.headers["preference-applied"] == "wait=30"
    assert response.json()["output"] == {"a": 1}
    assert response.json()["next_poll_ms"] is None
    assert "retry-after" not in response.headers


async def test_client_gets_202_when_its_wait_is_over(api: httpx.AsyncClient) -> None:
    response = await submit(api, Prefer="respond-async, wait=0")

    assert response.status_code == 202
    assert response.headers["preference-applied"] == "wait=0"


async def test_client_gets_its_answer_when_the_server_stops_while_it_waits(
    api: httpx.AsyncClient, stopping: asyncio.Event, database: Database
) -> None:
    waiting = asyncio.create_task(submit(api, Prefer="wait=30"))
    await stored(database)

    stopping.set()
    response = await waiting

    assert response.status_code == 202


async def test_trace_goes_on_when_the_client_sends_a_traceparent(api: httpx.AsyncClient) -> None:
    sent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

    response = await submit(api, traceparent=sent)

    events = (await api.get(response.json()["links"]["events"])).json()["data"]
    assert {event["trace_id"] for event in events} == {"4bf92f3577b34da6a3ce929d0e0e4736"}


async def test_submission_carries_labels_webhook_and_deadline_when_they_are_given(api: httpx.AsyncClient) -> None:
    webhook = {"url": "https://hooks.example.com/x", "events": ["workflow.*", "effect.in_doubt"]}

    response = await submit(api, {**BODY, "labels": {"team": "a"}, "webhook": webhook, "deadline": "2h"})

    workflow = Workflow.model_validate_json(response.content)
    assert response.json()["webhook"] == webhook
    assert workflow.labels == {"team": "a"}
    assert (workflow.deadline_at - workflow.created_at).total_seconds() == 7200


async def test_webhook_gets_what_people_are_told_about_when_no_events_are_named(api: httpx.AsyncClient) -> None:
    response = await submit(api, {**BODY, "webhook": {"url": "https://hooks.example.com/x"}})

    assert response.json()["webhook"]["events"] == ["workflow.*", "approval.requested", "effect.in_doubt"]
