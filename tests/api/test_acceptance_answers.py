"""What a 202 says is what a GET would have said at that commit, byte for byte, though nothing was read for it."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from app.store.database import Database
from tests.engine.world import World, tool

pytestmark = pytest.mark.anyio

STEP: dict[str, Any] = {"tool": "do", "with": {"x": 1}}
TOOLS: dict[str, Any] = {"do": tool("idempotent") | {"http": {"method": "POST", "url": "https://tools.example.com/do"}}}

DEFINITIONS: dict[str, dict[str, Any]] = {
    "one call": {"steps": {"a": STEP}},
    "chain": {"steps": {"a": STEP, "b": STEP | {"needs": ["a"]}}},
    "five branches": {"steps": {name: STEP | {"title": f"Step {name}"} for name in "abcde"}},
    "items": {"steps": {"a": STEP | {"for_each": "${{ [1, 2, 3] }}"}, "b": STEP}},
    "no items, one call": {"steps": {"a": STEP | {"for_each": "${{ [] }}"}, "b": STEP}},
    "skipped and set": {"steps": {"a": STEP | {"if": "false"}, "b": {"set": {"y": 1.0}}, "c": STEP}},
    "nothing to call": {"steps": {"a": {"set": {"y": 1e16}}}, "output": {"z": "${{ steps.a.output.y }}", "a": "ü"}},
    "approval": {"steps": {"ask": {"approval": {"title": "Go?"}}, "b": STEP | {"needs": ["ask"]}}},
    "approval beside a call": {"steps": {"ask": {"approval": {"title": "Go?"}}, "b": STEP}},
    "expression that fails": {"steps": {"a": {"set": {"y": "${{ 1 / 0 }}"}}, "b": STEP}},
    "gate": {"steps": {"a": STEP}, "tools": {"do": TOOLS["do"] | {"approve": "always"}}},
    "labels of its own": {"steps": {"a": STEP}, "labels": {"zz": "1", "b": "2", "aaa": "ü"}},
    "webhook": {"steps": {"a": STEP}},
}
INPUTS: list[dict[str, Any]] = [
    {},
    {"bb": 1, "a": {"z": 1, "y": [1, {"q": None, "k": True}]}},
    {"big": 12345678901234567890123, "float": 1e16, "small": 1.5e-9, "negative": -0.0, "text": "ü\u2028😀\n\"'\\"},
    {"1.0": 1.0, "1e22": 1e22, "2.50": 2.50, "huge": 1.7e308, "": ""},
]


async def submitted(api: httpx.AsyncClient, body: dict[str, Any]) -> tuple[httpx.Response, httpx.Response]:
    """The answer, and what a GET says after it."""
    answer = await api.post("/v1/workflows", json=body, headers={"Idempotency-Key": "k"})
    assert answer.status_code == 202, answer.text
    return answer, await api.get(answer.headers["location"])


@pytest.mark.parametrize("worker", [True, False], ids=["a worker lives", "no worker"])
@pytest.mark.parametrize("name", DEFINITIONS)
async def test_answer_is_what_a_get_says_when_a_workflow_is_accepted(
    api: httpx.AsyncClient, world: World, name: str, worker: bool
) -> None:
    if worker:
        await world.worker()
    definition = {"name": "w", "tools": TOOLS} | DEFINITIONS[name]
    hook = {"webhook": {"url": "https://hooks.example.com/x"}} if name == "webhook" else {}

    answer, read = await submitted(api, {"definition": definition, "labels": {"team": "a", "x": "y"}, **hook})

    assert answer.content == read.content
    assert answer.headers["etag"] == read.headers["etag"]
    assert ("no_worker" in answer.json()["attention"]) is (not worker and "due" in await states(world))


async def states(world: World) -> list[str]:
    return [row["state"] for row in await world.rows("SELECT state FROM calls")]


@pytest.mark.parametrize("given", INPUTS, ids=["empty", "order of keys", "numbers and text", "literals"])
async def test_answer_spells_the_input_as_a_get_does_when_the_database_has_its_own_spelling(
    api: httpx.AsyncClient, database: Database, given: dict[str, Any]
) -> None:
    definition = {"name": "w", "tools": TOOLS, "steps": {"a": STEP}}

    answer, read = await submitted(api, {"definition": definition, "input": given})

    assert answer.content == read.content
    assert answer.json()["input"].keys() == given.keys()


async def test_each_answer_is_its_own_when_many_share_a_transaction(api: httpx.AsyncClient, world: World) -> None:
    definition = {"name": "w", "tools": TOOLS, "steps": {"a": STEP}}

    async def one(n: int) -> tuple[httpx.Response, httpx.Response]:
        body = {"definition": definition, "input": {"n": n}, "labels": {"n": str(n)}}
        answer = await api.post("/v1/workflows", json=body, headers={"Idempotency-Key": f"k-{n}"})
        return answer, await api.get(answer.headers["location"])

    pairs = await asyncio.gather(*(one(n) for n in range(20)))

    assert [answer.json()["input"] for answer, _ in pairs] == [{"n": n} for n in range(20)]
    assert [answer.json()["idempotency_key"] for answer, _ in pairs] == [f"k-{n}" for n in range(20)]
    assert all(answer.content == read.content for answer, read in pairs)
