"""An answer that nobody waits for any more is broken off within a heartbeat, and paid for. Effects never are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest

from app.domain.facts import StepTimedOut
from app.domain.outcomes import Evidence, Outcome, Usage
from app.domain.states import AttemptOutcome, FailureKind
from app.engine.advance import advance_one
from app.engine.sending import Sending
from app.ports.world import MaySend, ModelRequest
from app.ports.writing import BrokenOff
from tests.engine import operations
from tests.engine.world import Answer, Worker, World, not_sent, ok, probed, refused, says, tool, unknown

pytestmark = pytest.mark.anyio

AGENT: dict[str, Any] = {
    "name": "agent",
    "agents": {"writer": {"model": "fast"}},
    "steps": {"s": {"agent": "writer", "prompt": "Write."}},
}
HALF = Usage(input_tokens=700, output_tokens=30, model="claude-haiku-5-5", cost_microusd=85)


@dataclass
class SlowModel:
    """Writes half an answer, then nothing for as long as it is let."""

    half_written: asyncio.Event = field(default_factory=asyncio.Event)
    requests: int = 0
    answer_now: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, request: ModelRequest, *, seconds: float, may_send: MaySend) -> Outcome:
        if not may_send():
            return not_sent()
        self.requests += 1
        assert request.writing is not None
        request.writing.text("Half of it. ")
        self.half_written.set()
        try:
            await self.answer_now.wait()
            return says("All of it.")
        except asyncio.CancelledError:
            request.writing.broken_off = BrokenOff(
                evidence=Evidence(body=b'{"content":[],"stop_reason":null}', media_type="application/json"),
                usage=HALF,
                request_id="req_1",
                sent_after=0.001,
            )
            raise


@asynccontextmanager
async def writing(
    world: World, worker: Worker, workflow_id: UUID, model: SlowModel
) -> AsyncIterator[asyncio.Task[None]]:
    """The model call of `s` is in flight inside."""
    worker.services.models = model
    task = asyncio.create_task(worker.run((await world.call(workflow_id, "s"))["id"]))
    await asyncio.wait_for(model.half_written.wait(), 20)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_answer_is_broken_off_and_billed_when_its_workflow_is_cancelled(small_world: World) -> None:
    worker, model = await small_world.worker(), SlowModel()
    workflow_id = await small_world.submit(AGENT)

    async with writing(small_world, worker, workflow_id, model) as task:
        await operations.cancelled(small_world, workflow_id)
        draining = (await small_world.workflow(workflow_id))["status"]
        await worker.lease.beat()
        await asyncio.wait_for(task, 20)

    workflow, call = await small_world.workflow(workflow_id), await small_world.call(workflow_id, "s")
    attempt = await small_world.row("SELECT * FROM attempts WHERE workflow_id = %s", workflow_id)
    assert (draining, workflow["status"], call["state"]) == ("cancelling", "cancelled", "cancelled")
    assert (attempt["outcome"], attempt["failure"]["kind"], attempt["request_id"]) == ("unknown", "cancelled", "req_1")
    assert (attempt["cost_microusd"], attempt["usage"]["output_tokens"]) == (85, 30)
    assert (workflow["spent_microusd"], workflow["input_tokens"], workflow["output_tokens"]) == (85, 700, 30)
    assert model.requests == 1
    await operations.expect_the_laws(small_world)


async def test_answer_is_broken_off_when_its_step_runs_out_of_time(small_world: World) -> None:
    worker, model = await small_world.worker(), SlowModel()
    workflow_id = await small_world.submit(AGENT | {"steps": {"s": AGENT["steps"]["s"] | {"timeout": "1h"}}})

    async with writing(small_world, worker, workflow_id, model) as task:
        await advance_one(worker.services, workflow_id, [StepTimedOut(step="s")], purpose="test")
        before = (await small_world.step(workflow_id, "s"))["state"]
        await worker.lease.beat()
        await asyncio.wait_for(task, 20)

    workflow = await small_world.workflow(workflow_id)
    assert before == "running"
    assert (workflow["status"], workflow["failure"]["kind"]) == ("failed", "step_timeout")
    assert (await small_world.call(workflow_id, "s"))["state"] == "cancelled"
    await operations.expect_the_laws(small_world)


async def test_answer_is_broken_off_when_another_step_has_failed(small_world: World) -> None:
    small_world.tools.script["fail"] = [refused(404)]
    worker, model = await small_world.worker(), SlowModel()
    both = {"s": AGENT["steps"]["s"], "b": {"tool": "fail", "with": {}}}
    workflow_id = await small_world.submit(AGENT | {"tools": {"fail": tool("read_only")}, "steps": both})

    async with writing(small_world, worker, workflow_id, model) as task:
        await worker.run((await small_world.call(workflow_id, "b"))["id"])
        await worker.lease.beat()
        await asyncio.wait_for(task, 20)

    workflow = await small_world.workflow(workflow_id)
    assert (workflow["status"], workflow["failure"]["step"]) == ("failed", "b")
    assert workflow["spent_microusd"] == 85


@pytest.mark.parametrize("state", ["running", "paused"])
async def test_answer_is_waited_for_while_its_workflow_goes_on(small_world: World, state: str) -> None:
    worker, model = await small_world.worker(), SlowModel()
    workflow_id = await small_world.submit(AGENT)

    async with writing(small_world, worker, workflow_id, model) as task:
        if state == "paused":
            await operations.paused(small_world, workflow_id)
        await worker.lease.beat()
        await worker.lease.beat()
        model.answer_now.set()
        await asyncio.wait_for(task, 20)

    assert (await small_world.call(workflow_id, "s"))["state"] == "succeeded"


@pytest.mark.parametrize(("effect", "ends"), [("read_only", "cancelled"), ("at_most_once", "succeeded")])
async def test_only_a_read_is_broken_off_when_its_workflow_is_cancelled(
    small_world: World, effect: str, ends: str
) -> None:
    called, answer_now = asyncio.Event(), asyncio.Event()

    async def slow() -> Answer:
        called.set()
        await answer_now.wait()
        return ok({"id": 1})

    small_world.tools.script["do"] = [lambda _: slow()]
    worker = await small_world.worker()
    definition = {"name": "d", "tools": {"do": tool(effect)}, "steps": {"s": {"tool": "do", "with": {}}}}
    workflow_id = await small_world.submit(definition)

    task = asyncio.create_task(worker.run((await small_world.call(workflow_id, "s"))["id"]))
    await asyncio.wait_for(called.wait(), 20)
    await operations.cancelled(small_world, workflow_id)
    await worker.lease.beat()
    await worker.lease.beat()
    if effect != "read_only":
        answer_now.set()
    await asyncio.wait_for(task, 20)

    assert (await small_world.call(workflow_id, "s"))["state"] == ends
    assert (await small_world.workflow(workflow_id))["status"] == "cancelled"
    await operations.expect_the_laws(small_world)


async def test_probe_is_not_broken_off_when_its_workflow_is_cancelled(small_world: World) -> None:
    asked, answer_now = asyncio.Event(), asyncio.Event()

    async def slow() -> Answer:
        asked.set()
        await answer_now.wait()
        return ok({"found": True})

    small_world.tools.script |= {"do": [unknown()], "look": [lambda _: slow()]}
    worker = await small_world.worker()
    workflow_id = await small_world.submit(probed())
    await worker.run((await small_world.call(workflow_id, "s"))["id"])
    await operations.cancelled(small_world, workflow_id)
    await small_world.end_quarantines()
    await small_world.rows("UPDATE dues SET due_at = clock_timestamp(), ring_at = clock_timestamp()")
    await small_world.sweep(worker)

    probe = await small_world.row("SELECT * FROM calls WHERE kind = 'probe'")
    await small_world.hurry()
    task = asyncio.create_task(worker.run(probe["id"]))
    await asyncio.wait_for(asked.wait(), 20)
    await worker.lease.beat()
    await worker.lease.beat()
    answer_now.set()
    await asyncio.wait_for(task, 20)

    assert (await small_world.call(workflow_id, "s"))["state"] == "succeeded"


@pytest.mark.parametrize("harmless", [True, False])
async def test_lease_tells_only_what_was_opened_as_harmless_that_nobody_waits_for_it(
    small_world: World, harmless: bool
) -> None:
    worker, told = await small_world.worker(), list[str]()
    definition = {"name": "d", "tools": {"do": tool("at_most_once")}, "steps": {"s": {"tool": "do", "with": {}}}}
    workflow_id = await small_world.submit(definition)
    claimed = await worker.claim((await small_world.call(workflow_id, "s"))["id"])
    await operations.cancelled(small_world, workflow_id)

    worker.lease.opened(claimed.call_id, claimed.attempt_id, told.append, harmless=harmless)
    await worker.lease.beat()
    await asyncio.sleep(0)

    assert told == (["unwanted"] if harmless else [])


async def test_effect_is_not_broken_off_when_it_is_told_so_by_mistake(small_world: World) -> None:
    worker = await small_world.worker()
    definition = {"name": "d", "tools": {"do": tool("at_most_once")}, "steps": {"s": {"tool": "do", "with": {}}}}
    workflow_id = await small_world.submit(definition)
    claimed = await worker.claim((await small_world.call(workflow_id, "s"))["id"])
    sending = Sending(lease=worker.lease, claimed=claimed)
    worker.lease.opened(claimed.call_id, claimed.attempt_id, sending.revoked)

    async def slow() -> Outcome:
        assert sending.may_send()
        sending.revoked("unwanted")
        await asyncio.sleep(0)
        return ok({"id": 1})

    outcome = await sending.run(slow())

    assert outcome.certainty is AttemptOutcome.SUCCEEDED


@pytest.mark.parametrize("sent", [True, False])
async def test_cancellation_from_inside_is_a_defect_and_never_repeated_as_a_lost_worker(
    small_world: World, sent: bool
) -> None:
    worker = await small_world.worker()
    workflow_id = await small_world.submit(AGENT)
    claimed = await worker.claim((await small_world.call(workflow_id, "s"))["id"])
    sending = Sending(lease=worker.lease, claimed=claimed)
    worker.lease.opened(claimed.call_id, claimed.attempt_id, sending.revoked)

    async def stray() -> Outcome:
        assert not sent or sending.may_send()
        raise asyncio.CancelledError

    outcome = await sending.run(stray())

    assert outcome.failure is not None
    assert outcome.failure.kind is FailureKind.INTERNAL
    assert outcome.certainty is (AttemptOutcome.UNKNOWN if sent else AttemptOutcome.NOT_SENT)
