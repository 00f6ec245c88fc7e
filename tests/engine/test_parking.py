"""A credential that is not accepted, or has nothing left to spend: calls wait for whoever mends it, and none fails."""

from __future__ import annotations

from typing import Any

import pytest

from app.domain import ids
from app.domain.dependencies import SHARED
from app.domain.outcomes import Failure, Outcome
from app.domain.states import AttemptOutcome, FailureKind
from app.engine import depend
from tests.engine.operations import cancelled, paused, resumed
from tests.engine.outages import AGENT, breaker, held, look_at_all, pass_the_pause, refused_by_provider, swept
from tests.engine.world import Worker, World

SCOPE = "model:aaaaaaaa/*"


async def worker_with(world: World, credential: str, name: str = "worker.1") -> Worker:
    worker = await world.worker(name)
    worker.services.credential = credential
    return worker


@pytest.mark.parametrize(
    ("kind", "attention"),
    [(FailureKind.AUTH, "credential_refused"), (FailureKind.SPEND_LIMITED, "spend_limited")],
)
async def test_refused_credential_parks_the_call_with_the_providers_words_and_a_person_is_told(
    small_world: World, kind: FailureKind, attention: str
) -> None:
    worker = await worker_with(small_world, "aaaaaaaa")
    small_world.model.answers = [refused_by_provider(kind)]

    workflow_id = await small_world.submit(AGENT)
    await small_world.run(worker, hurry=False)

    call, workflow = await small_world.call(workflow_id, "a"), await small_world.workflow(workflow_id)
    assert (call["state"], call["held_reason"], call["failure"]["kind"]) == ("held", "breaker", kind)
    assert (workflow["status"], workflow["attention"]) == ("waiting", [attention])
    assert "invalid x-api-key" in call["recovery"][-1]["message"]
    assert "workflow.needs_attention" in await small_world.events(workflow_id)
    row = await breaker(small_world, SCOPE)
    assert (row["state"], row["tenant_id"]) == ("parked", SHARED)


async def test_siblings_of_a_refused_credential_do_not_ask_the_provider_at_all(small_world: World) -> None:
    worker = await worker_with(small_world, "aaaaaaaa")
    small_world.model.answers = [refused_by_provider(FailureKind.AUTH)]
    first = await small_world.submit(AGENT, key="first")
    await small_world.run(worker, hurry=False)

    found = [await small_world.submit(AGENT, key=str(n)) for n in range(5)]
    await small_world.run(worker, hurry=False)

    assert len(small_world.model.requests) == 1
    assert await held(small_world) == 6
    assert [(await small_world.workflow(each))["attention"] for each in (first, *found)] == [["credential_refused"]] * 6


async def test_canary_finds_the_credential_mended_and_all_go_on_without_attention(small_world: World) -> None:
    worker = await worker_with(small_world, "aaaaaaaa")
    small_world.model.answers = [refused_by_provider(FailureKind.SPEND_LIMITED)]
    found = [await small_world.submit(AGENT, key=str(n)) for n in range(4)]
    [first, *others] = await small_world.due_calls()
    await worker.run(first)
    for call in others:
        await worker.run(call)
    parked = await held(small_world)

    small_world.model.answers = []
    await pass_the_pause(small_world)
    await swept(small_world, worker)
    canaries = len(small_world.model.requests) - 1
    for _ in range(2):
        await look_at_all(small_world)
        await swept(small_world, worker)

    rows = [await small_world.workflow(each) for each in found]
    assert (parked, canaries) == (4, 1)
    assert [(row["status"], row["attention"]) for row in rows] == [("succeeded", [])] * 4


async def test_workflow_that_goes_on_needs_no_attention_any_more(small_world: World) -> None:
    worker = await worker_with(small_world, "aaaaaaaa")
    small_world.model.answers = [refused_by_provider(FailureKind.AUTH)]
    document = {**AGENT, "steps": {**AGENT["steps"], "b": {"approval": {"title": "Go on?"}, "needs": ["a"]}}}
    workflow_id = await small_world.submit(document)
    await small_world.run(worker, hurry=False)

    await depend.reset(small_world.api, ids.DEFAULT_TENANT, scope=SCOPE, by="kim")
    await swept(small_world, worker)

    workflow = await small_world.workflow(workflow_id)
    assert (workflow["status"], workflow["attention"]) == ("waiting", ["approval_pending"])


