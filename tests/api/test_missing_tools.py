"""What an agent has to do without, the model it goes on with, and what no worker has installed: GET and `why`."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest

from app.api.shapes.step import StepDetail
from app.api.shapes.workflow import Workflow
from app.api.why import Why
from app.domain import function_certainty, ids
from app.domain.states import FailureKind
from app.engine import retry
from app.store.database import Database
from tests.api import rows, waiting_rows
from tests.engine.conversing import agent, asks, fails, use
from tests.engine.world import World, refused, says, tool

pytestmark = pytest.mark.anyio

TOOLS = {"look": tool("read_only"), "find": tool("read_only")}
TAKEN = {"failures": 3, "message": "It answered 503.", "step": "plan", "at": "2026-11-22T10:00:05Z"}
SINCE = datetime(2026, 11, 22, 10, 0, 5, tzinfo=UTC)
MISSING = function_certainty.judge(
    function_certainty.Seen.NOT_INSTALLED,
    tool="calendar.create_event",
    detail="worker.2 has no distribution `acme-tools`",
).failure
SAID = "calendar.create_event was not called: worker.2 has no distribution `acme-tools`; install it where workers run"


async def why(api: httpx.AsyncClient, workflow_id: UUID) -> Why:
    return Why.model_validate_json((await api.get(rows.path(workflow_id, "/why"))).content)


async def workflow(api: httpx.AsyncClient, workflow_id: UUID) -> Workflow:
    return Workflow.model_validate_json((await api.get(rows.path(workflow_id))).content)


async def step(api: httpx.AsyncClient, workflow_id: UUID, path: str) -> StepDetail:
    return StepDetail.model_validate_json((await api.get(rows.path(workflow_id, f"/steps/{path}"))).content)


async def take(database: Database, workflow_id: UUID, **entries: Any) -> None:
    await rows.change(
        database, "UPDATE workflows SET tools_disabled = CAST(:taken AS jsonb) WHERE id = :id",
        taken=json.dumps(entries), id=workflow_id,
    )  # fmt: skip


async def not_installed(database: Database, *, attempts: int = 1) -> UUID:
    """A call that is due again, because the worker that tried has not what it needs."""
    workflow_id = await rows.workflow(database)
    await rows.step(database, workflow_id, "create", calls=1)
    call_id = await rows.call(database, workflow_id, "create", attempts=attempts)
    assert MISSING is not None
    attempt_id = await rows.attempt(
        database, workflow_id, call_id, outcome="not_sent", sent_at=None, failure=MISSING.to_json()
    )
    await rows.change(
        database, "UPDATE calls SET attempt_id = :attempt WHERE id = :call", attempt=attempt_id, call=call_id
    )
    await waiting_rows.due(database, workflow_id, "call", call_id, seconds=60)
    return workflow_id


# --- a tool that was taken away --------------------------------------------------------------------------------------


async def test_workflow_names_the_tools_that_its_agents_may_not_use(api: httpx.AsyncClient, database: Database) -> None:
    workflow_id = await rows.workflow(database)
    before = await workflow(api, workflow_id)
    await take(database, workflow_id, **{"calendar.create_event": TAKEN, "again": {**TAKEN, "lifted": True}})

    found = await workflow(api, workflow_id)

    assert before.tools_disabled == []
    again, taken = found.tools_disabled
    assert (taken.tool, taken.scope, taken.step, taken.failures) == ("calendar.create_event", "workflow", "plan", 3)
    assert (taken.reason, taken.since, taken.given_back) == ("It answered 503.", SINCE, False)
    assert (again.tool, again.given_back) == ("again", True)
    listed = (await api.get("/v1/workflows")).json()["data"][0]
    assert [one["tool"] for one in listed["tools_disabled"]] == ["again", "calendar.create_event"]


async def test_step_names_what_its_agent_was_offered_and_may_not_use(
    api: httpx.AsyncClient, database: Database
) -> None:
    workflow_id = await rows.workflow(database)
    await rows.step(database, workflow_id, "plan", kind="agent", counters={"disabled:calendar.move": 4})
    await rows.step(database, workflow_id, "create", position=1)
    await take(database, workflow_id, **{"calendar.create_event": TAKEN, "of.another.agent": TAKEN})

    plan, create = await step(api, workflow_id, "plan"), await step(api, workflow_id, "create")

    assert [(one.tool, one.scope, one.step) for one in plan.tools_disabled] == [
        ("calendar.create_event", "workflow", "plan"), ("calendar.move", "step", "plan")
    ]  # fmt: skip
    assert plan.tools_disabled[1].reason == "its arguments did not fit its schema"
    assert create.tools_disabled == []
    listed = (await api.get(rows.path(workflow_id, "/steps"))).json()["data"]
    assert [len(one["tools_disabled"]) for one in listed] == [2, 0]


async def test_why_says_of_which_steps_a_tool_was_taken_while_they_go_on_without(
    api: httpx.AsyncClient, database: Database
) -> None:
    await waiting_rows.worker(database)
    workflow_id = await waiting_rows.due_call(database)
    await rows.step(database, workflow_id, "plan", kind="agent", counters={"disabled:calendar.move": 4})
    await take(database, workflow_id, **{"calendar.create_event": TAKEN, "again": {**TAKEN, "lifted": True}})

    found = await why(api, workflow_id)

    assert [reason.kind for reason in found.reasons] == ["queued"]  # nothing waits for a tool that is gone
    whole, alone = found.tools_disabled
    assert (whole.tool, whole.scope, whole.since) == ("calendar.create_event", "workflow", SINCE)
    assert whole.headline.startswith(
        "The tool calendar.create_event was taken away from every agent after 3 failures in a row, the last in plan: "
        "It answered 503; to give it back if the workflow fails without it: surefoot retry wf_"
    )
    assert (alone.tool, alone.scope, alone.step, alone.since) == ("calendar.move", "step", "plan", None)
    assert [command.cli for command in whole.commands] == [f"surefoot show {ids.encode('wf', workflow_id)} plan"]


async def test_tool_that_an_agent_lost_is_named_until_the_offered_retry_gives_it_back(
    api: httpx.AsyncClient, world: World
) -> None:
    definition = agent(tools=TOOLS, retry={"malformed_output": {"max_retries": 0}}, schema={"n": {"type": "integer"}})
    world.model.answers = [*[asks(use("look", {"n": n})) for n in range(3)], says("no json"), says('{"n": 7}')]
    world.tools.script["look"] = [refused(422)] * 3
    worker = await world.worker()
    workflow_id = await world.submit(definition, input={"who": "kim"})
    await world.run(worker)

    failed, lost = await why(api, workflow_id), await step(api, workflow_id, "a")
    await retry.retry(world.api, ids.DEFAULT_TENANT, workflow_id, note="mended", by="op")
    reopened, has_it = await why(api, workflow_id), await step(api, workflow_id, "a")
    whole = await workflow(api, workflow_id)

    [missed] = failed.tools_disabled
    assert missed.headline.endswith(f"to give it back: surefoot retry {failed.workflow}.")
    assert missed.commands[0].cli == f"surefoot retry {failed.workflow}"
    assert [one.tool for one in lost.tools_disabled] == ["look"]
    assert (reopened.tools_disabled, has_it.tools_disabled) == ([], [])
    assert [(one.tool, one.given_back) for one in whole.tools_disabled] == [("look", True)]


# --- a model that was switched ---------------------------------------------------------------------------------------


async def test_step_says_which_model_goes_on_and_whose_place_it_takes_when_it_was_switched(
    api: httpx.AsyncClient, world: World
) -> None:
    busy = fails(FailureKind.OVERLOADED, status=529)
    world.model.answers = [busy, asks(use("look")), says("done")]
    definition = agent(tools=TOOLS, retry={"overloaded": {"max_retries": 0, "switch_model": "smart"}})
    worker = await world.worker()
    workflow_id = await world.submit(definition, input={"who": "kim"})
    before = (await step(api, workflow_id, "a")).model

    await world.run(worker)

    after = (await step(api, workflow_id, "a")).model
    first, *_, last = [request.model for request in world.model.requests]
    assert before is not None
    assert (before.id, before.alias, before.switched_from) == (first, "fast", None)
    assert after is not None
    assert (after.id, after.alias, after.switched_from) == (last, "smart", first)
    [listed] = (await api.get(rows.path(workflow_id, "/steps"))).json()["data"]
    assert listed["model"] == {"id": last, "alias": "smart", "switched_from": first}


async def test_why_says_after_what_a_model_was_switched_while_it_goes_on_and_afterwards(
    api: httpx.AsyncClient, world: World
) -> None:
    busy, busier = (fails(kind, status=529) for kind in (FailureKind.OVERLOADED, FailureKind.SERVER_ERROR))
    world.model.answers = [busy, asks(use("look")), busier, says("done")]
    policies = {"overloaded": {"max_retries": 0, "switch_model": "smart"}, "server_error": {"max_retries": 1}}
    worker = await world.worker()
    workflow_id = await world.submit(agent(tools=TOOLS, retry=policies), input={"who": "kim"})

    await world.once(worker)
    running = await why(api, workflow_id)
    await world.run(worker)
    ended = await why(api, workflow_id)

    first, last = world.model.requests[0].model, world.model.requests[-1].model
    switch = await world.row("SELECT created_at FROM calls WHERE change ->> 'change' = 'switch_model'")
    [switched] = running.models_switched
    assert (switched.step, switched.id, switched.alias, switched.switched_from) == ("a", last, "smart", first)
    assert (switched.kind, switched.since) == (FailureKind.OVERLOADED, switch["created_at"])
    assert switched.headline == (
        f"The model of a was switched from {first} to smart ({last}) for the rest of the step: The model was "
        "overloaded."
    )
    assert [command.cli for command in switched.commands] == [f"surefoot show {running.workflow} a"]
    assert [reason.kind for reason in running.reasons] == ["queued"]  # nothing waits for it
    assert (ended.status, ended.models_switched) == ("succeeded", [switched])


async def test_why_says_nothing_of_a_model_that_was_switched_back(api: httpx.AsyncClient, world: World) -> None:
    world.model.answers = [fails(FailureKind.OVERLOADED, status=529), fails(FailureKind.SERVER_ERROR, status=500)]
    policies = {
        "overloaded": {"max_retries": 0, "switch_model": "smart"},
        "server_error": {"max_retries": 0, "switch_model": "fast"},
    }
    worker = await world.worker()
    workflow_id = await world.submit(agent(tools=TOOLS, retry=policies), input={"who": "kim"})

    await world.once(worker)
    there = await why(api, workflow_id)
    await world.run(worker)

    assert len({request.model for request in world.model.requests}) == 2
    assert [switched.alias for switched in there.models_switched] == ["smart"]
    assert (await why(api, workflow_id)).models_switched == []


async def test_why_tells_of_the_latest_switch_and_names_a_model_once_that_has_no_other_name(
    api: httpx.AsyncClient, database: Database
) -> None:
    workflow_id = await rows.workflow(database)
    await rows.step(database, workflow_id, "plan", kind="agent", model="claude-z", calls=2)
    for n, kind in enumerate(("overloaded", "refused"), start=1):
        await rows.call(
            database, workflow_id, "plan", n=n, kind="model", tool=None, state="succeeded", ended_at=rows.BEGAN,
            change={"change": "switch_model"}, recovery=[{"kind": kind}], created_at=rows.BEGAN + timedelta(seconds=n),
        )  # fmt: skip

    [switched] = (await why(api, workflow_id)).models_switched

    assert switched.headline == (
        "The model of plan was switched from claude-x to claude-z for the rest of the step: The model declined."
    )
    assert (switched.kind, switched.since) == (FailureKind.REFUSED, rows.BEGAN + timedelta(seconds=2))


async def test_step_without_a_model_names_none(api: httpx.AsyncClient, database: Database) -> None:
    workflow_id = await rows.workflow(database)
    await rows.step(database, workflow_id, "create")

    assert (await step(api, workflow_id, "create")).model is None


# --- what no worker has ----------------------------------------------------------------------------------------------


async def test_headline_says_what_is_missing_and_the_fix_wherever_it_is_shown(
    api: httpx.AsyncClient, database: Database
) -> None:
    workflow_id = await not_installed(database)

    shown = await workflow(api, workflow_id)

    assert shown.headline.startswith(
        f"Running; 0 of 2 steps done. {SAID} (surefoot tool installed shows what is there)"
    )
    assert shown.attention == ["retrying"]
    [listed] = (await api.get("/v1/workflows")).json()["data"]
    assert SAID in listed["headline"]
    assert SAID in (await step(api, workflow_id, "create")).headline
    assert SAID in (await why(api, workflow_id)).headline
    assert SAID in (await api.get(rows.path(workflow_id, "/trace"))).json()["spans"][0]["headline"]


async def test_headline_of_each_workflow_speaks_of_its_own_calls(api: httpx.AsyncClient, database: Database) -> None:
    healthy = await waiting_rows.due_call(database)
    short = await not_installed(database)

    listed = {one["id"]: one["headline"] for one in (await api.get("/v1/workflows")).json()["data"]}

    assert SAID in listed[ids.encode("wf", short)]
    assert listed[ids.encode("wf", healthy)] == "Running; 0 of 2 steps done."


async def test_headline_is_silent_again_when_a_worker_has_it(api: httpx.AsyncClient, database: Database) -> None:
    workflow_id = await not_installed(database)
    await rows.change(database, "UPDATE calls SET state = 'intended'")
    await rows.change(database, "UPDATE dues SET kind = 'attempt', worker = ref")

    shown = await workflow(api, workflow_id)

    assert "acme-tools" not in shown.headline
