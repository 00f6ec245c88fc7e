"""`GET /v1/workflows/{id}/why`, and what the workflow itself says it waits for."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from uuid_utils.compat import uuid7

from app.api.shapes.workflow import Workflow
from app.api.why import Why
from app.domain import ids
from app.store import tables
from app.store.database import Database
from tests.api import rows, waiting_rows

pytestmark = pytest.mark.anyio


async def why(api: httpx.AsyncClient, workflow_id: UUID) -> Why:
    response = await api.get(rows.path(workflow_id, "/why"))
    assert response.status_code == 200, response.text
    return Why.model_validate_json(response.content)


@pytest.mark.parametrize("kind", waiting_rows.STORIES)
async def test_why_says_what_is_waited_for_when_it_waits(api: httpx.AsyncClient, database: Database, kind: str) -> None:
    await waiting_rows.worker(database)
    workflow_id = await waiting_rows.STORIES[kind](database)

    found = await why(api, workflow_id)

    assert found.reasons[0].kind == kind
    assert found.workflow == ids.encode("wf", workflow_id)
    assert not any(reason.kind == "nothing" for reason in found.reasons)
    assert found.more == 0


async def test_why_names_the_switch_and_who_set_it_when_an_operator_holds_a_tool(
    api: httpx.AsyncClient, database: Database
) -> None:
    found = await why(api, await waiting_rows.switched_off(database))

    [reason] = found.reasons
    assert "switched off by key:kim: it sends twice" in reason.headline
    assert reason.since is not None
    assert [command.cli for command in reason.commands] == ["surefoot release tool calendar.create_event"]


async def test_why_says_who_paused_it_when_it_is_paused(api: httpx.AsyncClient, database: Database) -> None:
    workflow_id = await waiting_rows.paused(database)

    found = await why(api, workflow_id)

    assert found.reasons[0].headline == "Paused by key:kim: the bank is closed; 1 call held."
    assert found.reasons[0].since == rows.BEGAN
    assert found.headline.startswith("Paused by key:kim (the bank is closed)")


async def test_why_leads_to_the_owner_when_another_workflow_owns_the_key(
    api: httpx.AsyncClient, database: Database
) -> None:
    found = await why(api, await waiting_rows.attached(database))

    [reason] = found.reasons
    assert reason.reason == "attached"
    [command] = reason.commands
    other = await api.get(f"/v1/workflows/{command.cli.removeprefix('surefoot why ')}/why")
    assert other.json()["reasons"][0]["kind"] == "in_flight"


async def test_why_tells_the_verdicts_so_far_when_a_call_is_probed(api: httpx.AsyncClient, database: Database) -> None:
    found = await why(api, await waiting_rows.probing(database))

    [reason] = found.reasons
    assert "1 answer so far, the last: not there" in reason.headline
    assert reason.until is not None
    assert reason.until > found.generated_at


async def test_why_says_no_worker_when_none_is_alive(api: httpx.AsyncClient, database: Database) -> None:
    workflow_id = await waiting_rows.due_call(database)

    [reason] = (await why(api, workflow_id)).reasons

    assert reason.kind == "no_worker"


async def test_why_counts_who_comes_first_when_others_have_been_due_for_longer(
    api: httpx.AsyncClient, database: Database
) -> None:
    await waiting_rows.worker(database)
    for _ in range(3):
        await waiting_rows.due_call(database)
    last = await waiting_rows.due_call(database)

    [reason] = (await why(api, last)).reasons

    assert reason.headline == "calendar.create_event in create is queued behind 3 calls."


async def test_why_says_that_the_database_was_restored_when_effects_are_not_claimed(
    api: httpx.AsyncClient, database: Database
) -> None:
    await waiting_rows.worker(database)
    workflow_id = await waiting_rows.due_call(database)
    await rows.write(database, tables.system, name="identity", value="another/00000001/5")

    [reason] = (await why(api, workflow_id)).reasons

    assert reason.kind == "restored"
    assert reason.commands[0].cli.startswith("surefoot recover --since")


async def test_why_gives_no_reason_when_the_workflow_has_ended(api: httpx.AsyncClient, database: Database) -> None:
    workflow_id = await rows.workflow(database, status="succeeded", open_calls=0, ended_at=rows.BEGAN)

    found = await why(api, workflow_id)

    assert found.reasons == []
    assert found.headline.startswith("Succeeded")


@pytest.mark.parametrize(("undone", "retried"), [(0, True), (1, False)])
async def test_why_says_how_to_go_on_when_a_failed_workflow_can(
    api: httpx.AsyncClient, database: Database, undone: int, retried: bool
) -> None:
    workflow_id = await rows.workflow(
        database, status="failed", open_calls=0, ended_at=rows.BEGAN, effects_done=1, effects_undone=undone,
        failure={"kind": "tool_error", "message": "no", "step": "ask", "call": None, "fix": None},
    )  # fmt: skip

    found = await why(api, workflow_id)

    assert found.reasons == []
    assert any(command.cli.startswith("surefoot retry") for command in found.commands) == retried


async def test_everybody_says_when_an_undo_failed_and_not_when_its_effect_was_done(
    api: httpx.AsyncClient, database: Database
) -> None:
    workflow_id = await waiting_rows.undo_failed(database)

    found = await why(api, workflow_id)
    workflow = Workflow.model_validate_json((await api.get(rows.path(workflow_id))).content)
    trace = (await api.get(rows.path(workflow_id, "/trace"))).json()

    assert found.reasons[0].since == waiting_rows.UNDO_FAILED_AT
    assert workflow.waiting_on[0].since == waiting_rows.UNDO_FAILED_AT
    waiting = trace["spans"][0]["children"][0]["children"][0]["waiting"]
    assert datetime.fromisoformat(waiting["since"]) == waiting_rows.UNDO_FAILED_AT


async def test_why_says_that_nobody_undoes_anything_while_the_failed_undo_is_waited_for(
    api: httpx.AsyncClient, database: Database
) -> None:
    workflow_id = await waiting_rows.undo_failed(database)
    await rows.change(database, "UPDATE workflows SET undos = 2 WHERE id = :id", id=workflow_id)

    [_, going] = (await why(api, workflow_id)).reasons

    assert (going.kind, going.who) == ("compensating", "an operator")


async def test_probed_effect_is_counted_as_unknown(api: httpx.AsyncClient, database: Database) -> None:
    workflow_id = await waiting_rows.probing(database)

    workflow = (await api.get(rows.path(workflow_id))).json()
    trace = (await api.get(rows.path(workflow_id, "/trace"))).json()

    assert workflow["effects"]["unknown"] == trace["totals"]["effects"]["unknown"] == 1


async def test_trace_and_headlines_say_when_the_next_try_is_due(api: httpx.AsyncClient, database: Database) -> None:
    workflow_id = await rows.workflow(database, retries=1)
    await rows.step(database, workflow_id, "create", calls=1)
    record = {"kind": "rate_limited", "attempt": 1, "source": "default", "change": None, "result": None}
    call_id = await rows.call(database, workflow_id, "create", attempts=1, recovery=[record])
    await waiting_rows.due(database, workflow_id, "call", call_id, seconds=300)

    trace = (await api.get(rows.path(workflow_id, "/trace"))).json()
    step = (await api.get(rows.path(workflow_id, "/steps/create"))).json()
    workflow = (await api.get(rows.path(workflow_id))).json()

    waiting = trace["spans"][0]["children"][0]["children"][0]["waiting"]
    at = datetime.fromisoformat(waiting["not_before"])
    assert waiting["kind"] == "timer"
    assert f"the next try is due at {at:%H:%M:%S} UTC" in step["headline"]
    assert f"the next try is due at {at:%H:%M:%S} UTC" in workflow["headline"]


async def test_everybody_says_who_ended_a_step_by_hand_and_why(api: httpx.AsyncClient, database: Database) -> None:
    workflow_id = await rows.workflow(database)
    await rows.step(database, workflow_id, "create", state="skipped", ended_at=rows.BEGAN)
    said = {"action": "skip", "by": "key:kim", "note": "not needed today"}
    await rows.event(database, workflow_id, 1, "agent.step.operated", step="create", data=said)

    step = (await api.get(rows.path(workflow_id, "/steps/create"))).json()
    [listed] = (await api.get(rows.path(workflow_id, "/steps"))).json()["data"]
    trace = (await api.get(rows.path(workflow_id, "/trace"))).json()

    told = trace["spans"][0]["children"][0]
    assert step["headline"] == listed["headline"] == told["headline"] == "Skipped by key:kim: not needed today."
    assert told["decided"]["by"] == "key:kim"


async def test_trace_says_who_reopened_the_workflow(api: httpx.AsyncClient, database: Database) -> None:
    workflow_id = await rows.workflow(database)
    await rows.event(database, workflow_id, 1, "workflow.reopened", data={"by": "key:kim", "note": "topped up"})

    response = await api.get(rows.path(workflow_id, "/trace?format=text&width=120"))

    assert "↻ reopened by key:kim at " in response.text
    assert ": topped up" in response.text


async def test_why_never_hides_that_nothing_would_wake_it(api: httpx.AsyncClient, database: Database) -> None:
    workflow_id = await rows.workflow(database)

    [reason] = (await why(api, workflow_id)).reasons

    assert reason.kind == "nothing"
    assert any(command.cli.startswith("surefoot cancel") for command in reason.commands)


async def test_why_counts_the_open_calls_it_does_not_tell_when_there_are_too_many(
    api: httpx.AsyncClient, database: Database
) -> None:
    workflow_id = await rows.workflow(database, status="paused", open_calls=0, held=250)
    await rows.step(database, workflow_id, "create", calls=250)
    for n in range(1, 251):
        await rows.call(database, workflow_id, "create", n=n, state="held", held_reason="pause")

    found = await why(api, workflow_id)

    assert found.more == 50
    assert found.reasons[0].headline == "Paused; at least 200 calls held."


async def test_why_is_not_found_when_it_is_of_another_tenant(api: httpx.AsyncClient, database: Database) -> None:
    other = await rows.tenant(database, tenant_id=uuid7())
    workflow_id = await rows.workflow(database, tenant_id=other)

    theirs = await api.get(rows.path(workflow_id, "/why"))
    nobodys = await api.get(rows.path(uuid4(), "/why"))

    assert (theirs.status_code, nobodys.status_code) == (404, 404)


WAITS: dict[str, dict[str, Any]] = {
    "probing": {"kind": "probe", "reason": None, "tool": "calendar.create_event"},
    "result": {"kind": "result", "reason": None, "tool": "calendar.create_event"},
    "paused": {"kind": "held", "reason": "pause"},
    "held": {"kind": "held", "reason": "operator"},
    "attached": {"kind": "held", "reason": "attached"},
    "saga_held": {"kind": "saga", "reason": None, "step": "ask"},
    "compensation_failed": {"kind": "compensation", "reason": None, "step": "create"},
}


@pytest.mark.parametrize("kind", WAITS)
async def test_workflow_says_in_waiting_on_what_it_waits_for(
    api: httpx.AsyncClient, database: Database, kind: str
) -> None:
    workflow_id = await waiting_rows.STORIES[kind](database)

    workflow = Workflow.model_validate_json((await api.get(rows.path(workflow_id))).content)

    [wait] = workflow.waiting_on
    assert {name: getattr(wait, name) for name in WAITS[kind]} == WAITS[kind]
    listed = (await api.get("/v1/workflows")).json()["data"]
    [same] = [one for one in listed if one["id"] == workflow.id]
    assert [one["kind"] for one in same["waiting_on"]] == [wait.kind]


async def test_workflow_headline_tells_what_the_probe_said_when_it_is_probing(
    api: httpx.AsyncClient, database: Database
) -> None:
    workflow_id = await waiting_rows.probing(database)

    headline = (await api.get(rows.path(workflow_id))).json()["headline"]

    assert "Asked calendar.find_event whether create happened: not there yet; asked again at" in headline


@pytest.mark.parametrize("kind", ["saga_held", "compensation_failed"])
async def test_held_request_ends_when_an_operator_is_needed(
    api: httpx.AsyncClient, database: Database, kind: str
) -> None:
    workflow_id = await waiting_rows.STORIES[kind](database)

    response = await api.get(rows.path(workflow_id), headers={"Prefer": "wait=60"})

    assert response.status_code == 200
    assert response.json()["status"] in ("failing", "compensating")


async def test_trace_hangs_the_probe_under_its_call_and_tells_its_verdict(
    api: httpx.AsyncClient, database: Database
) -> None:
    workflow_id = await waiting_rows.probing(database)

    trace = (await api.get(rows.path(workflow_id, "/trace"))).json()

    [step] = trace["spans"][0]["children"]
    [call] = step["children"]
    assert [(child["kind"], child["role"]) for child in call["children"]] == [("call", "probe")]
    assert [(record["kind"], record["source"], record["result"]) for record in call["recovery"]] == [
        ("probe", "ledger", "absent")
    ]