async def test_workers_with_another_credential_take_over_what_was_parked(small_world: World) -> None:
    old = await worker_with(small_world, "aaaaaaaa", "old")
    small_world.model.answers = [refused_by_provider(FailureKind.AUTH)]
    workflow_id = await small_world.submit(AGENT)
    await small_world.run(old, hurry=False)

    new = await worker_with(small_world, "bbbbbbbb", "new")
    await swept(small_world, new)
    await swept(small_world, new)

    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"
    assert (await breaker(small_world, SCOPE))["state"] == "parked"


async def test_reset_by_an_operator_lets_the_parked_calls_go_and_is_audited(small_world: World) -> None:
    worker = await worker_with(small_world, "aaaaaaaa")
    small_world.model.answers = [refused_by_provider(FailureKind.AUTH)]
    workflow_id = await small_world.submit(AGENT)
    await small_world.run(worker, hurry=False)

    released = await depend.reset(small_world.api, ids.DEFAULT_TENANT, scope=SCOPE, by="kim", note="new key")
    nothing = await depend.reset(small_world.api, ids.DEFAULT_TENANT, scope="tool:other", by="kim")
    await swept(small_world, worker)

    audited = await small_world.rows("SELECT action, actor, object, data FROM audit")
    assert (released, nothing) == (1, None)
    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"
    assert audited == [
        {"action": "breaker.reset", "actor": "kim", "object": SCOPE, "data": {"calls": 1, "note": "new key"}}
    ]


async def test_missing_key_parks_instead_of_failing(small_world: World) -> None:
    worker = await small_world.worker()
    failure = Failure(kind=FailureKind.AUTH, message="There is no usable key for the model provider.")
    small_world.model.answers = [Outcome(certainty=AttemptOutcome.NOT_SENT, failure=failure)]

    workflow_id = await small_world.submit(AGENT)
    await small_world.run(worker, hurry=False)

    assert (await small_world.call(workflow_id, "a"))["held_reason"] == "breaker"
    assert (await breaker(small_world, "model:none/*"))["state"] == "parked"


async def test_403_parks_that_model_alone(small_world: World) -> None:
    worker = await worker_with(small_world, "aaaaaaaa")
    small_world.model.answers = [refused_by_provider(FailureKind.AUTH, status=403)]
    document: dict[str, Any] = {"name": "other", "steps": {"a": {"agent": {"model": "smart"}, "prompt": "Hi"}}}
    refused = await small_world.submit(AGENT, key="refused")
    await small_world.run(worker, hurry=False)

    other = await small_world.submit(document, key="other")
    await small_world.run(worker, hurry=False)

    assert (await small_world.call(refused, "a"))["held_reason"] == "breaker"
    assert (await small_world.workflow(other))["status"] == "succeeded"


async def test_cancel_ends_what_is_parked_at_once(small_world: World) -> None:
    worker = await worker_with(small_world, "aaaaaaaa")
    small_world.model.answers = [refused_by_provider(FailureKind.AUTH)]
    workflow_id = await small_world.submit(AGENT)
    await small_world.run(worker, hurry=False)

    await cancelled(small_world, workflow_id)

    assert (await small_world.workflow(workflow_id))["status"] == "cancelled"
    assert await small_world.rows("SELECT 1 AS one FROM dues WHERE kind = 'dependency'") == []


async def test_paused_workflow_sends_nothing_when_its_credential_is_mended(small_world: World) -> None:
    worker = await worker_with(small_world, "aaaaaaaa")
    small_world.model.answers = [refused_by_provider(FailureKind.AUTH)]
    workflow_id = await small_world.submit(AGENT)
    await small_world.run(worker, hurry=False)

    await paused(small_world, workflow_id)
    await depend.reset(small_world.api, ids.DEFAULT_TENANT, scope=SCOPE, by="kim")
    await swept(small_world, worker)
    still = await small_world.call(workflow_id, "a")
    await resumed(small_world, workflow_id)
    await small_world.run(worker)

    assert (still["state"], still["held_reason"], len(small_world.model.requests)) == ("held", "pause", 2)
    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"
