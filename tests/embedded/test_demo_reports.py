"""The demo's reports: accepted at once, and their result brought to whoever waits for it, once it is there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.embedded import wire
from app.embedded.tool_ledger import Ledger
from app.embedded.tools import Tools
from app.embedded.wire import Reply, Request

pytestmark = pytest.mark.anyio

READY = {"report_id": "rep_1", "status": "ready", "title": "Q3", "url": "https://reports.invalid/rep_1"}


@dataclass
class Waiting:
    """Who waits for results: a server that answers as told, the last answer for ever."""

    answers: list[int]
    url: str = ""
    got: list[Request] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def handle(self, request: Request) -> Reply:
        self.got.append(request)
        status = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if status < 500:
            self.arrived.set()
        return Reply(status=status)

    async def result(self) -> Any:
        async with asyncio.timeout(20):
            await self.arrived.wait()
        return json.loads(self.got[-1].body)


@asynccontextmanager
async def _reports(*answers: int, ledger: Path | None = None) -> AsyncIterator[tuple[httpx.AsyncClient, Waiting]]:
    waiting = Waiting(answers=list(answers) or [200])
    tools = Tools(ledger=Ledger(ledger))
    async with (
        wire.listening(waiting.handle) as result_port,
        wire.listening(tools.handle) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10) as client,
    ):
        waiting.url = f"http://127.0.0.1:{result_port}/v1/calls/call_1/result"
        yield client, waiting


async def _render(client: httpx.AsyncClient, waiting: Waiting, *, token: str = "secret-1") -> httpx.Response:
    headers = {"Idempotency-Key": "k1", "Surefoot-Result-Url": waiting.url, "Surefoot-Result-Token": token}
    return await client.post("/reports/render", json={"title": "Q3"}, headers=headers)


async def _found(client: httpx.AsyncClient) -> Any:
    return (await client.get("/reports/find", params={"key": "k1"})).json()["reports"]


async def _until_held(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(20):
        while not (await client.get("/held")).json()["data"]:
            pass


async def test_report_is_accepted_then_brought_with_the_token_when_it_is_ready() -> None:
    async with _reports() as (client, waiting):
        accepted = await _render(client, waiting)
        result = await waiting.result()
        found = await _found(client)

    (sent,) = waiting.got
    assert (accepted.status_code, accepted.json()) == (202, {"report_id": "rep_1", "status": "rendering"})
    assert result == {"outcome": "succeeded", "result": READY}
    assert (sent.path, sent.headers["authorization"]) == ("/v1/calls/call_1/result", "Bearer secret-1")
    assert found == [READY]


async def test_report_is_made_once_and_brought_to_the_newest_token_when_its_key_comes_again() -> None:
    async with _reports() as (client, waiting):
        await _render(client, waiting)
        await waiting.result()
        waiting.arrived.clear()
        again = await _render(client, waiting, token="secret-2")
        await waiting.result()
        entries = (await client.get("/ledger", params={"tool": "reports.render"})).json()["data"]

    assert (again.status_code, again.headers["idempotent-replayed"]) == (202, "true")
    assert [entry["executed"] for entry in entries] == [True, False]
    assert [request.headers["authorization"] for request in waiting.got] == ["Bearer secret-1", "Bearer secret-2"]


async def test_result_is_brought_again_when_nobody_could_take_it() -> None:
    async with _reports(503, 500, 200) as (client, waiting):
        await _render(client, waiting)
        await waiting.result()

    assert len(waiting.got) == 3
    assert len({request.body for request in waiting.got}) == 1


async def test_report_is_not_finished_while_a_rule_holds_it_and_finished_when_released() -> None:
    async with _reports() as (client, waiting):
        await client.post("/behave", json={"tool": "reports.result", "do": "hold"})
        await _render(client, waiting)
        await _until_held(client)
        before = await _found(client)
        untold = list(waiting.got)
        await client.post("/release", json={"tool": "reports.result"})
        result = await waiting.result()

    assert before == [{"report_id": "rep_1", "status": "rendering"}]
    assert untold == []
    assert result["outcome"] == "succeeded"


async def test_report_is_ready_though_nobody_is_told_when_a_rule_loses_its_result() -> None:
    async with _reports() as (client, waiting):
        await client.post("/behave", json={"tool": "reports.result", "do": "drop_reply"})
        await _render(client, waiting)
        async with asyncio.timeout(20):
            while await _found(client) != [READY]:
                pass
        left = (await client.get("/behave")).json()["data"]

    assert waiting.got == []
    assert left == []


@pytest.mark.parametrize(
    ("do", "body"),
    [
        ("status", b'{"outcome": "failed", "message": "The report could not be rendered."}'),
        ("garbage", b"<html>upstream{"),
    ],
)
async def test_result_says_what_a_rule_wants_it_to_say(do: str, body: bytes) -> None:
    async with _reports() as (client, waiting):
        await client.post("/behave", json={"tool": "reports.result", "do": do})
        await _render(client, waiting)
        async with asyncio.timeout(20):
            await waiting.arrived.wait()

    assert [request.body for request in waiting.got] == [body]


async def test_rule_for_every_tool_leaves_results_alone() -> None:
    async with _reports() as (client, waiting):
        await client.post("/behave", json={"do": "half", "times": None})
        with pytest.raises(httpx.TransportError):
            await _render(client, waiting)
        result = await waiting.result()

    assert result == {"outcome": "succeeded", "result": READY}


async def test_report_that_was_cut_off_is_finished_when_its_key_comes_after_a_restart(tmp_path: Path) -> None:
    async with _reports(ledger=tmp_path / "ledger.jsonl") as (client, waiting):
        await client.post("/behave", json={"tool": "reports.result", "do": "drop_request"})
        await _render(client, waiting)
    async with _reports(ledger=tmp_path / "ledger.jsonl") as (client, waiting):
        before = await _found(client)
        again = await _render(client, waiting)
        result = await waiting.result()

    assert before == [{"report_id": "rep_1", "status": "rendering"}]
    assert again.status_code == 202
    assert result["result"] == READY
