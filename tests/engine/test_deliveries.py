"""Webhooks: written with the transition, sent in order per workflow, tried again, given up in sight."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest

from app.domain.states import Lane
from app.engine import deliver
from app.ports.world import DeliveryRequest, DeliveryResult
from tests.engine.world import World, tool

HOOK = {"url": "https://hooks.example.com/x", "events": ["*"]}


def answer(status: int, *, retry_after: float | None = None) -> DeliveryResult:
    return DeliveryResult(
        delivered=200 <= status < 300,
        status_code=status,
        error=None if status < 300 else f"answered {status}",
        retry_after=retry_after,
        gone=status == 410,
        response_excerpt="",
        duration_ms=1,
    )


@dataclass
class Receiver:
    script: list[DeliveryResult] = field(default_factory=list)
    got: list[DeliveryRequest] = field(default_factory=list)

    async def send(self, request: DeliveryRequest, *, seconds: float) -> DeliveryResult:
        self.got.append(request)
        return self.script.pop(0) if self.script else answer(204)


async def prepared(world: World, *, events: Any = None) -> tuple[Any, Receiver, UUID]:
    await world.rows(
        "INSERT INTO tenants (id, name, signing_secrets) VALUES (%s, 'default', '{whsec_AAAA}')",
        UUID("00000000-0000-7000-8000-000000000001"),
    )
    worker, receiver = await world.worker(), Receiver()
    worker.services.webhooks = receiver
    definition = {"name": "one", "tools": {"do": tool("idempotent")}, "steps": {"s": {"tool": "do", "with": {}}}}
    workflow_id = await world.submit(definition, webhook={**HOOK, "events": events or ["*"]})
    await world.run(worker)
    return worker, receiver, workflow_id


async def drain(world: World, worker: Any, stream: UUID, *, rounds: int = 40) -> None:
    """Deliver whatever is due, now."""
    for _ in range(rounds):
        if not await world.rows("SELECT 1 FROM dues WHERE kind = 'delivery' AND due_at <= clock_timestamp()"):
            return
        await deliver.deliver(worker.services, stream)


async def test_every_event_is_delivered_once_and_in_order(small_world: World) -> None:
    worker, receiver, workflow_id = await prepared(small_world)

    await drain(small_world, worker, workflow_id)

    bodies = [json.loads(request.body) for request in receiver.got]
    assert [body["type"] for body in bodies] == await small_world.events(workflow_id)
    assert [body["data"]["sequence"] for body in bodies] == list(range(1, len(bodies) + 1))
    assert await small_world.rows("SELECT * FROM dues") == []


async def test_filter_leaves_out_what_was_not_asked_for(small_world: World) -> None:
    worker, receiver, workflow_id = await prepared(small_world, events=["workflow.*"])

    await drain(small_world, worker, workflow_id)

    types = [json.loads(request.body)["type"] for request in receiver.got]
    assert types == ["workflow.accepted", "workflow.started", "workflow.succeeded"]


async def test_failed_delivery_is_repeated_with_the_same_bytes_and_nothing_overtakes_it(small_world: World) -> None:
    worker, receiver, workflow_id = await prepared(small_world)
    receiver.script = [answer(204), answer(500)]

    await drain(small_world, worker, workflow_id)
    waiting = await small_world.row(
        "SELECT extract(epoch FROM due_at - clock_timestamp()) AS s FROM dues WHERE kind = 'delivery'"
    )
    sent_before = len(receiver.got)
    await small_world.rows("UPDATE dues SET due_at = clock_timestamp() WHERE kind = 'delivery'")
    await drain(small_world, worker, workflow_id)

    assert sent_before == 2
    assert 4 < waiting["s"] <= 6.1
    again, first = receiver.got[2], receiver.got[1]
    assert (again.event_id, again.body) == (first.event_id, first.body)
    delivered = await small_world.rows("SELECT state, jsonb_array_length(attempts) AS n FROM deliveries ORDER BY seq")
    assert {row["state"] for row in delivered} == {"delivered"}
    assert delivered[1]["n"] == 2


async def test_receiver_may_say_when_to_come_back(small_world: World) -> None:
    worker, receiver, workflow_id = await prepared(small_world)
    receiver.script = [answer(429, retry_after=90)]

    await drain(small_world, worker, workflow_id)

    waiting = await small_world.row(
        "SELECT extract(epoch FROM due_at - clock_timestamp()) AS s FROM dues WHERE kind = 'delivery'"
    )
    assert 85 < waiting["s"] <= 91


async def test_old_event_is_given_up_in_sight_and_the_next_says_so(small_world: World) -> None:
    worker, receiver, workflow_id = await prepared(small_world)
    await small_world.rows("UPDATE events SET at = at - interval '4 days' WHERE seq = 1")
    receiver.script = [answer(500)]

    await drain(small_world, worker, workflow_id)

    states = [row["state"] for row in await small_world.rows("SELECT state FROM deliveries ORDER BY seq")]
    assert states[0] == "given_up"
    assert set(states[1:]) == {"delivered"}
    assert [request.gap for request in receiver.got][:3] == [False, True, False]


async def test_receiver_that_is_gone_is_never_called_again(small_world: World) -> None:
    worker, receiver, workflow_id = await prepared(small_world)
    receiver.script = [answer(410)]

    await drain(small_world, worker, workflow_id)

    assert len(receiver.got) == 1
    assert {row["state"] for row in await small_world.rows("SELECT state FROM deliveries")} == {"disabled"}
    assert await small_world.rows("SELECT * FROM dues") == []


async def test_stream_in_flight_is_not_taken_twice(small_world: World) -> None:
    worker, _, workflow_id = await prepared(small_world)

    class Slow(Receiver):
        async def send(self, request: DeliveryRequest, *, seconds: float) -> DeliveryResult:
            if not self.got:
                self.got.append(request)
                await deliver.deliver(worker.services, workflow_id)
                return answer(204)
            return await super().send(request, seconds=seconds)

    slow = Slow()
    worker.services.webhooks = slow
    await deliver.deliver(worker.services, workflow_id)

    told = [request.event_id for request in slow.got]
    assert len(told) == len(set(told)) == len(await small_world.events(workflow_id))


async def test_stream_is_left_to_the_bell_when_its_worker_drains(small_world: World) -> None:
    worker, receiver, workflow_id = await prepared(small_world)
    assert worker.services.lease is not None
    worker.services.lease.draining.set()

    await deliver.deliver(worker.services, workflow_id)

    assert len(receiver.got) == 1
    assert (Lane.DELIVERIES, workflow_id) in worker.services.bell.rung
    assert await small_world.rows("SELECT 1 FROM dues WHERE kind = 'delivery' AND due_at <= clock_timestamp()")


async def test_stream_is_taken_up_where_it_was_when_its_worker_dies_between_two_deliveries(small_world: World) -> None:
    worker, receiver, workflow_id = await prepared(small_world)

    class Dying(Receiver):
        async def send(self, request: DeliveryRequest, *, seconds: float) -> DeliveryResult:
            if len(self.got) == 2:
                raise ConnectionAbortedError("the process ends here")
            return await super().send(request, seconds=seconds)

    dying = Dying()
    worker.services.webhooks = dying
    with pytest.raises(ConnectionAbortedError):
        await deliver.deliver(worker.services, workflow_id)
    assert not await small_world.rows("SELECT 1 FROM dues WHERE kind = 'delivery' AND due_at <= clock_timestamp()")
    worker.services.webhooks = receiver
    await small_world.rows("UPDATE dues SET due_at = clock_timestamp() WHERE kind = 'delivery'")

    await drain(small_world, worker, workflow_id)

    bodies = [json.loads(request.body) for request in (*dying.got, *receiver.got)]
    assert [body["data"]["sequence"] for body in bodies] == list(range(1, len(bodies) + 1))
    assert [body["type"] for body in bodies] == await small_world.events(workflow_id)
