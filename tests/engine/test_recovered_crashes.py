"""A conversation in which everything goes wrong once, on real Postgres: and then workers die in it, answers are told
twice, people cancel and reopen, at every boundary. It is never malformed, and always the same."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID, uuid4

import pytest

from app.domain import ids
from app.domain.facts import CallSettled
from app.domain.states import FailureKind
from app.engine import cancel, retry
from app.engine.advance import advance_one
from tests.engine.conversing import agent, asks, cut, fails, paused, text, thinking, use, well_formed
from tests.engine.world import Worker, World, refused, says, tool

TOOLS = {"look": tool("read_only"), "mail": tool("keyed")}
POLICY = {"overloaded": {"max_retries": 1, "switch_model": "smart"}}
ANSWERS: list[Any] = [
    cut(text("I think ")),
    asks(thinking(), text("about it."), use("look", {"n": 1}), use("mail", {"to": "ana"})),
    cut(text("Well"), use("look", {"n": 0})),
    asks(use("look", {"n": 2})),
    asks(use("look", {"n": 3})),
    fails(FailureKind.OVERLOADED),
    fails(FailureKind.OVERLOADED),
    asks(text("Without it."), use("mail", {"to": "bo"})),
    paused("It was "),
    cut(text("sent to ")),
    says('{"n"'),
    says('{"to": 2}'),
]
"""Cut, a tool that breaks, half a tool call, an overload and another model without the thinking, a pause, a cut, no
JSON, and at last the answer."""


def story() -> dict[str, Any]:
    return agent(tools=TOOLS, retry=POLICY, schema={"to": {"type": "integer"}})


async def begin(world: World, *, key: str = "k-1") -> UUID:
    world.model.answers, world.model.requests = list(ANSWERS), []
    world.tools.script, world.tools.ledger = {"look": [refused(422)] * 9}, []
    return await world.submit(story(), key=key, input={"who": "kim"})


async def messages(world: World, workflow_id: UUID) -> list[tuple[int, Any]]:
    rows = await world.rows(
        "SELECT conversation, body FROM messages WHERE workflow_id = %s ORDER BY conversation, ordinal", workflow_id
    )
    return [(row["conversation"], json.loads(bytes(row["body"]))) for row in rows]


async def in_peace(world: World) -> list[tuple[int, Any]]:
    workflow_id = await begin(world, key="calm")
    await world.run(await world.worker("calm"))
    assert (await world.workflow(workflow_id))["output"] == {"said": {"to": 2}}
    return await messages(world, workflow_id)


async def ended_well(world: World, workflow_id: UUID) -> None:
    workflow = await world.workflow(workflow_id)
    assert (workflow["status"], workflow["output"]) == ("succeeded", {"said": {"to": 2}})
    assert sorted(request.arguments["to"] for request in world.tools.sent("mail")) == ["ana", "bo"]
    well_formed(world.model.requests)


def grows_within_each_conversation(world: World) -> None:
    """Bytes that were sent once stand in every later request of the same conversation."""
    begun: list[bytes] = []
    for request in world.model.requests:
        if request.model == "claude-sonnet-5-5" and any(b'"thinking"' in body for body in begun):
            begun = []  # carried over to a model that cannot read it
        assert list(request.messages)[: len(begun)] == begun
        begun = list(request.messages)


async def test_conversation_is_the_same_if_a_worker_dies_at_every_boundary(small_world: World) -> None:
    calm = await in_peace(small_world)
    survivor = await small_world.worker("survivor")
    workflow_id = await begin(small_world)

    for n in range(60):
        await small_world.hurry()
        due = await small_world.due_calls()
        if not due:
            break
        doomed = await small_world.worker(f"doomed.{n}")
        await doomed.claim(due[0])
        await small_world.lose(doomed)
        await small_world.sweep(survivor)
        await survivor.run(due[0])

    await ended_well(small_world, workflow_id)
    grows_within_each_conversation(small_world)
    assert await messages(small_world, workflow_id) == calm


async def test_conversation_is_the_same_if_every_answer_is_told_twice(small_world: World) -> None:
    calm = await in_peace(small_world)
    worker = await small_world.worker()
    workflow_id = await begin(small_world)

    for _ in range(60):
        await small_world.hurry()
        due = await small_world.due_calls()
        if not due:
            break
        await told_twice(small_world, worker, due[0])

    await ended_well(small_world, workflow_id)
    assert await messages(small_world, workflow_id) == calm


async def told_twice(world: World, worker: Worker, call_id: UUID) -> None:
    """The answer is recorded, and recorded again, as after a COMMIT whose reply was lost."""
    heard: list[Any] = []
    ports = worker.services.models, worker.services.tools

    class Overhearing:
        def __init__(self, port: Any) -> None:
            self.port = port

        async def send(self, request: Any, *, seconds: float, may_send: Any) -> Any:
            heard.append(await self.port.send(request, seconds=seconds, may_send=may_send))
            return heard[-1]

    worker.services.models, worker.services.tools = Overhearing(ports[0]), Overhearing(ports[1])
    await worker.run(call_id)
    worker.services.models, worker.services.tools = ports
    [attempt] = await world.rows("SELECT * FROM attempts WHERE call_id = %s ORDER BY n DESC LIMIT 1", call_id)
    fact = CallSettled(call_id=call_id, attempt_id=attempt["id"], step="a", outcome=heard[-1])
    await advance_one(worker.services, attempt["workflow_id"], [fact])


BOUNDARIES = 16


@pytest.mark.parametrize("first", range(2))
async def test_conversation_goes_on_well_formed_after_a_cancel_at_any_boundary(small_world: World, first: int) -> None:
    worker = await small_world.worker()
    for boundary in range(first, BOUNDARIES, 2):
        await worker.lease.beat()  # on a busy machine this takes longer than a lease
        workflow_id = await begin(small_world, key=str(uuid4()))
        for _ in range(boundary):
            await small_world.hurry()
            for call in (await small_world.due_calls())[:1]:
                await worker.run(call)
        await cancel.cancel(small_world.api, ids.DEFAULT_TENANT, workflow_id, reason=None, by="op")

        await retry.retry(small_world.api, ids.DEFAULT_TENANT, workflow_id, note=None, by="op")
        await small_world.run(worker)

        workflow = await small_world.workflow(workflow_id)
        assert (boundary, workflow["status"]) == (boundary, "succeeded")
        well_formed(small_world.model.requests)
        assert len(small_world.tools.sent("mail")) == 2
