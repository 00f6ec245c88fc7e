"""Approvals of held calls through the API: bound to the bytes, edited, refused to the submitter."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import httpx

from app.domain import ids
from app.store.database import Database
from tests.api import rows
from tests.engine import world as engine
from tests.engine.world import World


def gated(**more: Any) -> dict[str, Any]:
    public = {"method": "POST", "url": "https://tools.example.com/do"}  # the API under test allows no other
    return engine.one("keyed", approve="always", http=public, **more)


async def asked(api: httpx.AsyncClient) -> dict[str, Any]:
    page: dict[str, Any] = (await api.get("/v1/approvals?status=open")).json()
    [found] = page["data"]
    return dict(found)


async def submit(api: httpx.AsyncClient, definition: dict[str, Any]) -> UUID:
    answer = await api.post("/v1/workflows", json={"definition": definition}, headers={"Idempotency-Key": "k"})
    assert answer.status_code == 202, answer.text
    return ids.decode("wf", answer.json()["id"])


async def test_approval_shows_what_would_be_sent_and_sends_it_when_approved(
    api: httpx.AsyncClient, world: World
) -> None:
    workflow_id = await submit(api, gated())
    approval = await asked(api)

    answer = await api.post(f"/v1/approvals/{approval['id']}/decision", json={"decision": "approve", "revision": 1})
    await world.run(await world.worker())

    assert (approval["kind"], approval["tool"], approval["arguments"]) == ("tool", "do", {"n": 1})
    assert (approval["approver"], len(approval["arguments_sha256"])) == ("anyone", 64)
    assert approval["effect"] == ids.encode("call", (await world.call(workflow_id, "s"))["id"])
    assert answer.status_code == 200
    assert [request.arguments for request in world.tools.ledger] == [{"n": 1}]


async def test_other_arguments_are_sent_when_an_approval_is_edited(api: httpx.AsyncClient, world: World) -> None:
    workflow_id = await submit(api, gated())
    where_decided = f"/v1/approvals/{(await asked(api))['id']}/decision"
    edit = {"decision": "edit", "values": {"n": 2}, "revision": 1}

    empty = await api.post(where_decided, json={"decision": "edit", "revision": 1})
    first = await api.post(where_decided, json=edit)
    again = await api.post(where_decided, json=edit)
    other = await api.post(where_decided, json=edit | {"values": {"n": 3}})
    await world.run(await world.worker())

    assert (empty.status_code, empty.json()["errors"][0]["pointer"]) == (422, "/values")
    assert (first.status_code, again.status_code, first.json()["decision"]) == (200, 200, "edit")
    assert (other.status_code, other.json()["code"]) == (409, "already_decided")
    assert [request.arguments for request in world.tools.ledger] == [{"n": 2}]
    assert (await world.workflow(workflow_id))["status"] == "succeeded"


async def test_submitter_is_refused_when_somebody_else_must_approve(
    api: httpx.AsyncClient, base_url: str, database: Database, world: World
) -> None:
    await submit(api, gated(approver="other_than_submitter"))
    approval = await asked(api)
    colleague = await rows.key(database, seed=5, scopes=("approve",))
    said = {"decision": "approve", "revision": 1}
    where_decided = f"/v1/approvals/{approval['id']}/decision"

    own = await api.post(where_decided, json=said)
    async with httpx.AsyncClient(base_url=base_url, headers=colleague.header, trust_env=False) as client:
        others = await client.post(where_decided, json=said)

    assert approval["approver"] == "other_than_submitter"
    assert (own.status_code, own.json()["code"]) == (403, "approver_is_submitter")
    assert (others.status_code, others.json()["by"]) == (200, f"key:{colleague.public_id}")
