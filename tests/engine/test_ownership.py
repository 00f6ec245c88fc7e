"""Business keys: one call owns a key and does the effect; who wants the same attaches, and has its result."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from uuid import UUID

import pytest

from app.domain import ids
from app.engine import compensate
from tests.engine.ledger_laws import check_laws
from tests.engine.owning import KEY, go, held, keyed, keys, owned, statuses, stop, submit, undoable
from tests.engine.world import Answer, Worker, World, ok, refused, settle, unknown, world


@pytest.fixture
async def ledger(small_world: World) -> AsyncIterator[World]:
    yield small_world
    await check_laws(small_world)


# --- attaching -----------------------------------------------------------------------------------------------------


async def test_second_workflow_attaches_and_has_the_owners_result(ledger: World) -> None:
    owner, waiter, worker = await owned(ledger, {"id": 7})

    before = await ledger.workflow(waiter)
    await go(ledger, worker)

    call, workflow = await ledger.call(waiter, "s"), await ledger.workflow(waiter)
    assert (before["status"], before["held"], before["attention"]) == ("waiting", 1, [])
    assert (call["state"], call["attempts"], call["target"]) == ("succeeded", 0, (await ledger.call(owner, "s"))["id"])
    assert (workflow["status"], workflow["effects_done"], workflow["duplicates_prevented"]) == ("succeeded", 0, 1)
    assert (await ledger.step(waiter, "s"))["output"] == {"id": 7}
    assert keys(ledger) == [KEY]
    assert (await ledger.events(waiter)).count("effect.attached") == 1


async def test_workflow_that_comes_after_the_owners_end_has_its_result_at_once(ledger: World) -> None:
    worker = await ledger.worker()
    ledger.tools.script["do"] = [{"id": 7}]
    await submit(ledger, "owner")
    await ledger.run(worker)

    late = await submit(ledger, "late")

    assert await statuses(ledger, late) == ["succeeded"]
    assert (await ledger.step(late, "s"))["output"] == {"id": 7}


async def test_attached_workflow_never_undoes_what_it_did_not_do(ledger: World) -> None:
    ledger.tools.script |= {"do": [{"id": 7}], "fail": [refused(404)]}
    worker = await ledger.worker()
    owner = await submit(ledger, "owner", undoable(fails=False))
    waiter = await submit(ledger, "waiter", undoable(fails=True))

    await go(ledger, worker)

    assert await statuses(ledger, owner, waiter) == ["succeeded", "failed"]
    assert (await ledger.workflow(waiter))["compensation"] == "not_needed"
    assert ledger.tools.sent("undo") == []


async def test_other_arguments_are_a_conflict_while_the_owner_is_open_and_nothing_is_sent(ledger: World) -> None:
    worker = await ledger.worker()
    await submit(ledger, "owner")

    other = await submit(ledger, "other", keyed(n=2))
    await go(ledger, worker)

    failure = (await ledger.workflow(other))["failure"]
    assert (failure["kind"], failure["step"]) == ("key_conflict", "s")
    assert [request.arguments for request in ledger.tools.ledger] == [{"n": 1}]


async def test_null_in_a_business_key_fails_the_step_and_owns_nothing(ledger: World) -> None:
    definition = keyed(step={"idempotency_key": "meeting:${{ input.id }}"})

    workflow_id = await ledger.submit(definition, input={"id": None})

    assert (await ledger.workflow(workflow_id))["failure"]["kind"] == "expression_error"
    assert await ledger.rows("SELECT * FROM effect_keys") == []


async def test_two_steps_that_want_one_key_in_one_decision_do_it_once(ledger: World) -> None:
    definition = keyed()
    definition["steps"]["t"] = dict(definition["steps"]["s"])
    ledger.tools.script["do"] = [{"id": 7}]
    worker = await ledger.worker()
    workflow_id = await submit(ledger, "both", definition)

    await go(ledger, worker)

    assert await statuses(ledger, workflow_id) == ["succeeded"]
    assert [(await ledger.step(workflow_id, name))["output"] for name in ("s", "t")] == [{"id": 7}] * 2
    assert keys(ledger) == [KEY]


async def test_step_that_follows_the_owner_in_its_workflow_has_its_result(ledger: World) -> None:
    definition = keyed()
    definition["steps"]["t"] = {**definition["steps"]["s"], "needs": ["s"]}
    ledger.tools.script["do"] = [{"id": 7}]
    worker = await ledger.worker()
    workflow_id = await submit(ledger, "chain", definition)

    await go(ledger, worker)

    assert (await ledger.step(workflow_id, "t"))["output"] == {"id": 7}
    assert keys(ledger) == [KEY]


async def test_items_that_want_one_key_do_it_once(ledger: World) -> None:
    definition = keyed(step={"for_each": "${{ input.list }}", "max_parallel": 2})
    ledger.tools.script["do"] = [{"id": 7}]
    worker = await ledger.worker()
    workflow_id = await ledger.submit(definition, input={"list": [1, 2, 3]})

    await go(ledger, worker)

    assert (await ledger.step(workflow_id, "s"))["output"] == [{"id": 7}] * 3
    assert keys(ledger) == [KEY]


async def test_ten_workflows_at_once_make_one_execution(database_url: str) -> None:
    async with AsyncExitStack() as stack:
        worlds = [await stack.enter_async_context(world(database_url)) for _ in range(5)]
        first = worlds[0]
        worker = await first.worker()

        found = await asyncio.gather(*(submit(worlds[n % 5], f"k{n}") for n in range(10)))
        attached = await first.row("SELECT count(*) AS n FROM calls WHERE held_reason = 'attached'")
        await go(first, worker)

        assert attached == {"n": 9}
        assert await statuses(first, *found) == ["succeeded"] * 10
        assert keys(first) == [KEY]
        await check_laws(first)


# --- the owner's end -----------------------------------------------------------------------------------------------


async def test_waiter_waits_while_the_owner_is_in_doubt_and_shares_the_persons_word(ledger: World) -> None:
    definition = keyed(step={"on_unknown_outcome": "ask"})
    ledger.tools.script["do"] = [unknown()]
    worker = await ledger.worker()
    owner = await submit(ledger, "owner", definition)
    waiter = await submit(ledger, "waiter", definition)
    await go(ledger, worker)

    between = await held(ledger, waiter)
    await settle(ledger, owner, "happened", result={"id": 7})
    await go(ledger, worker)

    assert between == "attached"
    assert (await ledger.step(waiter, "s"))["output"] == {"id": 7}
    assert len(keys(ledger)) == 1


async def test_first_of_ten_waiters_takes_over_when_the_owner_failed_and_the_others_share(ledger: World) -> None:
    ledger.tools.script["do"] = [refused(422), {"id": 7}]
    worker = await ledger.worker()
    owner = await submit(ledger, "owner")
    waiters = [await submit(ledger, f"w{n}") for n in range(10)]

    await go(ledger, worker)

    assert await statuses(ledger, owner) == ["failed"]
    assert await statuses(ledger, *waiters) == ["succeeded"] * 10
    assert keys(ledger) == [KEY, f"{KEY}#2"]
    assert sum([(await ledger.workflow(w))["effects_done"] for w in waiters]) == 1


async def test_generation_goes_on_when_one_owner_after_the_other_fails(ledger: World) -> None:
    ledger.tools.script["do"] = [refused(422)] * 3
    worker = await ledger.worker()
    found = [await submit(ledger, f"w{n}") for n in range(3)]

    await go(ledger, worker)

    assert await statuses(ledger, *found) == ["failed"] * 3
    assert keys(ledger) == [KEY, f"{KEY}#2", f"{KEY}#3"]


async def test_waiter_takes_over_when_the_owner_is_cancelled_before_it_sent(ledger: World) -> None:
    owner, waiter, worker = await owned(ledger)

    await stop(ledger, owner)
    await go(ledger, worker)

    assert await statuses(ledger, owner, waiter) == ["cancelled", "succeeded"]
    assert keys(ledger) == [f"{KEY}#2"]


async def test_waiter_conflicts_when_it_was_given_up_whether_the_owner_did_it(ledger: World) -> None:
    definition = keyed(step={"on_unknown_outcome": "abandon"})
    ledger.tools.script["do"] = [unknown()]
    worker = await ledger.worker()
    await submit(ledger, "owner", definition)
    waiter = await submit(ledger, "waiter", definition)

    await go(ledger, worker)
    late = await submit(ledger, "late", definition)

    failures = [(await ledger.workflow(each))["failure"] for each in (waiter, late)]
    assert [failure["kind"] for failure in failures] == ["key_conflict"] * 2
    assert "given up" in failures[0]["message"]
    assert len(keys(ledger)) == 1


async def test_effect_that_its_owner_undid_is_done_again_under_the_next_generation(ledger: World) -> None:
    ledger.tools.script |= {"do": [{"id": 7}, {"id": 8}], "fail": [refused(404)]}
    worker = await ledger.worker()
    owner = await submit(ledger, "owner", undoable(fails=True))
    await go(ledger, worker)

    late = await submit(ledger, "late", undoable(fails=False))
    await go(ledger, worker)

    assert (await ledger.workflow(owner))["compensation"] == "done"
    assert (await ledger.step(late, "s"))["output"] == {"id": 8}
    assert keys(ledger) == [KEY, f"{KEY}#2"]


async def undo_fails(world: World) -> tuple[UUID, UUID, Worker]:
    """An owner whose undo was refused, and somebody who came while it was being undone."""
    world.tools.script |= {"do": [{"id": 7}, {"id": 8}], "fail": [refused(404)], "undo": [refused(422)]}
    worker = await world.worker()
    owner = await submit(world, "owner", undoable(fails=True))
    while (await world.workflow(owner))["status"] != "compensating":
        await world.once(worker)
    waiter = await submit(world, "waiter")
    assert await held(world, waiter) == "attached"
    await go(world, worker)
    return owner, waiter, worker


async def test_who_comes_while_the_effect_is_being_undone_waits_until_that_is_settled(ledger: World) -> None:
    owner, waiter, worker = await undo_fails(ledger)

    await ledger.ripen(worker, "attached")
    between = await held(ledger, waiter)
    call = await ledger.call(owner, "s")
    await compensate.settle_undo(ledger.api, ids.DEFAULT_TENANT, call["id"], action="done", note="by hand", by="kim")
    await go(ledger, worker)

    assert (between, call["undo"]) == ("attached", "failed")
    assert (await ledger.step(waiter, "s"))["output"] == {"id": 8}
    assert keys(ledger) == [KEY, f"{KEY}#2"]


async def test_who_waits_for_an_undo_shares_the_effect_when_it_is_kept_after_all(ledger: World) -> None:
    owner, waiter, worker = await undo_fails(ledger)

    call = await ledger.call(owner, "s")
    await compensate.settle_undo(ledger.api, ids.DEFAULT_TENANT, call["id"], action="skip", note="keep it", by="kim")
    await ledger.ripen(worker, "attached")

    assert (await ledger.step(waiter, "s"))["output"] == {"id": 7}
    assert keys(ledger) == [KEY]


async def test_waiter_has_the_result_of_an_owner_whose_step_had_run_out_of_time(ledger: World) -> None:
    worker = await ledger.worker()
    owner = await submit(ledger, "owner", keyed(step={"timeout": "1m"}))
    waiter = await submit(ledger, "waiter")

    async def late() -> Answer:
        await ledger.ripen(worker, "step_timeout")
        return ok({"id": 7})

    ledger.tools.script["do"] = [lambda _: late()]
    await go(ledger, worker)

    assert await statuses(ledger, owner, waiter) == ["failed", "succeeded"]
    assert (await ledger.step(waiter, "s"))["output"] == {"id": 7}
