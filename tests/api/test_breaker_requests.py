"""Breakers through the API: what is in trouble, how it is told, and the word that it is over."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from app.domain import ids
from app.domain.quotas import Allowances, Window
from app.domain.states import FailureKind
from tests.api.operated import audited
from tests.engine.outages import AGENT, Outage, asks, opened, refused_by_provider, swept
from tests.engine.world import World, rate_limited, says


async def listed(api: httpx.AsyncClient) -> list[dict[str, Any]]:
    response = await api.get("/v1/breakers")
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["data"]
    return found


async def test_nothing_is_listed_while_everything_answers(api: httpx.AsyncClient, world: World) -> None:
    worker = await world.worker()
    await world.submit(asks())
    await world.run(worker)

    assert await listed(api) == []


async def test_open_breaker_says_what_failed_how_often_and_when_it_is_tried_again(
    api: httpx.AsyncClient, world: World
) -> None:
    worker = await world.worker()
    Outage(world)
    await opened(world, worker, n=7)
    await world.hurry()
    await world.run(worker, hurry=False)

    [found] = await listed(api)

    assert (found["scope"], found["state"], found["kind"], found["held"]) == ("tool:do", "open", "network", 7)
    assert (found["failures"], found["seen"], found["canary"], found["limits"]) == (7, 7, None, None)
    assert found["headline"].startswith("do failed 7 of 7 times since ")
    assert found["since"] < found["until"]


async def test_reset_lets_what_waited_go_and_the_same_again_changes_nothing(
    api: httpx.AsyncClient, world: World
) -> None:
    worker = await world.worker()
    outage = Outage(world)
    await opened(world, worker, n=7)
    await world.hurry()
    await world.run(worker, hurry=False)

    outage.over = True
    reset = await api.post("/v1/breakers/tool%3Ado/reset")
    await swept(world, worker)
    again = await api.post("/v1/breakers/tool:do/reset", json={})

    assert (reset.status_code, reset.json()) == (200, {"scope": "tool:do", "reset": True, "released": 7})
    assert again.json() == {"scope": "tool:do", "reset": False, "released": 0}
    assert {row["status"] for row in await world.rows("SELECT status FROM workflows")} == {"succeeded"}
    assert await audited(world) == ["breaker.reset"]


async def test_why_tells_the_outage_once_with_its_commands_and_the_trace_has_the_record(
    api: httpx.AsyncClient, world: World
) -> None:
    worker = await world.worker()
    Outage(world)
    await opened(world, worker)
    workflow_id = await world.submit(asks(), key="late")
    await world.run(worker, hurry=False)
    name = ids.encode("wf", workflow_id)

    why = (await api.get(f"/v1/workflows/{name}/why")).json()
    trace = (await api.get(f"/v1/workflows/{name}/trace?format=text")).text

    [reason] = why["reasons"]
    assert (reason["kind"], reason["reason"]) == ("held", "breaker")
    assert "do failed 5 of 5 times since" in reason["headline"]
    assert "1 call held; the next try is at" in reason["headline"]
    assert [command["cli"] for command in reason["commands"]] == [
        "surefoot breakers", "surefoot breakers reset tool:do",
    ]  # fmt: skip
    assert "do failed 5 of 5 times" in trace


async def test_parked_credential_is_told_in_the_headline_and_by_why(api: httpx.AsyncClient, world: World) -> None:
    worker = await world.worker()
    world.model.answers = [refused_by_provider(FailureKind.AUTH)]
    workflow_id = await world.submit(AGENT)
    await world.run(worker, hurry=False)
    name = ids.encode("wf", workflow_id)

    [found] = await listed(api)
    workflow = (await api.get(f"/v1/workflows/{name}")).json()
    [reason] = (await api.get(f"/v1/workflows/{name}/why")).json()["reasons"]

    assert (found["scope"], found["state"]) == ("model:none/*", "parked")
    assert workflow["headline"].startswith("Waiting for an operator: the model provider does not accept the credential")
    assert workflow["attention"] == ["credential_refused"]
    assert "invalid x-api-key" in reason["headline"]
    assert reason["who"] == "an operator"
    assert "surefoot breakers reset 'model:none/*'" in [command["cli"] for command in reason["commands"]]


async def test_rate_limit_is_listed_with_what_is_left_and_until_when_it_is_blocked(
    api: httpx.AsyncClient, world: World
) -> None:
    worker = await world.worker()
    window = Allowances(requests=Window(limit=5, remaining=0))
    world.model.answers = [replace(says("done"), limits=window), replace(rate_limited(40), limits=window)]
    for n in range(2):
        await world.submit(AGENT, key=str(n))
        await world.run(worker, hurry=False)
        await world.rows("UPDATE limits SET armed_until = NULL")
    waits = await world.submit(AGENT, key="waits")
    await world.run(worker, hurry=False)

    [found] = await listed(api)
    [reason] = (await api.get(f"/v1/workflows/{ids.encode('wf', waits)}/why")).json()["reasons"]

    assert (found["scope"], found["state"], found["held"]) == ("model:none/claude-haiku-5-5", "closed", 1)
    assert found["limits"]["requests"]["limit"] == 5
    assert found["limits"]["requests"]["left"] < 5
    assert found["limits"]["blocked_until"] is not None
    assert "its rate limit was reached" in found["headline"]
    assert reason["reason"] == "quota"
    assert reason["until"] == found["limits"]["blocked_until"]


@pytest.mark.parametrize("scope", ["do", "tool:", "tenant", "model:claude", "tool:a b", "model:xyz/../etc passwd"])
async def test_scope_that_names_no_breaker_is_refused(api: httpx.AsyncClient, scope: str) -> None:
    response = await api.post(f"/v1/breakers/{quote(scope, safe='')}/reset")

    assert (response.status_code, response.json()["code"]) == (422, "invalid_value")
