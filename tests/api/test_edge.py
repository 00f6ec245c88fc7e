"""What holds for every route: keys, scopes, request ids, problems, health, the OpenAPI document."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from starlette.requests import ClientDisconnect

from app.api.edge import Edge
from app.api.error_pages import CATALOGUE
from app.api.shapes.problem import Problem
from app.api.shapes.workflow import Workflow
from app.domain import api_keys, ids
from app.main import create_app
from app.store.database import Database
from tests.api import rows
from tests.api.conftest import SilentBell, listening, services_over

pytestmark = pytest.mark.anyio


async def get(url: str, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(url, headers=headers)


def wrong_secret(key: rows.Key) -> str:
    """A sound key with the same public id and another secret."""
    public = bytes([1]) * api_keys.PUBLIC_ID_BYTES
    return api_keys.new_key("test", public + bytes([9]) * api_keys.SECRET_BYTES).text


# --- keys and scopes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make", ["", "Basic {key}", "Bearer", "Bearer {key}x", "Bearer {key} {key}", "Bearer é", "{key}"]
)
async def test_caller_is_refused_when_its_header_is_no_key(base_url: str, key: rows.Key, make: str) -> None:
    value = make.format(key=key.text).encode()

    response = await get(f"{base_url}/v1/workflows", **({"Authorization": value} if make else {}))  # type: ignore[arg-type]

    assert (response.status_code, response.json()["code"]) == (401, "unauthorized")
    assert response.headers["www-authenticate"].startswith("Bearer")
    assert key.text not in response.text


async def test_caller_is_refused_when_only_the_secret_is_wrong(base_url: str, key: rows.Key) -> None:
    response = await get(f"{base_url}/v1/workflows", Authorization=f"Bearer {wrong_secret(key)}")

    assert response.status_code == 401


async def test_caller_is_refused_when_its_key_is_expired_or_revoked(base_url: str, database: Database) -> None:
    expired = await rows.key(database, seed=3, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    revoked = await rows.key(database, seed=4)
    await rows.change(database, "UPDATE api_keys SET revoked_at = now() WHERE public_id = :p", p=revoked.public_id)

    responses = [await get(f"{base_url}/v1/workflows", **key.header) for key in (expired, revoked)]

    assert [response.status_code for response in responses] == [401, 401]


@pytest.mark.parametrize(
    ("scope", "method", "path", "allowed"),
    [
        ("read", "GET", "/v1/workflows", True),
        ("read", "POST", "/v1/workflows", False),
        ("read", "GET", "/v1/signing-secret", False),
        ("submit", "GET", "/v1/workflows", False),
        ("submit", "POST", "/v1/effects/call_x/resolve", False),
        ("operate", "POST", "/v1/approvals/apr_x/decision", False),
        ("approve", "POST", "/v1/workflows/wf_x/cancel", False),
        ("admin", "GET", "/v1/workflows", True),
        ("admin", "GET", "/v1/signing-secret", True),
    ],
)
async def test_key_does_only_what_its_scope_says_when_used(
    base_url: str, database: Database, scope: str, method: str, path: str, allowed: bool
) -> None:
    key = await rows.key(database, seed=5, scopes=(scope,))

    async with httpx.AsyncClient(base_url=base_url, headers=key.header, trust_env=False) as client:
        response = await client.request(method, path)

    assert (response.status_code == 403) is not allowed
    assert response.status_code < 500


# --- request ids, traces, problems -----------------------------------------------------------------------------------


async def test_request_id_is_the_clients_when_it_is_sane(api: httpx.AsyncClient) -> None:
    response = await api.get("/v1/workflows/wf_x", headers={"Request-Id": "shop-7731:a"})

    assert response.headers["request-id"] == "shop-7731:a" == response.json()["request_id"]


@pytest.mark.parametrize("asked", ["", "x" * 129, "two words", 'quo"te'])
async def test_request_id_is_ours_when_the_clients_is_not_sane(api: httpx.AsyncClient, asked: str) -> None:
    response = await api.get("/livez", headers={"Request-Id": asked})

    assert re.fullmatch(r"req_[0-9A-Z]{26}", response.headers["request-id"])


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", True),
        ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", True),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", False),
        ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", False),
        ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", False),
        ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", False),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", False),
        ("garbage", False),
    ],
)
async def test_problem_names_the_clients_trace_when_it_is_valid(api: httpx.AsyncClient, sent: str, kept: bool) -> None:
    response = await api.get("/v1/workflows/wf_x", headers={"traceparent": sent})

    assert (response.json()["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736") is kept
    assert re.fullmatch(r"[0-9a-f]{32}", response.json()["trace_id"])


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "not_found"),
        ("GET", "/v1/nothing", 404, "not_found"),
        ("GET", "/v1/workflows/", 404, "not_found"),
        ("POST", "/v1/workflows/wf_x/pause", 404, "not_found"),
        ("GET", "/docs", 404, "not_found"),
        ("DELETE", "/v1/workflows", 405, "method_not_allowed"),
        ("GET", "/v1/workflows/call_00000000000000000000000000", 404, "not_found"),
    ],
)
async def test_answer_is_a_problem_when_there_is_no_such_thing(
    api: httpx.AsyncClient, method: str, path: str, status: int, code: str
) -> None:
    response = await api.request(method, path)

    problem = Problem.model_validate_json(response.content)
    assert (response.status_code, problem.status, problem.code) == (status, status, code)
    assert response.headers["content-type"] == "application/problem+json"
    assert problem.instance == path
    assert problem.type == f"/errors/{code}"
    assert (await api.get(problem.type)).status_code == 200


async def test_allow_is_told_when_the_method_is_wrong(api: httpx.AsyncClient) -> None:
    response = await api.delete("/v1/workflows")

    assert response.headers["allow"] == "GET, POST"


async def test_defect_is_a_500_problem_without_its_stack_when_something_breaks(
    api: httpx.AsyncClient, database: Database
) -> None:
    workflow_id = await rows.workflow(database, plan_digest="sha256:lost")

    response = await api.get(f"/v1/workflows/{ids.encode('wf', workflow_id)}/steps")

    problem = Problem.model_validate_json(response.content)
    assert (response.status_code, problem.code) == (500, "internal")
    assert response.headers["request-id"] == problem.request_id
    assert "Traceback" not in response.text
    assert "sha256:lost" not in response.text


async def test_answer_is_503_when_the_database_is_away(key: rows.Key, tmp_path: Path) -> None:
    away = Database(f"postgresql://nobody@/nothing?host={tmp_path}")

    async with listening(services_over(away, SilentBell()), stopping=asyncio.Event()) as url:
        response = await get(f"{url}/v1/workflows", **key.header)
        ready = await get(f"{url}/readyz")
        live = await get(f"{url}/livez")
    await away.close()

    assert (response.status_code, response.json()["code"]) == (503, "database_unavailable")
    assert int(response.headers["retry-after"]) >= 1
    assert response.json()["retryable"] is True
    assert (ready.status_code, ready.json()["database"]) == (503, "unreachable")
    assert live.status_code == 200


async def test_error_page_says_what_to_do_when_a_type_is_followed(api: httpx.AsyncClient) -> None:
    for code, error in CATALOGUE.items():
        response = await api.get(f"/errors/{code}")

        assert response.headers["content-type"].startswith("text/plain")
        assert error.fix in response.text


# --- verbs -----------------------------------------------------------------------------------------------------------


async def test_workflow_is_cancelled_when_asked_twice(api: httpx.AsyncClient) -> None:
    body = {"definition": rows.DEFINITION | {"agents": {"planner": {"model": "claude-x"}}}}
    submitted = await api.post("/v1/workflows", json=body, headers={"Idempotency-Key": "k"})
    where = submitted.headers["location"] + "/cancel"

    first = await api.post(where, json={"reason": "called off"})
    again = await api.post(where)

    assert (first.status_code, again.status_code) == (202, 202)
    assert Workflow.model_validate_json(again.content).status == "cancelled"
    assert first.headers["location"] == submitted.headers["location"]


async def test_cancel_says_what_is_possible_when_it_is_too_late(api: httpx.AsyncClient, database: Database) -> None:
    workflow_id = await rows.workflow(database, status="succeeded", open_calls=0, ended_at=rows.BEGAN)

    response = await api.post(f"/v1/workflows/{ids.encode('wf', workflow_id)}/cancel")

    assert (response.status_code, response.json()["code"]) == (409, "not_possible")
    assert response.json()["possible"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/workflows/{wf}/cancel", {"reasn": "x"}),
        ("/v1/workflows/{wf}/cancel", {"reason": 7}),
        ("/v1/effects/call_00000000000000000000000000/resolve", {"outcome": "maybe", "note": "n"}),
        ("/v1/effects/call_00000000000000000000000000/resolve", {"outcome": "happened"}),
        ("/v1/effects/call_00000000000000000000000000/resolve", {"outcome": "happened", "note": "  "}),
        ("/v1/approvals/apr_00000000000000000000000000/decision", {"decision": "approve"}),
        ("/v1/approvals/apr_00000000000000000000000000/decision", {"decision": "approve", "revision": True}),
        ("/v1/approvals/apr_00000000000000000000000000/decision", {"decision": "approve", "revision": 10**30}),
    ],
)
async def test_verb_is_refused_with_every_fault_when_its_body_is_wrong(
    api: httpx.AsyncClient, database: Database, path: str, body: dict[str, Any]
) -> None:
    workflow_id = await rows.workflow(database)

    response = await api.post(path.format(wf=ids.encode("wf", workflow_id)), json=body)

    assert (response.status_code, response.json()["code"]) == (422, "invalid_value")
    assert response.json()["errors"]


# --- machines --------------------------------------------------------------------------------------------------------


async def test_service_is_ready_without_a_key_when_everything_answers(base_url: str) -> None:
    response = await get(f"{base_url}/readyz")

    assert (response.status_code, response.json()["status"]) == (200, "ready")


async def test_service_is_ready_and_degraded_when_redis_is_away(base_url: str, bell: SilentBell) -> None:
    bell.broker_away = True

    response = await get(f"{base_url}/readyz")

    assert (response.status_code, response.json()["status"], response.json()["redis"]) == (200, "degraded", "away")


async def test_service_is_not_ready_when_the_migrations_are_missing(empty_database_url: str) -> None:
    empty = Database(empty_database_url)

    async with listening(services_over(empty, SilentBell()), stopping=asyncio.Event()) as url:
        response = await get(f"{url}/readyz")
    await empty.close()

    assert (response.status_code, response.json()["database"]) == (503, "not_migrated")


async def test_version_and_signing_secret_are_told_when_asked(api: httpx.AsyncClient) -> None:
    version = (await api.get("/version")).json()
    secret = await api.get("/v1/signing-secret")

    assert version["name"] == "surefoot"
    assert secret.json()["secrets"] == [secret.json()["secret"]]
    assert secret.headers["cache-control"] == "no-store"


async def test_document_names_every_operation_once_when_built(api: httpx.AsyncClient) -> None:
    document = (await api.get("/openapi.json")).json()

    operations = [operation for path in document["paths"].values() for operation in path.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(names) == len(set(names))
    assert {"submit_workflow", "get_workflow", "list_events", "decide_approval", "resolve_effect"} <= set(names)
    assert "workflow.succeeded" in document["webhooks"]
    assert document["components"]["schemas"]["SubmissionBody"]["examples"]
    assert set(document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]) == set(CATALOGUE)


async def test_document_has_no_dangling_reference_when_built(api: httpx.AsyncClient) -> None:
    response = await api.get("/openapi.json")

    wanted = set(re.findall(r'"#/components/schemas/([^"]+)"', response.text))
    assert wanted <= set(response.json()["components"]["schemas"])


async def test_example_in_the_document_is_accepted_when_submitted(api: httpx.AsyncClient) -> None:
    document = (await api.get("/openapi.json")).json()
    [example] = document["components"]["schemas"]["SubmissionBody"]["examples"]

    response = await api.post("/v1/workflows", json=example, headers={"Idempotency-Key": "example"})

    assert response.status_code == 202, response.text


async def test_every_v1_operation_needs_a_key_when_built(services: Any) -> None:
    document = create_app(services).openapi()

    without = {
        path: operation.get("security")
        for path, operations in document["paths"].items()
        for operation in operations.values()
        if path.startswith("/v1/") and operation.get("security") != [{"ApiKey": []}]
    }
    assert without == {"/v1/calls/{call}/result": [{"ResultToken": []}]}


async def test_edge_makes_no_failure_of_a_client_that_has_gone() -> None:
    async def reads(scope: Any, receive: Any, send: Any) -> None:
        raise ClientDisconnect

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> dict[str, str]:
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "POST", "path": "/v1/workflows", "headers": []}
    with structlog.testing.capture_logs() as told:
        await Edge(reads, body_limit=10)(scope, receive, send)

    assert sent == []
    assert [(line["event"], line["log_level"]) for line in told] == [("client_gone", "info")]
