"""Budgets through the API: as they are shown, topped up, and explained."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from app.domain import ids
from tests.api.rows import path as where
from tests.engine.budgeted import agent, branches
from tests.engine.world import World, tool, uses

LOOK = {"look": tool("read_only")}


async def stopped(world: World, **budget: Any) -> str:
    """A workflow whose agent has used up its turns."""
    world.model.answers = [uses(("look", {"n": n})) for n in range(9)]
    workflow_id = await world.submit(agent({"turns": 2, "usd": 1, **budget}, tools=LOOK))
    await world.run(await world.worker())
    return where(workflow_id)


async def test_workflow_shows_its_budget_in_the_answer_to_its_submission_and_later(api: httpx.AsyncClient) -> None:
    body = {"definition": agent({"usd": "0.50"}, budget={"turns": 3}), "budget": {"usd": 0.25, "duration": "5m"}}

    accepted = await api.post("/v1/workflows", json=body, headers={"Idempotency-Key": "k"})
    read = await api.get(accepted.json()["links"]["self"])
    listed = await api.get("/v1/workflows")

    [whole, step] = accepted.json()["budget"]
    assert accepted.status_code == 202
    assert (whole["scope"], whole["limits"]["usd"], whole["limits"]["duration"]) == ("workflow", "0.2500", "5m")
    assert (step["scope"], step["limits"]["turns"], step["limits"]["usd"]) == ("step:a", 3, None)
    assert float(whole["reserved"]["usd"]) > 0
    assert (whole["reserved"]["turns"], whole["spent"]["usd"], whole["overrun_usd"]) == (1, "0.0000", None)
    assert read.json()["budget"] == listed.json()["data"][0]["budget"] == accepted.json()["budget"]


async def test_budget_is_null_when_there_is_none(api: httpx.AsyncClient) -> None:
    accepted = await api.post("/v1/workflows", json={"definition": agent()}, headers={"Idempotency-Key": "k"})

    assert accepted.json()["budget"] is None


async def test_top_up_lets_the_workflow_go_on_and_says_so(api: httpx.AsyncClient, world: World) -> None:
    place = await stopped(world, on_exceeded="pause")
    before = (await api.get(place)).json()

    answer = await api.post(f"{place}/budget", json={"turns": 1, "usd": "0.10", "note": "one more"})

    assert (before["status"], before["waiting_on"][0]["reason"]) == ("waiting", "budget")
    assert before["headline"].startswith("Waiting for a top-up: its budget is used up")
    assert (answer.status_code, answer.json()["status"]) == (202, "running")
    limits = answer.json()["budget"][0]["limits"]
    assert (limits["turns"], limits["usd"]) == (3, "1.1000")


async def test_top_up_with_the_same_key_adds_once(api: httpx.AsyncClient, world: World) -> None:
    place = await stopped(world, on_exceeded="pause")
    key = {"Idempotency-Key": "k"}

    first = await api.post(f"{place}/budget", json={"turns": 1}, headers=key)
    again = await api.post(f"{place}/budget", json={"turns": 1}, headers=key)
    other = await api.post(f"{place}/budget", json={"turns": 2}, headers=key)
    without = await api.post(f"{place}/budget", json={"turns": 1})

    assert [answer.status_code for answer in (first, again, other, without)] == [202, 202, 422, 202]
    assert again.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.headers
    assert other.json()["code"] == "idempotency_key_reused"
    assert without.json()["budget"][0]["limits"]["turns"] == 4


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, ""),
        ({"note": "n"}, ""),
        ({"usd": -1}, "/usd"),
        ({"usd": [1]}, "/usd"),
        ({"tokens": 0}, "/tokens"),
        ({"turns": "3"}, "/turns"),
        ({"duration": 5}, "/duration"),
        ({"turns": 1, "step": ""}, "/step"),
        ({"turns": 1, "on_exceeded": "fail"}, "/on_exceeded"),
    ],
    ids=str,
)
async def test_top_up_names_the_place_when_its_body_is_wrong(
    api: httpx.AsyncClient, world: World, body: dict[str, Any], pointer: str
) -> None:
    place = where(await world.submit(agent({"turns": 2})))

    answer = await api.post(f"{place}/budget", json=body)

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_value")
    assert answer.json()["errors"][0]["pointer"] == pointer


async def test_top_up_says_what_is_possible_instead_when_there_is_no_such_limit(
    api: httpx.AsyncClient, world: World
) -> None:
    place = where(await world.submit(agent({"turns": 2})))

    answer = await api.post(f"{place}/budget", json={"usd": 1})

    assert (answer.status_code, answer.json()["code"]) == (409, "not_possible")
    assert answer.json()["fix"] == "It limits turns."


async def test_retry_says_that_the_budget_comes_first(api: httpx.AsyncClient, world: World) -> None:
    place = await stopped(world)

    refused = await api.post(f"{place}/retry", json={})
    await api.post(f"{place}/budget", json={"turns": 9})
    retried = await api.post(f"{place}/retry", json={})

    assert (refused.status_code, refused.json()["possible"][0]) == (409, "budget")
    assert "surefoot budget wf_" in refused.json()["fix"]
    assert retried.status_code == 202


# --- explained -----------------------------------------------------------------------------------------------------


async def test_why_names_what_is_used_up_and_the_command_that_tops_it_up(api: httpx.AsyncClient, world: World) -> None:
    place = await stopped(world, on_exceeded="pause")

    why = (await api.get(f"{place}/why")).json()
    trace = (await api.get(f"{place}/trace?format=text")).text

    [reason] = [each for each in why["reasons"] if each["reason"] == "budget"]
    assert (reason["kind"], reason["who"]) == ("held", "an operator")
    assert "The budget of 2 turns is used up: 2 turns were made." in reason["headline"]
    assert reason["commands"][0]["cli"] == f"surefoot budget {place.rpartition('/')[2]} --turns 2"
    assert "The budget of 2 turns is used up" in trace


async def test_why_says_for_what_a_call_waits_that_others_have_reserved(api: httpx.AsyncClient, world: World) -> None:
    measured = await world.submit(branches(1, {"tokens": 10**9}), key="measure")
    worst = (await world.call(measured, "a.0"))["budget"]["tokens"]
    workflow_id = await world.submit(branches(4, {"tokens": 3 * worst + 50}), key="k")

    why = (await api.get(f"{where(workflow_id)}/why")).json()

    [reason] = [each for each in why["reasons"] if each["reason"] == "budget"]
    assert (reason["who"], reason["step"]) == ("nobody: it goes on by itself", "a.3")
    assert (
        f"waits for {worst:,} tokens of the budget: {3 * worst:,} tokens are reserved by 3 other calls."
        in (reason["headline"])
    )
    assert why["headline"].startswith("Running")
    assert ids.encode("wf", workflow_id) in reason["commands"][0]["cli"]
