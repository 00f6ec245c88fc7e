"""What a restored database makes of each effect: made again, probed or asked about, now or when it is made later."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.domain import ids
from app.engine import cancel, decide_approval
from app.errors import QuarantineActive
from tests.engine.rewinding import recovered, restored, restored_with, steps
from tests.engine.world import World, not_sent, one, refused, settle, tool, unknown, uses


async def test_operator_finds_in_doubt_what_must_not_be_repeated(small_world: World) -> None:
    worker, workflow_id = await restored_with(small_world, "at_most_once")

    done = await recovered(small_world)
    await small_world.run(worker)

    call, workflow = await small_world.call(workflow_id, "s"), await small_world.workflow(workflow_id)
    assert (done.workflows, done.in_doubt) == (1, 1)
    assert (call["state"], workflow["status"], workflow["attention"]) == (
        "in_doubt",
        "waiting",
        ["outcome_unknown", "restored"],
    )
    assert "The database was restored to 20" in call["failure"]["message"]
    assert (call["not_before"] - call["doubt_since"]).total_seconds() == pytest.approx(10, abs=0.5)
    assert small_world.tools.ledger == []


@pytest.mark.parametrize("effect", ["idempotent", "keyed"])
async def test_call_is_made_with_the_same_key_after_recovering_when_repeating_is_safe(
    small_world: World, effect: str
) -> None:
    worker, workflow_id = await restored_with(small_world, effect)
    before = await small_world.call(workflow_id, "s")

    done = await recovered(small_world)
    await small_world.run(worker)

    [sent] = small_world.tools.ledger
    assert (done.repeated, done.in_doubt) == (1, 0)
    assert sent.key == before["key"]
    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"


async def test_keyed_call_goes_in_doubt_when_its_tool_may_have_forgotten_the_key(small_world: World) -> None:
    worker, workflow_id = await restored_with(small_world, "keyed")

    done = await recovered(small_world, since=timedelta(hours=24))
    await small_world.run(worker)

    assert done.in_doubt == 1
    assert (await small_world.call(workflow_id, "s"))["state"] == "in_doubt"
    assert small_world.tools.ledger == []


async def test_keyed_call_goes_in_doubt_when_its_key_is_forgotten_before_it_is_claimed(small_world: World) -> None:
    worker, workflow_id = await restored_with(small_world, "keyed")
    await recovered(small_world)

    await small_world.rows("UPDATE calls SET key_deadline = clock_timestamp()")
    await small_world.run(worker)

    assert (await small_world.call(workflow_id, "s"))["state"] == "in_doubt"
    assert small_world.tools.ledger == []


async def test_later_call_goes_in_doubt_when_its_workflow_was_alive_at_the_restore(small_world: World) -> None:
    worker = await small_world.worker()
    workflow_id = await small_world.submit(steps("look", "mail", tools={"look": "read_only", "mail": "at_most_once"}))
    await restored(small_world)

    done = await recovered(small_world)
    await small_world.run(worker)

    assert (done.workflows, done.in_doubt) == (1, 0)
    assert (await small_world.call(workflow_id, "mail"))["state"] == "in_doubt"
    assert small_world.tools.sent("mail") == []


async def test_later_keyed_call_trusts_its_key_from_the_lost_time_on(small_world: World) -> None:
    worker = await small_world.worker()
    workflow_id = await small_world.submit(steps("look", "book", tools={"look": "read_only", "book": "keyed"}))
    await restored(small_world)

    since = datetime.now(UTC) - timedelta(hours=3)
    await recovered(small_world, since=since)
    small_world.tools.script["book"] = [unknown()]
    [look] = await small_world.due_calls()
    await worker.run(look)

    book = await small_world.call(workflow_id, "book")
    assert (since + timedelta(hours=24) - book["key_deadline"]) == timedelta(seconds=60)


async def test_workflow_accepted_after_recovering_is_like_any_other(small_world: World) -> None:
    worker = await small_world.worker()
    await restored(small_world)
    await recovered(small_world)

    workflow_id = await small_world.submit(one("at_most_once"))
    await small_world.run(worker)

    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"


async def test_call_is_sent_once_when_a_person_says_it_did_not_happen(small_world: World) -> None:
    worker, workflow_id = await restored_with(small_world, "at_most_once")
    await recovered(small_world)

    await small_world.end_quarantines()
    await settle(small_world, workflow_id, "did_not_happen")
    await small_world.run(worker)

    assert len(small_world.tools.ledger) == 1
    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"


async def test_nothing_is_sent_when_a_person_says_it_happened(small_world: World) -> None:
    worker, workflow_id = await restored_with(small_world, "at_most_once")
    await recovered(small_world)

    await settle(small_world, workflow_id, "happened", result={"id": 7})
    await small_world.run(worker)

    assert small_world.tools.ledger == []
    assert (await small_world.step(workflow_id, "s"))["output"] == {"id": 7}


async def test_word_of_before_the_restore_is_not_believed_again(small_world: World) -> None:
    small_world.tools.script["do"] = [unknown()]
    worker = await small_world.worker()
    workflow_id = await small_world.submit(one("at_most_once"))
    await small_world.run(worker)
    await small_world.end_quarantines()
    await settle(small_world, workflow_id, "did_not_happen")
    await restored(small_world)

    await recovered(small_world)
    await small_world.run(worker)

    assert len(small_world.tools.ledger) == 1
    assert (await small_world.call(workflow_id, "s"))["state"] == "in_doubt"


async def test_call_in_flight_goes_in_doubt_and_its_late_answer_settles_it(small_world: World) -> None:
    worker = await small_world.worker()
    workflow_id = await small_world.submit(one("at_most_once"))

    async def meanwhile() -> Any:
        await restored(small_world)
        await recovered(small_world)
        states.append((await small_world.call(workflow_id, "s"))["state"])
        return {"done": True}

    states: list[str] = []
    small_world.tools.script["do"] = [lambda _: meanwhile()]
    [call] = await small_world.due_calls()
    await worker.run(call)

    assert states == ["in_doubt"]
    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"
    assert len(small_world.tools.ledger) == 1


async def test_call_stays_in_doubt_when_its_sender_says_late_that_it_sent_nothing(small_world: World) -> None:
    worker = await small_world.worker()
    workflow_id = await small_world.submit(one("at_most_once"))

    async def meanwhile() -> Any:
        await restored(small_world)
        await recovered(small_world)
        return not_sent()

    small_world.tools.script["do"] = [lambda _: meanwhile()]
    [call] = await small_world.due_calls()
    await worker.run(call)
    await small_world.run(worker)

    assert (await small_world.call(workflow_id, "s"))["state"] == "in_doubt"
    assert "effect.resolved" not in await small_world.events(workflow_id)
    assert len(small_world.tools.ledger) == 1


async def test_quarantine_of_an_old_doubt_begins_anew(small_world: World) -> None:
    small_world.tools.script["do"] = [unknown()]
    worker = await small_world.worker()
    workflow_id = await small_world.submit(one("at_most_once"))
    await small_world.run(worker)
    await small_world.end_quarantines()
    await restored(small_world)

    done = await recovered(small_world)

    assert done.in_doubt == 1
    with pytest.raises(QuarantineActive):
        await settle(small_world, workflow_id, "did_not_happen")


async def test_checkable_call_is_probed_and_not_sent_when_the_probe_finds_it(small_world: World) -> None:
    probe = {"tool": "find", "with": {}, "found": "output.there"}
    definition = one("checkable", probe=probe)
    definition["tools"]["find"] = tool("read_only")
    small_world.tools.script["find"] = [{"there": True, "id": 7}]
    worker = await small_world.worker()
    workflow_id = await small_world.submit(definition)
    await restored(small_world)

    done = await recovered(small_world)
    await small_world.run(worker)

    assert (done.probing, done.in_doubt) == (1, 0)
    assert (await small_world.step(workflow_id, "s"))["output"] == {"there": True, "id": 7}
    assert small_world.tools.sent("do") == []


async def test_repeatable_call_is_asked_about_when_its_step_says_so(small_world: World) -> None:
    definition = one("idempotent")
    definition["steps"]["s"]["on_unknown_outcome"] = "ask"
    worker = await small_world.worker()
    workflow_id = await small_world.submit(definition)
    await restored(small_world)

    done = await recovered(small_world)
    await small_world.run(worker)

    assert done.in_doubt == 1
    assert (await small_world.call(workflow_id, "s"))["state"] == "in_doubt"
    assert small_world.tools.ledger == []


async def test_compensation_is_asked_about_when_the_lost_time_may_have_undone_it(small_world: World) -> None:
    small_world.tools.script["boom"] = [refused(422)]
    definition = steps("mail", "boom", tools={"mail": "at_most_once", "boom": "read_only", "unmail": "at_most_once"})
    definition["steps"]["mail"]["compensate"] = {"tool": "unmail", "with": {"n": 2}}
    worker = await small_world.worker()
    workflow_id = await small_world.submit(definition)
    [mail] = await small_world.due_calls()
    await worker.run(mail)
    await restored(small_world)

    await recovered(small_world)
    await small_world.run(worker)

    [undo] = await small_world.rows(
        "SELECT state FROM calls WHERE workflow_id = %s AND kind = 'compensation'", workflow_id
    )
    assert undo["state"] == "in_doubt"
    assert small_world.tools.sent("unmail") == []


async def test_earliest_restore_stays_the_limit_when_there_is_another(small_world: World) -> None:
    first = datetime.now(UTC) - timedelta(hours=3)
    _, workflow_id = await restored_with(small_world, "keyed")

    await recovered(small_world, since=first)
    await restored(small_world)
    await recovered(small_world)

    assert (await small_world.workflow(workflow_id))["restored_to"] == first


async def test_held_call_keeps_its_gate_and_goes_in_doubt_when_it_is_let_through(small_world: World) -> None:
    asks = uses(("do", {"n": 1}))
    small_world.model.answers = [asks, asks]
    worker = await small_world.worker()
    agent = {"agent": {"model": "fast", "tools": ["do"]}, "prompt": "Go."}
    workflow_id = await small_world.submit({"name": "a", "tools": {"do": tool("at_most_once")}, "steps": {"s": agent}})
    await small_world.run(worker)
    sent = len(small_world.tools.ledger)
    await restored(small_world)

    done = await recovered(small_world)
    [approval] = await small_world.rows("SELECT id, revision, status FROM approvals")
    await decide_approval.decide(
        small_world.api,
        ids.DEFAULT_TENANT,
        approval["id"],
        decision="approve",
        values=None,
        revision=approval["revision"],
        comment=None,
        by="kim",
    )
    await small_world.run(worker)

    assert (sent, done.held, approval["status"]) == (1, 1, "open")
    assert len(small_world.tools.ledger) == 1
    calls = await small_world.rows(
        "SELECT state FROM calls WHERE workflow_id = %s AND kind = 'tool' ORDER BY n", workflow_id
    )
    assert [call["state"] for call in calls] == ["succeeded", "in_doubt"]


async def test_refusal_is_not_believed_when_the_lost_time_may_have_done_it(small_world: World) -> None:
    small_world.tools.script["do"] = [refused(404)]
    worker, workflow_id = await restored_with(small_world, "idempotent")

    await recovered(small_world)
    await small_world.run(worker)

    assert (await small_world.call(workflow_id, "s"))["state"] == "in_doubt"


async def test_cancelled_workflow_asks_about_an_effect_and_does_not_send_it(small_world: World) -> None:
    worker, workflow_id = await restored_with(small_world, "keyed")
    await recovered(small_world)

    await cancel.cancel(small_world.api, ids.DEFAULT_TENANT, workflow_id, reason=None, by="kim")
    await small_world.run(worker)

    call, workflow = await small_world.call(workflow_id, "s"), await small_world.workflow(workflow_id)
    assert (call["state"], workflow["status"]) == ("in_doubt", "cancelling")
    assert small_world.tools.ledger == []
