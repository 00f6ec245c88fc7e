"""A tool that answered 202 reports what its work came to: with its one-time token, once, however odd the report is."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
import pytest

from app.domain import ids
from app.domain.outcomes import Evidence, Failure, Outcome
from app.domain.states import AttemptOutcome, FailureKind
from tests.api import rows
from tests.engine import world as engine
from tests.engine.world import World

NO_CALL = "call_00000000000000000000000000"
TOLD = {"outcome": "succeeded", "result": {"report": 7}}


def accepted() -> Outcome:
    """What the port makes of a 202 whose result is waited for."""
    return Outcome(
        certainty=AttemptOutcome.UNKNOWN,
        failure=Failure(kind=FailureKind.TIMEOUT, message="accepted (202); its result is waited for"),
        evidence=Evidence(body=b"{}", media_type="application/json"),
        status_code=202,
        sent_after=0.001,
        received_after=0.002,
        pending=True,
    )


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A workflow whose one call was accepted and waits for its result."""

    workflow_id: UUID
    call_id: UUID
    token: str
    path: str


@pytest.fixture
async def waiting(world: World) -> Waiting:
    world.tools.script["do"] = [accepted()]
    workflow_id = await world.submit(engine.one("keyed", on_202="wait", result_within="10m"))
    await world.run(await world.worker())
    call = await world.call(workflow_id, "s")
    [request] = world.tools.sent("do")
    assert request.result_token is not None
    return Waiting(
        workflow_id=workflow_id,
        call_id=call["id"],
        token=request.result_token,
        path=f"/v1/calls/{ids.encode('call', call['id'])}/result",
    )


