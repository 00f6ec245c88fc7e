"""The demo tools: books that are true, also after `kill -9`, and misbehaviour on demand."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.embedded import listening, wire
from app.embedded.tool_ledger import Ledger
from app.embedded.tools import Tools, declarations, noop_declaration

pytestmark = pytest.mark.anyio

EVENT: dict[str, Any] = {"title": "Sync", "start": "2026-11-23T14:00:00Z", "attendees": ["ana@x.io"]}


@asynccontextmanager
async def _tools(ledger: Path | None = None) -> AsyncIterator[httpx.AsyncClient]:
    tools = Tools(ledger=Ledger(ledger))
    async with (
        wire.listening(tools.handle) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10) as client,
    ):
        yield client


async def _book(client: httpx.AsyncClient, key: str | None = "k1", **changed: Any) -> httpx.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    return await client.post("/calendar/events", json=EVENT | changed, headers=headers)


async def _ledger(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    data: list[dict[str, Any]] = (await client.get("/ledger")).json()["data"]
    return data


async def _until_held(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    held: list[dict[str, Any]] = []
    async with asyncio.timeout(10):
        while not held:
            held = (await client.get("/held")).json()["data"]
    return held


async def test_calendar_books_once_and_returns_the_stored_event_when_the_key_comes_again() -> None:
    async with _tools() as client:
        first, second = await _book(client), await _book(client)
        listed = (await client.get("/calendar/events")).json()["data"]
        entries = [entry for entry in await _ledger(client) if entry["tool"] == "calendar.create_event"]

    assert first.json() == second.json()
    assert first.json()["event_id"] == "evt_8841"
    assert second.headers["idempotent-replayed"] == "true"
    assert len(listed) == 1
    assert [(entry["key"], entry["executed"]) for entry in entries] == [("k1", True), ("k1", False)]


async def test_calendar_books_once_when_the_same_key_comes_twice_at_the_same_time() -> None:
    async with _tools() as client:
        answers = await asyncio.gather(*(_book(client) for _ in range(8)))
        entries = await _ledger(client)

    assert {answer.json()["event_id"] for answer in answers} == {"evt_8841"}
    assert sum(entry["executed"] for entry in entries) == 1


async def test_calendar_refuses_a_key_when_it_comes_with_other_arguments() -> None:
    async with _tools() as client:
        await _book(client)
        other = await _book(client, title="Another")

    assert other.status_code == 422


async def test_calendar_books_again_when_there_is_no_key() -> None:
    async with _tools() as client:
        ids = {(await _book(client, key=None)).json()["event_id"] for _ in range(2)}

    assert ids == {"evt_8841", "evt_8842"}


async def test_calendar_deletes_idempotently_and_still_replays_the_key_afterwards() -> None:
    async with _tools() as client:
        event = (await _book(client)).json()["event_id"]
        gone = [(await client.delete("/calendar/events", params={"event_id": event})).json() for _ in range(2)]
        again = (await _book(client)).json()
        listed = (await client.get("/calendar/events")).json()["data"]
        deletes = [entry["executed"] for entry in await _ledger(client) if entry["tool"] == "calendar.delete_event"]

    assert gone == [{"event_id": event, "deleted": True}] * 2
    assert deletes == [True, False]
    assert again["event_id"] == event
    assert listed == []


async def test_mailbox_sends_every_time_it_is_asked() -> None:
    async with _tools() as client:
        mail = {"to": "ana@x.io", "subject": "Sync"}
        sent = [(await client.post("/email/send", json=mail)).json()["message_id"] for _ in range(2)]

    assert sent == ["msg_1", "msg_2"]


async def test_free_busy_is_the_same_for_a_person_and_knows_what_was_booked() -> None:
    async with _tools() as client:
        before = (await client.get("/calendar/free_busy", params={"email": "ana@x.io"})).json()["busy"]
        start = before[0]["start"][:11] + "17:00:00Z"
        await _book(client, start=start)
        after = (await client.get("/calendar/free_busy", params={"email": "ana@x.io"})).json()["busy"]

    assert len(before) == 2
    assert after == [*before, {"start": start, "end": start.replace("17:00", "17:30")}]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [("POST", "/calendar/events", b"{"), ("POST", "/calendar/events", b"[]"), ("POST", "/email/send", b"{}")],
)
async def test_tool_refuses_arguments_when_they_are_none(method: str, path: str, body: bytes) -> None:
    async with _tools() as client:
        answer = await client.request(method, path, content=body)

    assert answer.status_code == 400


async def test_books_survive_kill_minus_nine_and_a_torn_last_line(tmp_path: Path) -> None:
    ledger, port_file = tmp_path / "ledger.jsonl", tmp_path / "port"
    command = ["-m", "app.embedded.tools", "--port", "0", "--port-file", str(port_file), "--ledger", str(ledger)]
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    async with asyncio.timeout(20):
        await process.stdout.readline()
    port = listening.read_port(port_file)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        booked = (await _book(client)).json()
    process.kill()
    await process.wait()
    with ledger.open("ab") as file:
        file.write(b'{"tool":"email.send","exec')

    async with _tools(ledger) as client:
        replayed = await _book(client)
        other = await _book(client, key="k2")

    assert replayed.json() == booked
    assert other.json()["event_id"] == "evt_8842"
    assert [json.loads(line)["executed"] for line in ledger.read_text().splitlines()] == [True, False, True]


@pytest.mark.parametrize("do", ["drop_reply", "half"])
async def test_tool_executes_but_does_not_answer_when_told(do: str) -> None:
    async with _tools() as client:
        await client.post("/behave", json={"tool": "calendar.create_event", "do": do})
        with pytest.raises(httpx.TransportError):
            await _book(client)
        second = await _book(client)
        entries = await _ledger(client)

    assert second.status_code == 200
    assert [entry["executed"] for entry in entries] == [True, False]


async def test_tool_does_nothing_when_told_to_drop_the_request_or_to_answer_a_status() -> None:
    async with _tools() as client:
        await client.post("/behave", json={"do": "drop_request", "reset": True})
        with pytest.raises(httpx.TransportError):
            await _book(client)
        await client.post("/behave", json={"do": "status", "status": 503, "headers": {"Retry-After": "2"}})
        refused = await _book(client)
        entries = await _ledger(client)

    assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
    assert [(entry["executed"], entry["status"]) for entry in entries] == [(False, 0), (False, 503)]


async def test_tool_answers_an_error_after_it_executed_when_told() -> None:
    async with _tools() as client:
        await client.post("/behave", json={"do": "status", "status": 500, "when": "after"})
        refused = await _book(client)
        entries = await _ledger(client)

    assert refused.status_code == 500
    assert [entry["executed"] for entry in entries] == [True]


async def test_held_request_is_executed_when_released_though_its_client_went_away() -> None:
    async with _tools() as client:
        await client.post("/behave", json={"tool": "calendar.create_event", "do": "hold"})
        async with httpx.AsyncClient(base_url=client.base_url, timeout=10) as leaving:
            waiting = asyncio.create_task(_book(leaving))
            held = await _until_held(client)
            nothing_yet = await _ledger(client)
            waiting.cancel()
        released = (await client.post("/release", json={"tool": "calendar.create_event"})).json()
        second = await _book(client)

    assert held == [{"tool": "calendar.create_event", "key": "k1", "arguments": EVENT, "when": "before"}]
    assert nothing_yet == []
    assert released == {"released": 1}
    assert second.headers["idempotent-replayed"] == "true"


async def test_request_held_after_executing_is_in_the_ledger_while_it_waits() -> None:
    async with _tools() as client:
        await client.post("/behave", json={"do": "hold", "when": "after"})
        waiting = asyncio.create_task(_book(client))
        await _until_held(client)
        entries = await _ledger(client)
        await client.post("/release")
        answer = await waiting

    assert [entry["executed"] for entry in entries] == [True]
    assert answer.status_code == 200


async def test_rule_is_used_as_often_as_told_for_the_arguments_it_names() -> None:
    async with _tools() as client:
        rule = {"do": "status", "status": 500, "times": 2, "where": {"title": "Unlucky"}}
        await client.post("/behave", json=rule)
        statuses = [(await _book(client, key=None, title=t)).status_code for t in ("Sync", *["Unlucky"] * 3)]
        left = (await client.get("/behave")).json()["data"]

    assert statuses == [200, 500, 500, 200]
    assert left == []


@pytest.mark.parametrize("rule", [{"do": "explode"}, {"do": "hold", "when": "never"}, {"do": "hang", "tim": 1}, [1]])
async def test_rule_is_refused_when_it_says_nothing_known(rule: Any) -> None:
    async with _tools() as client:
        answer = await client.post("/behave", json=rule)

    assert answer.status_code == 400


async def test_noop_answers_an_empty_object_and_is_only_counted() -> None:
    async with _tools() as client:
        answers = [(await client.post("/noop", json={"n": n})).json() for n in range(3)]
        ledger = (await client.get("/ledger")).json()

    assert answers == [{}] * 3
    assert ledger == {"data": [], "noops": 3}


async def test_reset_forgets_events_keys_and_rules(tmp_path: Path) -> None:
    async with _tools(tmp_path / "ledger.jsonl") as client:
        await _book(client)
        await client.post("/behave", json={"do": "hang", "times": None})
        await client.post("/reset")
        again = await _book(client)

    assert again.json()["event_id"] == "evt_8841"
    assert "idempotent-replayed" not in again.headers


async def test_calendar_finds_an_event_by_title_start_or_the_key_it_was_booked_with() -> None:
    async with _tools() as client:
        await _book(client, key="k1")
        await _book(client, key="k2", title="Other")
        found = [
            [event["event_id"] for event in (await client.get("/calendar/find", params=sought)).json()["events"]]
            for sought in ({"title": "Sync"}, {"start": EVENT["start"]}, {"key": "k2"}, {"title": "Sync", "key": "k2"})
        ]

    assert found == [["evt_8841"], ["evt_8841", "evt_8842"], ["evt_8842"], []]


async def test_mailbox_tells_whether_a_mail_was_sent_and_leaves_out_what_others_sent() -> None:
    mine, others = {"Surefoot-Workflow": "wf_1"}, {"Surefoot-Workflow": "wf_2"}
    mail = {"to": "ana@x.io", "subject": "Sync"}

    async with _tools() as client:
        await client.post("/email/send", json=mail | {"body": "last week's"}, headers=others)
        before = (await client.get("/email/search", params=mail | {"mine": "true"}, headers=mine)).json()
        await client.post("/email/send", json=mail | {"body": "today's"}, headers=mine)
        after = (await client.get("/email/search", params=mail | {"mine": "true"}, headers=mine)).json()
        everybody = (await client.get("/email/search", params=mail)).json()
        by_body = (await client.get("/email/search", params=mail | {"body": "tomorrow's"})).json()

    assert before == by_body == {"messages": []}
    assert after == {"messages": [{"message_id": "msg_2", **mail, "body": "today's"}]}
    assert [message["message_id"] for message in everybody["messages"]] == ["msg_1", "msg_2"]


async def test_every_declared_tool_is_served_where_its_declaration_says() -> None:
    given = {"email": "a@x.io", "event_id": "evt_1", "to": "a@x.io", "subject": "s", "body": "", "key": "k"} | EVENT
    given |= {"mine": "true", "reference": "p1", "amount": 100, "currency": "EUR", "card": "tok_visa", "rows": []}
    given |= {"authorization_id": "auth_1", "settlement_id": "set_1", "check": "device", "operation": "settle"}

    async with _tools() as client:
        base_url = str(client.base_url).rstrip("/")
        declared = {**declarations(base_url), "demo.noop": noop_declaration(base_url)}
        statuses = {}
        for name, tool in declared.items():
            arguments = {field: given[field] for field in tool.get("input_schema", {})}
            http = tool["http"]
            sent = {"json": arguments} if http["method"] == "POST" else {"params": arguments}
            statuses[name] = (await client.request(http["method"], http["url"], **sent)).status_code

    assert statuses == {**dict.fromkeys(declared, 200), "reports.render": 202}


async def test_server_refuses_a_body_without_a_length_and_garbage_instead_of_a_request() -> None:
    async with _tools() as client:
        host, port = client.base_url.host, client.base_url.port
        answers = []
        for sent in (b"POST /noop HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", b"garbage\r\n\r\n"):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(sent)
            answers.append((await reader.readline()).split()[1])
            writer.close()

    assert answers == [b"411", b"400"]


async def test_server_answers_requests_one_after_the_other_when_they_arrive_in_pieces_or_together() -> None:
    async with _tools() as client:
        reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
        request = b"POST /noop HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"
        for piece in (request[:9], request[9:40], request[40:] + request + request[:20], request[20:]):
            writer.write(piece)
            await writer.drain()
        answers = [await reader.readuntil(b"{}") for _ in range(3)]
        writer.close()

    assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)
