"""GET: what the rows say, in the shapes that were promised; lists, entity tags, waiting, tenants."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from pydantic import BaseModel

from app.api.shapes.effect import WorkflowEffects
from app.api.shapes.event import EventPage
from app.api.shapes.listing import Page
from app.api.shapes.step import CallDetail, Step, StepDetail
from app.api.shapes.trace import Trace
from app.api.shapes.workflow import Workflow
from app.domain import ids
from app.store import tables
from app.store.database import Database
from tests.api import rows

pytestmark = pytest.mark.anyio


async def test_workflow_says_what_it_waits_for_when_read(api: httpx.AsyncClient, database: Database) -> None:
    workflow_id = await rows.story(database)

    response = await api.get(rows.path(workflow_id))

    workflow = Workflow.model_validate_json(response.content)
    assert {(wait.kind, wait.step) for wait in workflow.waiting_on} == {("approval", "ask"), ("doubt", "create")}
    assert workflow.attention == ["outcome_unknown"]
    assert workflow.effects.unknown == 1
    assert workflow.next_poll_ms == 5000
    assert "calendar.create_event" in workflow.headline
    assert response.json()["created_at"] == "2026-11-22T10:00:00Z"


@pytest.mark.parametrize(
    ("rest", "shape"),
    [
        ("", Workflow),
        ("/steps", Page[Step]),
        ("/steps/plan", StepDetail),
        ("/steps/plan/calls/1", CallDetail),
        ("/steps/create/calls/1", CallDetail),
        ("/effects", WorkflowEffects),
        ("/events", EventPage),
        ("/trace", Trace),
    ],
)
async def test_answer_has_every_key_of_its_shape_when_read(
    api: httpx.AsyncClient, database: Database, rest: str, shape: type[BaseModel]
) -> None:
    workflow_id = await rows.story(database)

    response = await api.get(rows.path(workflow_id, rest))

    assert response.status_code == 200
    shape.model_validate_json(response.content)
    assert response.json().keys() >= {field.alias or name for name, field in shape.model_fields.items()}


async def test_steps_come_in_document_order_with_their_needs_when_listed(
    api: httpx.AsyncClient, database: Database
) -> None:
    workflow_id = await rows.story(database)

    first = (await api.get(rows.path(workflow_id, "/steps?limit=2"))).json()
    rest = (await api.get(rows.path(workflow_id, "/steps"), params={"limit": 2, "cursor": first["next_cursor"]})).json()

    assert [step["path"] for step in first["data"] + rest["data"]] == ["plan", "create", "ask"]
    assert [step["needs"] for step in first["data"] + rest["data"]] == [[], ["plan"], ["create"]]
    assert (first["has_more"], rest["has_more"], rest["next_cursor"]) == (True, False, None)
    assert first["data"][0]["attempts"] == 1


async def test_items_follow_their_parent_in_order_when_there_are_more_than_ten(
    api: httpx.AsyncClient, database: Database
) -> None:
    workflow_id = await rows.workflow(database)
    await rows.step(database, workflow_id, "create", items_total=12)
    for index in reversed(range(12)):
        await rows.step(database, workflow_id, f"create.{index}", parent="create", item_index=index)

    found: list[str] = []
    cursor: dict[str, Any] = {}
    while cursor is not None:
        page = (await api.get(rows.path(workflow_id, "/steps"), params={"limit": 5, **cursor})).json()
        found += [step["path"] for step in page["data"]]
        cursor = {"cursor": page["next_cursor"]} if page["has_more"] else None  # type: ignore[assignment]

    assert found == ["create", *(f"create.{index}" for index in range(12))]


async def test_call_shows_the_exact_prompt_and_answer_when_read(api: httpx.AsyncClient, database: Database) -> None:
    workflow_id = await rows.story(database)

    call = (await api.get(rows.path(workflow_id, "/steps/plan/calls/1"))).json()

    assert call["request"]["messages"] == [{"role": "user", "content": "Plan it."}]
    assert call["request"]["system"] == "Plan."
    assert [tool["name"] for tool in call["request"]["tools"]] == ["calendar-create_event"]
    [answer] = call["answers"]
    assert answer["json"] == {"content": [{"type": "text", "text": "no json"}]}
    assert call["attempt_list"][0]["cost_usd"] == "0.0121"
    assert call["recovery"][0]["change"] == "format_reminder"


@pytest.mark.parametrize(
    ("body", "media_type", "expected"),
    [
        (b"hello", "text/plain", {"json": None, "text": "hello", "base64": None}),
        (b"\xff\x00", "image/png", {"json": None, "text": None, "base64": "/wA="}),
        (b'{"a":"\\u0000"}', "application/json", {"json": None, "text": '{"a":"\\u0000"}', "base64": None}),
        (b"[" * 5000, "application/json", {"json": None, "text": "[" * 5000, "base64": None}),
        (b"\xed\xa0\x80", "application/json", {"json": None, "text": None, "base64": "7aCA"}),
    ],
)
async def test_evidence_comes_back_as_it_arrived_when_a_tool_answered_oddly(
    api: httpx.AsyncClient, database: Database, body: bytes, media_type: str, expected: dict[str, Any]
) -> None:
    workflow_id = await rows.workflow(database)
    await rows.step(database, workflow_id, "create")
    call_id = await rows.call(database, workflow_id, "create")
    evidence = await rows.payload(database, workflow_id, body)
    await rows.attempt(database, workflow_id, call_id, evidence=evidence, media_type=media_type)

    [answer] = (await api.get(rows.path(workflow_id, "/steps/create/calls/1"))).json()["answers"]

    assert {name: answer[name] for name in expected} == expected
    assert answer["bytes"] == len(body)


async def test_lone_surrogate_goes_out_as_an_escape_when_a_result_holds_one(
    api: httpx.AsyncClient, database: Database
) -> None:
    workflow_id = await rows.workflow(database)
    await rows.step(database, workflow_id, "create")
    call_id = await rows.call(database, workflow_id, "create")
    await rows.change(database, "UPDATE calls SET result = CAST(:r AS json)", r='{"odd": "\\ud800"}')

    response = await api.get(f"/v1/effects/{ids.encode('call', call_id)}")

    assert response.status_code == 200
    assert json.loads(response.content)["result"] == {"odd": "\ud800"}


async def test_trace_is_text_when_asked_for(api: httpx.AsyncClient, database: Database) -> None:
    workflow_id = await rows.story(database)

    response = await api.get(rows.path(workflow_id, "/trace?format=text&width=80"))

    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert "malformed_output" in response.text


@pytest.mark.parametrize(("form", "code"), [("otlp", "unsupported"), ("flat", "unsupported"), ("svg", "invalid_value")])
async def test_trace_is_refused_when_its_format_is_not_built(
    api: httpx.AsyncClient, database: Database, form: str, code: str
) -> None:
    workflow_id = await rows.workflow(database)

    response = await api.get(rows.path(workflow_id, f"/trace?format={form}"))

    assert (response.status_code, response.json()["code"]) == (422, code)


async def test_events_come_in_pages_when_asked_after_a_number(api: httpx.AsyncClient, database: Database) -> None:
    workflow_id = await rows.story(database)

    page = await api.get(rows.path(workflow_id, "/events?after=1&limit=2"))
    following = await api.get(page.headers["link"].split(">")[0].lstrip("<"))
    end = await api.get(rows.path(workflow_id, "/events?after=5"))

    assert [event["seq"] for event in page.json()["data"]] == [2, 3]
    assert page.json()["next_cursor"] == "3"
    assert [event["seq"] for event in following.json()["data"]] == [4, 5]
    assert page.json()["data"][0]["to"] == "running"
    assert page.json()["data"][0]["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert end.json() == {"data": [], "next_cursor": None, "has_more": False}


# --- entity tags and waiting -----------------------------------------------------------------------------------------


async def test_client_gets_304_when_nothing_changed(api: httpx.AsyncClient, database: Database) -> None:
    workflow_id = await rows.workflow(database, status="waiting", open_calls=0, waits=1)
    first = await api.get(rows.path(workflow_id))

    again = await api.get(rows.path(workflow_id), headers={"If-None-Match": f'"other", {first.headers["etag"]}'})

    assert first.headers["etag"] == '"2"'
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == '"2"'


async def test_client_gets_the_change_when_it_waits_with_a_tag(api: httpx.AsyncClient, database: Database) -> None:
    workflow_id = await rows.workflow(database, status="waiting", open_calls=0, waits=1)
    tag = {"If-None-Match": '"2"', "Prefer": "wait=30"}
    waiting = asyncio.create_task(api.get(rows.path(workflow_id), headers=tag))
    await asyncio.wait({waiting}, timeout=0.2)

    await rows.change(database, "UPDATE workflows SET revision = 3")
    response = await waiting

    assert (response.status_code, response.headers["etag"]) == (200, '"3"')
    assert response.headers["preference-applied"] == "wait=30"


async def test_client_gets_304_when_its_wait_ends_without_a_change(api: httpx.AsyncClient, database: Database) -> None:
    workflow_id = await rows.workflow(database, status="waiting", open_calls=0, waits=1)

    response = await api.get(rows.path(workflow_id), headers={"If-None-Match": '"2"', "Prefer": "wait=0"})

    assert response.status_code == 304


async def test_client_gets_its_answer_at_once_when_a_person_is_needed(
    api: httpx.AsyncClient, database: Database
) -> None:
    workflow_id = await rows.story(database)

    response = await asyncio.wait_for(api.get(rows.path(workflow_id), headers={"Prefer": "wait=60"}), 10)

    assert response.json()["status"] == "waiting"


async def test_attention_and_tag_tell_when_no_worker_lives(api: httpx.AsyncClient, database: Database) -> None:
    workflow_id = await rows.workflow(database)
    await rows.step(database, workflow_id, "create")
    call_id = await rows.call(database, workflow_id, "create")
    await rows.write(
        database, tables.dues, kind="call", ref=call_id, tenant_id=ids.DEFAULT_TENANT, workflow_id=workflow_id,
        lane="calls", due_at=rows.BEGAN - timedelta(days=400), ring_at=rows.BEGAN,
    )  # fmt: skip
    without = await api.get(rows.path(workflow_id))

    await rows.write(
        database, tables.workers, id=uuid4(), name="worker.1", host="h", boot_id="b", pid=1, slots=1, engine_version=1,
        started_at=rows.BEGAN, beat_at=rows.BEGAN, lease_until=rows.BEGAN + timedelta(days=9999),
    )  # fmt: skip
    among = await api.get(rows.path(workflow_id))

    assert (without.json()["attention"], without.headers["etag"]) == (["no_worker"], '"2-no_worker"')
    assert (among.json()["attention"], among.headers["etag"]) == (["stalled"], '"2-stalled"')
