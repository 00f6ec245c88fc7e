"""Postgres committed and its reply was lost: the same work runs again and nothing happens twice."""

from __future__ import annotations

from typing import Any

import pytest

from app.domain import ids
from app.engine import cancel, record
from tests.engine.cut_wire import COMMITTED, wire_to
from tests.engine.world import World, ok, one, world

INTENDED = b"SELECT 1\x00"
"""The tag of a claim that got one call: data-modifying CTEs under a SELECT of one row."""


@pytest.fixture
async def near(database_url: str) -> Any:
    """The world that looks at the database directly."""
    async with world(database_url) as made:
        yield made


async def test_submission_whose_commit_reply_is_lost_makes_one_workflow(database_url: str, near: World) -> None:
    async with wire_to(database_url) as (wire, url), world(url) as far:
        wire.cut_at(COMMITTED)

        workflow_id = await far.submit(one("at_most_once"))

        assert wire.cuts == 1
        assert [row["id"] for row in await near.rows("SELECT id FROM workflows")] == [workflow_id]


async def test_claim_whose_reply_is_lost_neither_repeats_nor_strands_its_call(database_url: str, near: World) -> None:
    await near.submit(one("at_most_once"))
    async with wire_to(database_url) as (wire, url), world(url) as far:
        far.tools = near.tools
        worker = await far.worker(lease_url=database_url)
        [call_id] = await near.due_calls()
        wire.cut_at(INTENDED)

        await worker.run(call_id)

        assert wire.cuts == 1
    assert len(near.tools.ledger) == 1
    assert await near.row("SELECT count(*) AS n FROM attempts") == {"n": 1}
    assert (await near.row("SELECT status FROM workflows"))["status"] == "succeeded"


async def test_record_whose_commit_reply_is_lost_records_once(database_url: str, near: World) -> None:
    workflow_id = await near.submit(one("at_most_once"))
    async with wire_to(database_url) as (wire, url), world(url) as far:
        worker = await far.worker(lease_url=database_url)
        [call_id] = await near.due_calls()
        claimed = await worker.claim(call_id)
        wire.cut_at(COMMITTED)

        await record.record(worker.services, claimed, ok({"id": 1}))

        assert wire.cuts == 1
    workflow = await near.workflow(workflow_id)
    assert (workflow["status"], workflow["effects_done"]) == ("succeeded", 1)
    assert (await near.events(workflow_id)).count("agent.tool.executed") == 1


async def test_cancel_whose_commit_reply_is_lost_cancels_once(database_url: str, near: World) -> None:
    workflow_id = await near.submit(one("at_most_once"))
    async with wire_to(database_url) as (wire, url), world(url) as far:
        wire.cut_at(COMMITTED)

        await cancel.cancel(far.api, ids.DEFAULT_TENANT, workflow_id, reason="enough", by="kim")

        assert wire.cuts == 1
    assert (await near.workflow(workflow_id))["status"] == "cancelled"
    assert (await near.events(workflow_id)).count("workflow.cancelling") == 1