@pytest.fixture
async def tool(base_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client without any API key."""
    async with httpx.AsyncClient(base_url=base_url, timeout=20, trust_env=False) as client:
        yield client


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_workflow_goes_on_with_the_result_when_it_is_reported(
    tool: httpx.AsyncClient, world: World, waiting: Waiting
) -> None:
    first = await tool.post(waiting.path, json=TOLD, headers=bearer(waiting.token))
    again = await tool.post(waiting.path, json=TOLD, headers=bearer(waiting.token))

    assert [(answer.status_code, answer.json()) for answer in (first, again)] == [(200, {"accepted": True})] * 2
    workflow = await world.workflow(waiting.workflow_id)
    assert (workflow["status"], workflow["output"]) == ("succeeded", None)
    assert (await world.step(waiting.workflow_id, "s"))["output"] == {"report": 7}


async def test_step_fails_with_the_tools_words_when_it_reports_a_failure(
    tool: httpx.AsyncClient, world: World, waiting: Waiting
) -> None:
    told = {"outcome": "failed", "message": "no paper left"}

    response = await tool.post(waiting.path, json=told, headers=bearer(waiting.token))

    assert response.status_code == 200
    assert (await world.workflow(waiting.workflow_id))["status"] == "failed"
    assert "no paper left" in (await world.step(waiting.workflow_id, "s"))["failure"]["message"]


async def test_other_outcome_is_refused_when_the_call_was_settled(
    tool: httpx.AsyncClient, world: World, waiting: Waiting
) -> None:
    await tool.post(waiting.path, json=TOLD, headers=bearer(waiting.token))

    response = await tool.post(waiting.path, json={"outcome": "failed"}, headers=bearer(waiting.token))

    assert (response.status_code, response.json()["code"]) == (409, "already_settled")
    assert response.json()["possible"]
    assert (await world.workflow(waiting.workflow_id))["status"] == "succeeded"


async def test_wrong_token_and_unknown_call_are_told_alike_when_reported_to(
    tool: httpx.AsyncClient, world: World, waiting: Waiting
) -> None:
    wrong = await tool.post(waiting.path, json=TOLD, headers=bearer(waiting.token + "x"))
    unknown = await tool.post(f"/v1/calls/{NO_CALL}/result", json=TOLD, headers=bearer(waiting.token))
    malformed = await tool.post("/v1/calls/call_7/result", json=TOLD, headers=bearer(waiting.token))
    without = await tool.post(waiting.path, json=TOLD)

    for answer in (wrong, unknown, malformed, without):
        assert (answer.status_code, answer.json()["code"]) == (401, "result_token_invalid")
        assert answer.headers["www-authenticate"].startswith("Bearer")
    assert {wrong.json()["detail"], unknown.json()["detail"], malformed.json()["detail"]} == {wrong.json()["detail"]}
    assert (await world.workflow(waiting.workflow_id))["status"] != "succeeded"


async def test_api_key_reports_nothing_when_it_is_used_as_a_token(
    api: httpx.AsyncClient, world: World, waiting: Waiting
) -> None:
    response = await api.post(waiting.path, json=TOLD)

    assert (response.status_code, response.json()["code"]) == (401, "result_token_invalid")
    assert (await world.call(waiting.workflow_id, "s"))["state"] != "succeeded"


async def test_token_of_one_call_does_not_fit_another_when_both_wait(
    tool: httpx.AsyncClient, world: World, waiting: Waiting
) -> None:
    world.tools.script["do"] = [accepted()]
    other = await world.submit(engine.one("keyed", on_202="wait"), key="k-2")
    await world.run(await world.worker("worker.2"))
    call = await world.call(other, "s")

    path = f"/v1/calls/{ids.encode('call', call['id'])}/result"
    response = await tool.post(path, json=TOLD, headers=bearer(waiting.token))

    assert response.status_code == 401


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (r'{"text": "a\u0000b"}', "a NUL character"),
        (r'{"text": "\ud800"}', "a lone surrogate"),
        ('{"n": ' + "9" * 5000 + "}", "an integer of more than 1000 digits"),
        ('{"a": 1, "a": 2}', "the key is there twice"),
        ("[" * 80 + "]" * 80, "nested deeper"),
    ],
)
async def test_success_stays_one_when_its_result_cannot_be_stored(
    tool: httpx.AsyncClient, world: World, waiting: Waiting, result: str, reason: str
) -> None:
    body = f'{{"outcome": "succeeded", "result": {result}}}'

    response = await tool.post(
        waiting.path, content=body, headers=bearer(waiting.token) | {"Content-Type": "application/json"}
    )

    assert response.status_code == 200, response.text
    output = (await world.step(waiting.workflow_id, "s"))["output"]
    assert (await world.workflow(waiting.workflow_id))["status"] == "succeeded"
    assert (output["opaque"], output["bytes"]) == (True, len(body))
    assert reason.lower() in output["reason"].lower()


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"outcome": "maybe"}', 422, "invalid_value"),
        (b'{"result": 1}', 422, "invalid_value"),
        (b'{"outcome": "succeeded", "reslt": 1}', 422, "invalid_value"),
        (b'{"outcome": "succeeded", "outcome": "failed"}', 422, "invalid_value"),
        (b'{"outcome": "succeeded", "message": "\\u0000", "result": "\\u0000"}', 422, "invalid_value"),
        (b'{"outcome": "succeeded"', 400, "malformed_json"),
        (b"", 400, "malformed_json"),
        (b'{"outcome": "succeeded", "result": "' + b"x" * 70_000 + b'"}', 413, "body_too_large"),
    ],
)
async def test_report_is_refused_when_it_does_not_say_what_happened(
    tool: httpx.AsyncClient, world: World, waiting: Waiting, body: bytes, status: int, code: str
) -> None:
    response = await tool.post(
        waiting.path, content=body, headers=bearer(waiting.token) | {"Content-Type": "application/json"}
    )

    assert (response.status_code, response.json()["code"]) == (status, code)
    assert (await world.call(waiting.workflow_id, "s"))["state"] != "succeeded"


async def test_token_is_nowhere_in_what_the_api_shows_when_the_call_is_read(
    api: httpx.AsyncClient, world: World, waiting: Waiting
) -> None:
    path = rows.path(waiting.workflow_id)

    shown = [await api.get(path + rest) for rest in ("", "/steps/s", "/steps/s/calls/1", "/effects", "/events")]

    assert [answer.status_code for answer in shown] == [200] * 5
    assert [answer.url.path for answer in shown if waiting.token in answer.text] == []
    stored: Any = await world.rows("SELECT * FROM calls")
    assert waiting.token not in json.dumps(stored, default=str)
