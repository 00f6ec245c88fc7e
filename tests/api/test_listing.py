"""Lists: filters, cursors, and what other tenants do not see."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text

from app.api.shapes.approval import Approval
from app.api.shapes.listing import Page
from app.api.shapes.workflow import WorkflowItem
from app.domain import ids
from app.store import tables, workflow_views
from app.store.database import Database
from app.store.workflow_views import WorkflowFilters
from tests.api import rows

pytestmark = pytest.mark.anyio

OTHER = UUID("00000000-0000-7000-8000-00000000000f")


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
async def test_list_holds_only_what_fits_when_filtered(api: httpx.AsyncClient, database: Database, query: str) -> None:
    await rows.workflow(database)
    later = ids.timed(rows.BEGAN + timedelta(days=9), "another day")
    wanted = await rows.workflow(
        database, id=later, status="failed", open_calls=0, ended_at=rows.BEGAN, name="other",
        definition_digest="sha256:other",
        labels={"team": "a", "env/x": "b", "more": "c"}, created_at=rows.BEGAN + timedelta(days=9),
        attention=["poisoned"], failure={"kind": "timeout", "message": "m"}, idempotency_key="order-7",
    )  # fmt: skip
    await rows.write(
        database, tables.idempotency_keys, tenant_id=ids.DEFAULT_TENANT, route="POST /v1/workflows", key="order-7",
        fingerprint="f", field_hashes={}, workflow_id=wanted, response_status=202,
    )  # fmt: skip

    response = await api.get(f"/v1/workflows?{query}")

    assert [item["id"] for item in response.json()["data"]] == [ids.encode("wf", wanted)]


@pytest.mark.parametrize("wanted", ["attention", "status", "failure_kind", "since"])
async def test_list_reads_little_of_the_past_when_what_is_wanted_is_rare(database: Database, wanted: str) -> None:
    await _past(database, workflows=3_000)
    filters = {
        "attention": WorkflowFilters(attention="poisoned"),
        "status": WorkflowFilters(statuses=["failed"]),
        "failure_kind": WorkflowFilters(failure_kind="timeout"),
        "since": WorkflowFilters(since=datetime.now(UTC) - timedelta(hours=3)),
    }[wanted]
    rare = await rows.workflow(
        database, status="failed", open_calls=0, ended_at=rows.BEGAN, attention=["poisoned"],
        failure={"kind": "timeout", "message": "m"}, created_at=datetime.now(UTC),
    )  # fmt: skip

    async with database.reading() as connection:
        found = await workflow_views.page(
            connection, tenant_id=ids.DEFAULT_TENANT, filters=filters, before=None, limit=50
        )
        read = (await connection.execute(text(_READ))).scalar_one()

    assert [row["id"] for row in found] == [rare]
    assert read < 100


_READ = """
SELECT coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0) FROM pg_stat_xact_user_tables
WHERE relname = 'workflows'"""


async def _past(database: Database, *, workflows: int) -> None:
    """Workflows that went well, yesterday."""
    template = await rows.workflow(database, status="succeeded", open_calls=0, steps_open=0, ended_at=rows.BEGAN)
    names = [column.name for column in tables.workflows.c if column.name != "id"]
    listed = ", ".join(f'"{name}"' for name in names)
    yesterday = datetime.now(UTC) - timedelta(days=1)
    past = [ids.timed(yesterday, str(number)) for number in range(workflows)]
    async with database.reading() as connection:
        copy = f"INSERT INTO workflows (id, {listed}) SELECT x, {listed} FROM workflows, unnest(:past ::uuid[]) AS x"
        await connection.execute(text(copy + " WHERE id = :template"), {"past": past, "template": template})
        await connection.execute(text("DELETE FROM workflows WHERE id = :template"), {"template": template})
        await connection.execute(text("ANALYZE workflows"))
        await connection.commit()


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
async def test_unknown_parameter_is_an_error_when_it_is_sent_anywhere(api: httpx.AsyncClient, where: str) -> None:
    response = await api.get(where, params={"verbose": "1"})

    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"] == "?verbose"


async def test_doubts_of_all_workflows_are_listed_when_asked_by_state(
    api: httpx.AsyncClient, database: Database
) -> None:
    workflow_id = await rows.story(database)

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
    workflow_id = await rows.story(database)

    page = (await api.get("/v1/approvals", params={"status": "open", "workflow": rows.path(workflow_id)[14:]})).json()
    one = await api.get(f"/v1/approvals/{page['data'][0]['id']}")

    assert Approval.model_validate_json(one.content).title == "Send the invitations?"
    assert page["data"] == [one.json()]


@pytest.mark.parametrize(
    "rest",
    ["", "/steps", "/steps/plan", "/steps/plan/calls/1", "/effects", "/events", "/trace", "/trace?format=text"],
)
async def test_other_tenant_finds_nothing_when_it_knows_the_id(base_url: str, database: Database, rest: str) -> None:
    workflow_id = await rows.story(database)
    await rows.tenant(database, tenant_id=OTHER)
    stranger = await rows.key(database, tenant_id=OTHER, seed=2)

    async with httpx.AsyncClient(base_url=base_url, headers=stranger.header, trust_env=False) as client:
        response = await client.get(rows.path(workflow_id, rest))

    assert (response.status_code, response.json()["code"]) == (404, "not_found")


async def test_other_tenant_sees_and_moves_nothing_when_it_lists_or_posts(base_url: str, database: Database) -> None:
    workflow_id = await rows.story(database)
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
            await client.post(rows.path(workflow_id, "/cancel")),
            await client.post(f"/v1/effects/{ids.encode('call', call)}/resolve", json=verdict),
            await client.post(
                f"/v1/approvals/{ids.encode('apr', approval)}/decision", json={"decision": "approve", "revision": 1}
            ),
        ]

    assert [page.json()["data"] for page in lists] == [[], [], []]
    assert [response.status_code for response in refused] == [404] * 5
