"""The last door before the database: a stored outcome is not changed by a decision that never saw it."""

from __future__ import annotations

from uuid import UUID

import pytest

from app.domain.aggregate import Attempt, Snapshot
from app.domain.facts import CallSettled
from app.domain.reads import Reads, read_for
from app.domain.states import AttemptOutcome
from app.domain.transition import Transition
from app.engine import transactions
from app.store import loading, locking, workflows
from tests.engine.world import World, ok, one


@pytest.mark.parametrize(("told", "stored"), [("failed", "succeeded"), ("succeeded", "succeeded")])
async def test_attempt_keeps_its_outcome_when_a_decision_says_another(
    small_world: World, told: str, stored: str
) -> None:
    worker = await small_world.worker()
    workflow_id = await small_world.submit(one("at_most_once"))
    await small_world.run(worker)

    await decide(small_world, workflow_id, outcome=AttemptOutcome(told), request_id="the second word")

    attempt = await small_world.row("SELECT outcome, request_id FROM attempts")
    assert attempt["outcome"] == stored
    assert (attempt["request_id"] == "the second word") == (told == stored)


async def decide(world: World, workflow_id: UUID, *, outcome: AttemptOutcome, request_id: str) -> None:
    """A transition as a process would write it that had read the attempt before it was settled."""
    made = await world.row("SELECT id, call_id FROM attempts WHERE workflow_id = %s", workflow_id)

    async def work(connection: transactions.Connection) -> None:
        locked, _ = await locking.lock(connection, [workflow_id])
        workflow = locked[workflow_id]
        plan = await world.api.plans.get(workflow.tenant_id, workflow.plan_digest)
        snapshot, reads = Snapshot(workflow=workflow), Reads()
        fact = CallSettled(call_id=made["call_id"], attempt_id=made["id"], step="s", outcome=ok({}))
        read_for(fact, plan=plan, reads=reads)
        await loading.load(connection, {workflow_id: (snapshot, reads)})
        attempt = snapshot.calls[made["call_id"]].attempt(made["id"])
        assert isinstance(attempt, Attempt)
        attempt.outcome, attempt.request_id = outcome, request_id
        await workflows.apply(connection, [Transition(workflow=workflow, attempts={attempt.id: attempt})])

    await transactions.run(world.api.database, "operate", work)
