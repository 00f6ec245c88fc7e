"""One event id is one body: what a receiver gets again is what it got, although its workflow has gone on since."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from uuid import UUID

from app.domain import ids
from app.engine import deliver
from app.ports.world import DeliveryRequest, DeliveryResult
from tests.engine.world import World, one


@dataclass
class Receiver:
    """Answers with these statuses, then 204."""

    statuses: list[int]
    got: list[DeliveryRequest] = field(default_factory=list)

    async def send(self, request: DeliveryRequest, *, seconds: float) -> DeliveryResult:
        self.got.append(request)
        status = self.statuses.pop(0) if self.statuses else 204
        return DeliveryResult(
            delivered=status == 204,
            status_code=status,
            error=None if status == 204 else f"answered {status}",
            retry_after=None,
            gone=False,
            response_excerpt="",
            duration_ms=1,
        )


async def test_receiver_gets_the_same_bytes_again_when_the_workflow_has_ended_meanwhile(small_world: World) -> None:
    worker, receiver = await small_world.worker(), Receiver(statuses=[503])
    worker.services.webhooks = receiver
    workflow_id = await submitted(small_world)

    await deliver.deliver(worker.services, workflow_id)
    await small_world.run(worker)
    await small_world.rows("UPDATE dues SET due_at = clock_timestamp() WHERE kind = 'delivery'")
    await deliver.deliver(worker.services, workflow_id)

    first, again = receiver.got[:2]
    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"
    assert json.loads(first.body)["data"]["status"] == "running"
    assert (again.event_id, again.body) == (first.event_id, first.body)


async def submitted(world: World) -> UUID:
    """A workflow with a receiver that is told everything, and whose tenant has a secret to sign with."""
    await world.rows(
        "INSERT INTO tenants (id, name, signing_secrets) VALUES (%s, 'default', '{whsec_AAAA}')", ids.DEFAULT_TENANT
    )
    return await world.submit(one("idempotent"), webhook={"url": "https://hooks.example.com/x", "events": ["*"]})
