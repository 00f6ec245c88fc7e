"""Retry: what failed or was cancelled goes on where it stopped; what was done stays done, and is never done twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from app.domain import ids
from app.engine import resolve, retry
from app.errors import NotFound
from tests.engine.operations import (
    TENANT,
    audited,
    call_states,
    cancelled,
    decided,
    ended,
    expect_refusal,
    expect_the_laws,
    operated,
    paused,
    retried,
    seen,
    then,
)
from tests.engine.world import Answer, Worker, World, not_sent, ok, one, refused, tool, unknown

HOOK = {"url": "http://127.0.0.1:9/hook", "events": ["*"]}


@pytest.fixture
async def lawful(small_world: World) -> AsyncIterator[World]:
    yield small_world
    await expect_the_laws(small_world)


def gone(effect: str = "keyed", *, key: str | None = None, **step: Any) -> dict[str, Any]:
    more = {} if key is None else {"idempotency_key": key}
    return then({"tool": "do", "with": {"n": 1}, **more, **step}, {"do": tool(effect), "other": tool("read_only")})


async def failed(world: World, definition: dict[str, Any], **more: Any) -> tuple[UUID, Worker]:
    """A workflow whose tool refused at once."""
    world.tools.script["do"] = [refused(422)]
    worker = await world.worker()
    workflow_id = await world.submit(definition, **more)
    await world.run(worker)
    assert (await world.workflow(workflow_id))["status"] == "failed"
    return workflow_id, worker


def keys(world: World) -> list[str | None]:
    return [request.key for request in world.tools.ledger]


async def test_failed_tool_step_is_made_again_under_another_key_and_the_rest_goes_on(lawful: World) -> None:
    workflow_id, worker = await failed(lawful, gone(), webhook=HOOK)
    before = await lawful.workflow(workflow_id)

    await retried(lawful, workflow_id)
    between = await lawful.workflow(workflow_id)
    await lawful.run(worker)

    assert (before["status"], before["steps_done"], before["ended_at"] is None) == ("failed", 0, False)
    assert (between["status"], between["steps_open"], between["failure"], between["ended_at"]) == (
        "running", 3, None, None,
    )  # fmt: skip
    first, second = keys(lawful)
    assert first != second, "under the first key the tool would replay its refusal for ever"
    again = await lawful.call(workflow_id, "s", 2)
    assert (again["generation"], again["change"]["change"]) == (2, "reopened")
    assert again["retry_of"] == (await lawful.call(workflow_id, "s"))["id"]
    assert await ended(lawful, workflow_id) == ("succeeded", 3, 0)
    assert await seen(lawful, workflow_id) == ({"ok": True}, None, "succeeded")
    events = await lawful.events(workflow_id)
    assert (events.index("workflow.failed") < events.index("workflow.reopened"), events[-1]) == (
        True, "workflow.succeeded",
    )  # fmt: skip
    assert await audited(lawful) == [("workflow.retry", "kim")]


async def test_retry_is_a_replay_while_the_workflow_goes_on_and_refused_once_it_succeeded(lawful: World) -> None:
    workflow_id, worker = await failed(lawful, gone())

    await retried(lawful, workflow_id)
    once = await lawful.workflow(workflow_id)
    await retried(lawful, workflow_id, by="lee")
    twice = await lawful.workflow(workflow_id)
    await lawful.run(worker)

    assert once == twice
    await expect_refusal(retried(lawful, workflow_id), ["read"])
    with pytest.raises(NotFound):
        await retry.retry(lawful.api, ids.derived("another"), workflow_id, note=None, by="kim")


async def test_workflow_is_reopened_twice_and_every_time_under_a_new_key(lawful: World) -> None:
    workflow_id, worker = await failed(lawful, gone())
    lawful.tools.script["do"] = [refused(422), {"id": 3}]

    for _ in range(2):
        await retried(lawful, workflow_id)
        await lawful.run(worker)

    assert len(set(keys(lawful))) == 3
    assert await ended(lawful, workflow_id) == ("succeeded", 3, 0)
    assert (await lawful.step(workflow_id, "s"))["output"] == {"id": 3}


async def test_refusal_during_a_drain_is_not_asked_for_again_under_its_key(lawful: World) -> None:
    # What a drain calls "cancelled" was answered definitely: the tool has stored that answer under the key.
    worker = await lawful.worker()
    workflow_id = await lawful.submit(gone())

    async def meanwhile() -> Answer:
        await cancelled(lawful, workflow_id)
        return refused(422)

    lawful.tools.script["do"] = [lambda _: meanwhile()]
    await lawful.run(worker)
    states = await call_states(lawful, workflow_id)
    await retried(lawful, workflow_id)
    await lawful.run(worker)

    first, second = keys(lawful)
    assert (states, first != second) == ({"s#1": "cancelled"}, True)
    assert (await lawful.call(workflow_id, "s", 2))["generation"] == 2


async def test_call_that_was_never_sent_keeps_its_key_when_its_workflow_is_reopened(lawful: World) -> None:
    workflow_id = await lawful.submit(gone())
    worker = await lawful.worker()
    key = (await lawful.call(workflow_id, "s"))["key"]

    await cancelled(lawful, workflow_id)
    await retried(lawful, workflow_id)
    await lawful.run(worker)

    assert keys(lawful) == [key]
    workflow = await lawful.workflow(workflow_id)
    assert (workflow["status"], workflow["cancel"]) == ("succeeded", None)


async def test_business_key_is_asked_for_again_with_its_next_generation(lawful: World) -> None:
    workflow_id, worker = await failed(lawful, gone(key="meeting:7"))

    await retried(lawful, workflow_id)
    await lawful.run(worker)

    assert keys(lawful) == ["meeting:7", "meeting:7#2"]
    owner = await lawful.row("SELECT call_id, released_at FROM effect_keys")
    assert (owner["call_id"], owner["released_at"]) == ((await lawful.call(workflow_id, "s", 2))["id"], None)


async def test_reopened_step_attaches_when_another_workflow_did_it_under_the_same_key(lawful: World) -> None:
    workflow_id, worker = await failed(lawful, gone(key="meeting:7"), key="a")
    other = await lawful.submit(gone(key="meeting:7"), key="b")
    lawful.tools.script["do"] = [{"id": 5}]
    await lawful.run(worker)

    await retried(lawful, workflow_id)
    await lawful.run(worker)

    assert keys(lawful) == ["meeting:7", "meeting:7#2"]
    assert [await seen(lawful, each) for each in (workflow_id, other)] == [({"id": 5}, None, "succeeded")] * 2


async def test_effect_that_was_done_too_late_for_its_step_is_not_done_again(lawful: World) -> None:
    worker = await lawful.worker()
    workflow_id = await lawful.submit(gone("at_most_once", timeout="1m"))

    async def late() -> Answer:
        await lawful.rows("UPDATE dues SET ring_at = clock_timestamp() WHERE kind = 'step_timeout'")
        await lawful.sweep(worker)
        return ok({"id": 1})

    lawful.tools.script["do"] = [lambda _: late()]
    await lawful.run(worker)
    failure = (await lawful.workflow(workflow_id))["failure"]
    await retried(lawful, workflow_id)
    await lawful.run(worker)

    assert (failure["kind"], len(lawful.tools.ledger)) == ("step_timeout", 1)
    assert await seen(lawful, workflow_id) == ({"id": 1}, None, "succeeded")
    assert (await lawful.workflow(workflow_id))["effects_done"] == 1


async def test_step_that_failed_by_its_expression_is_read_again(lawful: World) -> None:
    definition = {
        "name": "reads",
        "tools": {"do": tool("read_only")},
        "steps": {"a": {"tool": "do", "with": {}}, "s": {"set": {"x": "${{ steps.a.output.id }}"}}},
    }
    worker = await lawful.worker()
    workflow_id = await lawful.submit(definition)
    await lawful.run(worker)
    before = await lawful.workflow(workflow_id)

    await retried(lawful, workflow_id)
    after = await lawful.workflow(workflow_id)

    assert (before["failure"]["kind"], after["failure"]["kind"], after["status"]) == (
        "expression_error", "expression_error", "failed",
    )  # fmt: skip
    assert len(lawful.tools.ledger) == 1, "the step before it had succeeded"


async def test_workflow_whose_output_cannot_be_built_fails_again_when_retried(lawful: World) -> None:
    # Every step is done, nothing is to be called: it must not be left running with nothing that wakes it.
    definition = one("read_only") | {"output": {"id": "${{ steps.s.output.id }}"}}
    worker = await lawful.worker()
    workflow_id = await lawful.submit(definition)
    await lawful.run(worker)

    await retried(lawful, workflow_id)

    workflow = await lawful.workflow(workflow_id)
    assert (workflow["status"], workflow["failure"]["kind"]) == ("failed", "expression_error")
    assert (await lawful.events(workflow_id)).count("workflow.failed") == 2


async def test_rejected_approval_step_asks_again_when_its_workflow_is_retried(lawful: World) -> None:
    workflow_id = await lawful.submit(then({"approval": {"title": "Go?", "on_reject": "fail"}}))
    await decided(lawful, "reject")
    before = (await lawful.workflow(workflow_id))["failure"]["kind"]

    await retried(lawful, workflow_id)
    waiting = await lawful.workflow(workflow_id)
    await decided(lawful, "approve")

    assert (before, waiting["status"], waiting["waits"]) == ("approval_rejected", "waiting", 1)
    assert await ended(lawful, workflow_id) == ("succeeded", 3, 0)


async def test_rejected_call_is_asked_about_again_and_sent_only_when_approved(lawful: World) -> None:
    worker = await lawful.worker()
    workflow_id = await lawful.submit(one("at_most_once", approve="always"))
    await decided(lawful, "reject")

    await retried(lawful, workflow_id)
    await lawful.run(worker)
    unsent = len(lawful.tools.ledger)
    await decided(lawful, "approve")
    await lawful.run(worker)

    assert (unsent, len(lawful.tools.ledger)) == (0, 1)
    assert (await lawful.workflow(workflow_id))["status"] == "succeeded"


async def test_steps_that_had_not_begun_wait_for_their_needs_again(lawful: World) -> None:
    steps = {
        "a": {"tool": "do", "with": {}},
        "other": {"tool": "other", "with": {}},
        "join": {"set": {"x": 1}, "needs": ["a", "other"]},
        "skipped": {"set": {"x": 1}, "if": "input.no == 1"},
        "last": {"set": {"x": "${{ steps.join.output.x }}"}},
    }
    tools = {"do": tool("keyed"), "other": tool("keyed")}
    lawful.tools.script |= {"do": [refused(422)], "other": [not_sent()]}
    worker = await lawful.worker()
    workflow_id = await lawful.submit({"name": "join", "tools": tools, "steps": steps}, input={"no": 0})
    await worker.run((await lawful.call(workflow_id, "other"))["id"])
    await worker.run((await lawful.call(workflow_id, "a"))["id"])
    rows = "SELECT path, state, unmet_needs FROM steps ORDER BY position"
    drained = {row["path"]: row["state"] for row in await lawful.rows(rows)}

    await retried(lawful, workflow_id)
    again = {row["path"]: (row["state"], row["unmet_needs"]) for row in await lawful.rows(rows)}
    await lawful.run(worker)

    assert drained == {
        "a": "failed",
        "other": "cancelled",
        "join": "cancelled",
        "skipped": "skipped",
        "last": "cancelled",
    }
    assert (again["join"], again["last"], again["skipped"][0]) == (("pending", 2), ("pending", 1), "skipped")
    assert await ended(lawful, workflow_id) == ("succeeded", 5, 0)


async def test_step_that_may_fail_stays_as_it_is_when_the_workflow_is_reopened(lawful: World) -> None:
    steps = {
        "may": {"tool": "do", "with": {}, "on_error": "continue"},
        "must": {"tool": "other", "with": {}, "needs": ["may"]},
    }
    lawful.tools.script |= {"do": [refused(422)], "other": [refused(422)]}
    worker = await lawful.worker()
    workflow_id = await lawful.submit(
        {"name": "may", "tools": {"do": tool("keyed"), "other": tool("keyed")}, "steps": steps}
    )
    await lawful.run(worker)

    await retried(lawful, workflow_id)
    await lawful.run(worker)

    assert [request.tool.name for request in lawful.tools.ledger] == ["do", "other", "other"]
    assert (await lawful.step(workflow_id, "may"))["state"] == "failed"
    assert await ended(lawful, workflow_id) == ("succeeded", 1, 0)


async def test_step_completed_by_hand_before_its_need_stays_done_when_the_need_is_reopened(lawful: World) -> None:
    workflow_id = await lawful.submit(gone())
    worker = await lawful.worker()
    lawful.tools.script["do"] = [refused(422)]
    await operated(lawful, workflow_id, "needs_it", "complete", output=9)
    await lawful.run(worker)

    await retried(lawful, workflow_id)
    await lawful.run(worker)

    assert (await lawful.step(workflow_id, "needs_it"))["output"] == 9
    assert await ended(lawful, workflow_id) == ("succeeded", 3, 0)


async def test_retry_is_refused_when_an_effect_was_undone_or_given_up(lawful: World) -> None:
    undone = {
        "name": "undone",
        "tools": {
            "make": tool("keyed", compensate={"tool": "unmake", "with": {}}),
            "unmake": tool("idempotent"),
            "do": tool("keyed"),
        },
        "steps": {"a": {"tool": "make", "with": {}}, "b": {"tool": "do", "with": {}, "needs": ["a"]}},
    }
    first, worker = await failed(lawful, undone, key="a")
    lawful.tools.script["do"] = [unknown()]
    second = await lawful.submit(one("at_most_once"), key="b")
    await lawful.run(worker)
    doubt = await lawful.call(second, "s")
    await resolve.resolve(lawful.api, TENANT, doubt["id"], outcome="abandon", result=None, note="?", by="kim")
    third = await lawful.submit(one("at_most_once"), key="c")
    await paused(lawful, third)
    await lawful.run(worker)

    await expect_refusal(retried(lawful, first), ["read", "submit again"])
    await expect_refusal(retried(lawful, second), ["read", "submit again"])
    await expect_refusal(retried(lawful, third), ["resume", "cancel"])


async def test_retry_is_refused_while_the_workflow_still_drains(lawful: World) -> None:
    lawful.tools.script["do"] = [unknown()]
    worker = await lawful.worker()
    workflow_id = await lawful.submit(one("at_most_once"))
    await lawful.run(worker)
    await cancelled(lawful, workflow_id)

    await expect_refusal(retried(lawful, workflow_id), ["resolve", "wait", "hold"])
    await lawful.end_quarantines()
    doubt = await lawful.call(workflow_id, "s")
    await resolve.resolve(lawful.api, TENANT, doubt["id"], outcome="did_not_happen", result=None, note="no", by="kim")
    await retried(lawful, workflow_id)
    await lawful.run(worker)

    assert (await lawful.workflow(workflow_id))["status"] == "succeeded"
    assert len(lawful.tools.ledger) == 2
