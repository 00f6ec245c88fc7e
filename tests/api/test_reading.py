"""GET: what the rows say, in the shapes that were promised; lists, entity tags, waiting, tenants."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from pydantic import BaseModel

from app.api.shapes.approval import Approval
from app.api.shapes.effect import Effect
from app.api.shapes.event import EventPage
from app.api.shapes.listing import Page
from app.api.shapes.step import CallDetail, Step, StepDetail
from app.api.shapes.trace import Trace
from app.api.shapes.workflow import Workflow, WorkflowItem
from app.domain import ids
from app.store import tables
from app.store.database import Database
from tests.api import rows

pytestmark = pytest.mark.anyio

OTHER = UUID("00000000-0000-7000-8000-00000000000f")


def path(workflow_id: UUID, rest: str = "") -> str:
    return f"/v1/workflows/{ids.encode('wf', workflow_id)}{rest}"


async def full(database: Database) -> UUID:
    """A workflow with an agent step that was repaired, an effect in doubt, and an open approval."""
    workflow_id = await rows.workflow(
        database, status="waiting", open_calls=0, doubts=1, waits=1, retries=1, attention=["outcome_unknown"]
    )
    await rows.step(database, workflow_id, "plan", kind="agent", state="succeeded", ended_at=rows.BEGAN, calls=2)
    await rows.step(database, workflow_id, "create", position=1, calls=1)
    await rows.step(database, workflow_id, "ask", position=2, kind="approval", state="waiting", title="Send?")
    await rows.write(
        database,
        tables.messages,
        workflow_id=workflow_id,
        step="plan",
        conversation=0,
        ordinal=0,
        tenant_id=ids.DEFAULT_TENANT,
        role="user",
        turn=0,
        body=b'{"role":"user","content":"Plan it."}',
    )
    record = {"kind": "malformed_output", "rule": "malformed_output", "source": "default", "line": None,
              "change": "format_reminder", "diff": None, "waited_ms": 260, "result": "succeeded", "attempt": 1}  # fmt: skip
    first = await rows.call(
        database, workflow_id, "plan", kind="model", tool=None, effect="read_only", key=None, state="failed",
        ended_at=rows.BEGAN, attempts=1, recovery=[record],
        request={"model": "claude-x", "max_tokens": 64, "effort": None, "conversation": 0, "messages": 1},
    )  # fmt: skip
    body = b'{"content":[{"type":"text","text":"no json"}]}'
    await rows.attempt(
        database, workflow_id, first, outcome="failed", failure={"kind": "malformed_output", "message": "m"},
        status_code=200, evidence=await rows.payload(database, workflow_id, body), media_type="application/json",
        usage={"input_tokens": 10, "output_tokens": 5}, cost_microusd=12_100,
    )  # fmt: skip
    doubt = await rows.call(
        database, workflow_id, "create", state="in_doubt", attempts=1, doubt_since=rows.BEGAN,
        not_before=rows.BEGAN + timedelta(minutes=1), result={"event": 7},
    )  # fmt: skip
    await rows.attempt(database, workflow_id, doubt, outcome="unknown", received_at=None,
                       failure={"kind": "timeout", "message": "no answer"})  # fmt: skip
    await rows.approval(database, workflow_id, "ask")
    for seq in range(1, 6):
        await rows.event(database, workflow_id, seq, "workflow.accepted", to_state="running")
    return workflow_id


async def test_workflow_says_what_it_waits_for_when_read(api: httpx.AsyncClient, database: Database) -> None:
    workflow_id = await full(database)

    response = await api.get(path(workflow_id))

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
        ("/effects", Page[Effect]),
        ("/events", EventPage),
        ("/trace", Trace),
    ],
)
async def test_answer_has_every_key_of_its_shape_when_read(
    api: httpx.AsyncClient, database: Database, rest: str, shape: type[BaseModel]
) -> None:
    workflow_id = await full(database)

    response = await api.get(path(workflow_id, rest))

    assert response.status_code == 200
    shape.model_validate_json(response.content)
    assert response.json().keys() >= {field.alias or name for name, field in shape.model_fields.items()}


async def test_steps_come_in_document_order_with_their_needs_when_listed(
    api: httpx.AsyncClient, database: Database
) -> None:
    workflow_id = await full(database)

    first = (await api.get(path(workflow_id, "/steps?limit=2"))).json()
    rest = (await api.get(path(workflow_id, "/steps"), params={"limit": 2, "cursor": first["next_cursor"]})).json()

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
        page = (await api.get(path(workflow_id, "/steps"), params={"limit": 5, **cursor})).json()
        found += [step["path"] for step in page["data"]]
        cursor = {"cursor": page["next_cursor"]} if page["has_more"] else None  # type: ignore[assignment]

    assert found == ["create", *(f"create.{index}" for index in range(12))]


async def test_call_shows_the_exact_prompt_and_answer_when_read(api: httpx.AsyncClient, database: Database) -> None:
    workflow_id = await full(database)

    call = (await api.get(path(workflow_id, "/steps/plan/calls/1"))).json()

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

    [answer] = (await api.get(path(workflow_id, "/steps/create/calls/1"))).json()["answers"]

    assert {name: answer[name] for name in expected} == expected
    assert answer["bytes"] == len(body)


async def test_lone_surrogate_goes_out_as_an_escape_when_a_result_holds_one(
    api: httpx.AsyncClient, database: Database
) -> None:
    workflow_id = await rows.workflow(database)
    await rows.step(database, workflow_id, "create")
    call_id = await rows.call(database, workflow_id, "create")
    await rows.change(database, """UPDATE calls SET result = CAST(:r AS json)""", r='{"odd": "\\\ud800"}')

    response = await api.get(f"/v1/effects/{ids.encode('call', call_id)}")

    assert response.status_code == 200
    assert json.loads(response.content)["result"] == {"odd": "\ud800"}


async def test_trace_is_text_when_asked_for(api: httpx.AsyncClient, database: Database) -> None:
    workflow_id = await full(database)

    response = await api.get(path(workflow_id, "/trace?format=text&width=80"))

    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert "malformed_output" in response.text


@pytest.mark.parametrize(("form", "code"), [("otlp", "unsupported"), ("flat", "unsupported"), ("svg", "invalid_value")])
async def test_trace_is_refused_when_its_format_is_not_built(
    api: httpx.AsyncClient, database: Database, form: str, code: str
) -> None:
    workflow_id = await rows.workflow(database)

    response = await api.get(path(workflow_id, f"/trace?format={form}"))

    assert (response.status_code, response.json()["code"]) == (422, code)


async def test_events_come_in_pages_when_asked_after_a_number(api: httpx.AsyncClient, database: Database) -> None:
    workflow_id = await full(database)

    page = await api.get(path(workflow_id, "/events?after=1&limit=2"))
    following = await api.get(page.headers["link"].split(">")[0].lstrip("<"))
    end = await api.get(path(workflow_id, "/events?after=5"))

    assert [event["seq"] for event in page.json()["data"]] == [2, 3]
    assert page.json()["next_cursor"] == "3"
    assert [event["seq"] for event in following.json()["data"]] == [4, 5]
    assert page.json()["data"][0]["to"] == "running"
    assert page.json()["data"][0]["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert end.json() == {"data": [], "next_cursor": None, "has_more": False}


# --- entity tags and waiting -----------------------------------------------------------------------------------------


async def test_client_gets_304_when_nothing_changed(api: httpx.AsyncClient, database: Database) -> None:
    workflow_id = await rows.workflow(database, status="waiting", open_calls=0, waits=1)
    first = await api.get(path(workflow_id))

    again = await api.get(path(workflow_id), headers={"If-None-Match": f'"other", {first.headers["etag"]}'})

    assert first.headers["etag"] == '"1"'
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == '"1"'


async def test_client_gets_the_change_when_it_waits_with_a_tag(api: httpx.AsyncClient, database: Database) -> None:
    workflow_id = await rows.workflow(database, status="waiting", open_calls=0, waits=1)
    waiting = asyncio.create_task(
        api.get(path(workflow_id), headers={"If-None-Match": '"1"', "Prefer": "wait=30"})
    )
    await asyncio.wait({waiting}, timeout=0.2)

    await rows.change(database, "UPDATE workflows SET revision = 2")
    response = await waiting

    assert (response.status_code, response.headers["etag"]) == (200, '"2"')
    assert response.headers["preference-applied"] == "wait=30"


async def test_client_gets_304_when_its_wait_ends_without_a_change(api: httpx.AsyncClient, database: Database) -> None:
    workflow_id = await rows.workflow(database, status="waiting", open_calls=0, waits=1)

    response = await api.get(path(workflow_id), headers={"If-None-Match": '"1"', "Prefer": "wait=0"})

    assert response.status_code == 304


async def test_client_gets_its_answer_at_once_when_a_person_is_needed(
    api: httpx.AsyncClient, database: Database
) -> None:
    workflow_id = await full(database)

    response = await asyncio.wait_for(api.get(path(workflow_id), headers={"Prefer": "wait=60"}), 10)

    assert response.json()["status"] == "waiting"


async def test_attention_and_tag_tell_when_no_worker_lives(api: httpx.AsyncClient, database: Database) -> None:
    workflow_id = await rows.workflow(database)
    await rows.step(database, workflow_id, "create")
    call_id = await rows.call(database, workflow_id, "create")
    await rows.write(
        database, tables.dues, kind="call", ref=call_id, tenant_id=ids.DEFAULT_TENANT, workflow_id=workflow_id,
        lane="calls", due_at=rows.BEGAN - timedelta(days=400), ring_at=rows.BEGAN,
    )  # fmt: skip
    without = await api.get(path(workflow_id))

    await rows.write(
        database, tables.workers, id=uuid4(), name="worker.1", host="h", boot_id="b", pid=1, slots=1, engine_version=1,
        started_at=rows.BEGAN, beat_at=rows.BEGAN, lease_until=rows.BEGAN + timedelta(days=9999),
    )  # fmt: skip
    among = await api.get(path(workflow_id))

    assert (without.json()["attention"], without.headers["etag"]) == (["no_worker"], '"1-no_worker"')
    assert (among.json()["attention"], among.headers["etag"]) == (["stalled"], '"1-stalled"')


# --- lists and tenants -----------------------------------------------------------------------------------------------


async def test_list_is_newest_first_and_pages_without_loss_when_walked(
    api: httpx.AsyncClient, database: Database
) -> None:
    made = [await rows.workflow(database) for _ in range(5)]

    first = await api.get("/v1/workflows?limit=2")
    second = await api.get(first.headers["link"].split(">")[0].lstrip("<"))
    third = await api.get("/v1/workflows", params={"limit": 2, "cursor": second.json()["next_cursor"]})

    walked = [item["id"] for page in (first, second, third) for item in page.json()["data"]]
    assert walked == [ids.encode("wf", workflow_id) for workflow_id in reversed(made)]
    assert third.json()["has_more"] is False
    assert "link" not in third.headers
    Page[WorkflowItem].model_validate_json(first.content)
    assert "input" not in first.json()["data"][0]


@pytest.mark.parametrize(
    "query",
    [
        "status=failed",
        "status=failed&status=cancelled",
        "definition=other",
        "definition=sha256:other",
        "label.team=a&label.env/x=b",
        "since=2026-12-01T00:00:00Z",
        "since=2026-12-01T02:00:00%2B02:00",
        "attention=poisoned",
        "failure.kind=timeout",
        "key=order-7",
    ],
)
async def test_list_holds_only_what_fits_when_filtered(
    api: httpx.AsyncClient, database: Database, query: str
) -> None:
    await rows.workflow(database)
    wanted = await rows.workflow(
        database, status="failed", open_calls=0, ended_at=rows.BEGAN, name="other", definition_digest="sha256:other",
        labels={"team": "a", "env/x": "b", "more": "c"}, created_at=rows.BEGAN + timedelta(days=9),
        attention=["poisoned"], failure={"kind": "timeout", "message": "m"}, idempotency_key="order-7",
    )  # fmt: skip
    await rows.write(
        database, tables.idempotency_keys, tenant_id=ids.DEFAULT_TENANT, route="POST /v1/workflows", key="order-7",
        fingerprint="f", field_hashes={}, workflow_id=wanted, response_status=202,
    )  # fmt: skip

    response = await api.get(f"/v1/workflows?{query}")

    assert [item["id"] for item in response.json()["data"]] == [ids.encode("wf", wanted)]


async def test_cursor_is_refused_when_the_filters_are_others(api: httpx.AsyncClient, database: Database) -> None:
    for _ in range(2):
        await rows.workflow(database)
    cursor = (await api.get("/v1/workflows?limit=1")).json()["next_cursor"]

    response = await api.get("/v1/workflows", params={"cursor": cursor, "status": "running"})

    assert (response.status_code, response.json()["errors"][0]["pointer"]) == (422, "?cursor")


@pytest.mark.parametrize(
    "where",
    ["/v1/workflows/wf_x", "/v1/effects", "/v1/approvals", "/v1/workers", "/v1/signing-secret"],
)
async def test_unknown_parameter_is_an_error_when_it_is_sent_anywhere(
    api: httpx.AsyncClient, where: str
) -> None:
    response = await api.get(where, params={"verbose": "1"})

    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"] == "?verbose"


async def test_doubts_of_all_workflows_are_listed_when_asked_by_state(
    api: httpx.AsyncClient, database: Database
) -> None:
    workflow_id = await full(database)

    page = (await api.get("/v1/effects?state=in_doubt")).json()
    none = (await api.get("/v1/effects?state=held")).json()

    [effect] = page["data"]
    assert effect["workflow_id"] == ids.encode("wf", workflow_id)
    assert effect["arguments"] == {"title": "x"}
    assert effect["not_before"] == "2026-11-22T10:01:00Z"
    assert none["data"] == []


async def test_open_approvals_are_listed_when_asked_by_status_and_workflow(
    api: httpx.AsyncClient, database: Database
) -> None:
    workflow_id = await full(database)

    page = (await api.get("/v1/approvals", params={"status": "open", "workflow": path(workflow_id)[14:]})).json()
    one = await api.get(f"/v1/approvals/{page['data'][0]['id']}")

    assert Approval.model_validate_json(one.content).title == "Send the invitations?"
    assert page["data"] == [one.json()]


@pytest.mark.parametrize(
    "rest",
    ["", "/steps", "/steps/plan", "/steps/plan/calls/1", "/effects", "/events", "/trace", "/trace?format=text"],
)
async def test_other_tenant_finds_nothing_when_it_knows_the_id(
    base_url: str, database: Database, rest: str
) -> None:
    workflow_id = await full(database)
    await rows.tenant(database, tenant_id=OTHER)
    stranger = await rows.key(database, tenant_id=OTHER, seed=2)

    async with httpx.AsyncClient(base_url=base_url, headers=stranger.header, trust_env=False) as client:
        response = await client.get(path(workflow_id, rest))

    assert (response.status_code, response.json()["code"]) == (404, "not_found")


async def test_other_tenant_sees_and_moves_nothing_when_it_lists_or_posts(base_url: str, database: Database) -> None:
    workflow_id = await full(database)
    await rows.tenant(database, tenant_id=OTHER)
    stranger = await rows.key(database, tenant_id=OTHER, seed=2)
    async with database.reading() as connection:
        call = (await connection.exec_driver_sql("SELECT id FROM calls WHERE state = 'in_doubt'")).scalar_one()
        approval = (await connection.exec_driver_sql("SELECT id FROM approvals")).scalar_one()
    verdict = {"outcome": "happened", "note": "n"}

    async with httpx.AsyncClient(base_url=base_url, headers=stranger.header, trust_env=False) as client:
        lists = [await client.get(where) for where in ("/v1/workflows", "/v1/effects", "/v1/approvals")]
        refused = [
            await client.get(f"/v1/effects/{ids.encode('call', call)}"),
            await client.get(f"/v1/approvals/{ids.encode('apr', approval)}"),
            await client.post(path(workflow_id, "/cancel")),
            await client.post(f"/v1/effects/{ids.encode('call', call)}/resolve", json=verdict),
            await client.post(
                f"/v1/approvals/{ids.encode('apr', approval)}/decision", json={"decision": "approve", "revision": 1}
            ),
        ]

    assert [page.json()["data"] for page in lists] == [[], [], []]
    assert [response.status_code for response in refused] == [404] * 5
