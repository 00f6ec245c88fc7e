"""A person decides: approval steps, their expiry, and what a second or late answer gets."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app.domain import ids
from app.engine import decide_approval
from app.errors import AlreadyDecided, ApprovalClosed, InvalidValue, NotFound, RevisionChanged
from tests.engine.world import World


def asks(**approval: Any) -> dict[str, Any]:
    return {
        "name": "gate",
        "steps": {
            "review": {
                "approval": {"title": "Publish ${{ input.what }}?", "show": {"text": "${{ input.what }}"}, **approval}
            },
            "go": {"if": "steps.review.output.decision == 'approve'", "set": {"went": True}},
        },
        "output": {"decision": "${{ steps.review.output.decision }}", "by": "${{ steps.review.output.by }}"},
    }


async def decide(world: World, decision: str, *, revision: int = 1, comment: str | None = None) -> None:
    approval = await world.row("SELECT id FROM approvals")
    await decide_approval.decide(
        world.api,
        ids.DEFAULT_TENANT,
        approval["id"],
        decision=decision,
        values=None,
        comment=comment,
        revision=revision,
        by="kim",
    )


async def test_workflow_waits_for_a_person_and_goes_on_with_their_decision(small_world: World) -> None:
    workflow_id = await small_world.submit(asks(), input={"what": "report"})

    waiting = await small_world.workflow(workflow_id)
    await decide(small_world, "approve", comment="fine")

    assert (waiting["status"], waiting["waits"], waiting["attention"]) == ("waiting", 1, ["approval_pending"])
    workflow = await small_world.workflow(workflow_id)
    assert (workflow["status"], workflow["output"]) == ("succeeded", {"decision": "approve", "by": "kim"})
    assert (workflow["waits"], workflow["attention"]) == (0, [])
    assert (await small_world.step(workflow_id, "review"))["title"] == "Publish report?"


async def test_rejection_is_output_unless_it_is_declared_a_failure(small_world: World) -> None:
    goes_on = await small_world.submit(asks(), input={"what": "x"})
    await decide(small_world, "reject")

    workflow = await small_world.workflow(goes_on)
    assert (workflow["status"], workflow["output"]["decision"]) == ("succeeded", "reject")
    assert (await small_world.step(goes_on, "go"))["state"] == "skipped"


async def test_rejection_fails_the_step_where_it_says_so(small_world: World) -> None:
    workflow_id = await small_world.submit(asks(on_reject="fail"), input={"what": "x"})

    await decide(small_world, "reject")

    assert (await small_world.workflow(workflow_id))["failure"]["kind"] == "approval_rejected"


async def test_expired_approval_counts_as_rejected_and_a_late_decision_is_told(small_world: World) -> None:
    workflow_id = await small_world.submit(asks(expires="1h"), input={"what": "x"})
    worker = await small_world.worker()

    await small_world.rows("UPDATE dues SET ring_at = clock_timestamp() WHERE kind = 'expiry'")
    await small_world.sweep(worker)

    assert (await small_world.workflow(workflow_id))["output"]["decision"] == "reject"
    with pytest.raises(ApprovalClosed):
        await decide(small_world, "approve")


async def test_lateness_is_judged_by_the_databases_clock_before_the_timer_fires(small_world: World) -> None:
    workflow_id = await small_world.submit(asks(expires="1h", on_expire="fail"), input={"what": "x"})

    await small_world.rows("UPDATE approvals SET expires_at = clock_timestamp() - interval '1 second'")
    with pytest.raises(ApprovalClosed):
        await decide(small_world, "approve")

    assert (await small_world.workflow(workflow_id))["failure"]["kind"] == "approval_expired"


async def test_same_decision_again_is_a_replay_and_another_is_refused(small_world: World) -> None:
    workflow_id = await small_world.submit(asks(), input={"what": "x"})

    await decide(small_world, "approve")
    events = await small_world.events(workflow_id)
    await decide(small_world, "approve")

    assert await small_world.events(workflow_id) == events
    with pytest.raises(AlreadyDecided):
        await decide(small_world, "reject")


async def test_decision_that_names_another_revision_or_an_unknown_word_is_refused(small_world: World) -> None:
    await small_world.submit(asks(), input={"what": "x"})

    with pytest.raises(RevisionChanged):
        await decide(small_world, "approve", revision=2)
    with pytest.raises(InvalidValue):
        await decide(small_world, "perhaps")
    with pytest.raises(NotFound):
        await decide_approval.decide(
            small_world.api, ids.DEFAULT_TENANT, ids.derived("x"), decision="approve", values=None, comment=None,
            revision=1, by="kim",
        )  # fmt: skip


async def test_two_people_at_once_decide_it_once(small_world: World) -> None:
    workflow_id = await small_world.submit(asks(), input={"what": "x"})

    answers = await asyncio.gather(
        decide(small_world, "approve"), decide(small_world, "reject"), return_exceptions=True
    )

    assert sorted(type(a).__name__ for a in answers) == ["AlreadyDecided", "NoneType"]
    assert (await small_world.events(workflow_id)).count("approval.decided") == 1
