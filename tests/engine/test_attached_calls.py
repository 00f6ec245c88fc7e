"""Calls that are attached to the owner of their key: cancelled, paused, edited, and in a race with its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import psycopg
import pytest

from app.domain import ids
from app.domain.facts import OwnerLooked, StepTimedOut
from app.engine import decide_approval, pause, record, sweep
from tests.engine.ledger_laws import check_laws
from tests.engine.locks import until_waiting
from tests.engine.owning import KEY, go, held, keyed, keys, owned, statuses, stop, submit
from tests.engine.world import Worker, World, ok, refused, tool


@pytest.fixture
async def ledger(small_world: World) -> AsyncIterator[World]:
    yield small_world
    await check_laws(small_world)


# --- the waiter ----------------------------------------------------------------------------------------------------


async def test_cancelled_waiter_leaves_the_key_to_its_owner(ledger: World) -> None:
    owner, waiter, worker = await owned(ledger, {"id": 7})

    await stop(ledger, waiter)
    await go(ledger, worker)

    assert await statuses(ledger, owner, waiter) == ["succeeded", "cancelled"]
    assert keys(ledger) == [KEY]


async def test_paused_waiter_shares_the_result_and_starts_nothing_else(ledger: World) -> None:
    definition = keyed()
    definition["tools"]["next"] = tool("idempotent")
    definition["steps"]["t"] = {"needs": ["s"], "tool": "next", "with": {}}
    worker = await ledger.worker()
    await submit(ledger, "owner")
    waiter = await submit(ledger, "waiter", definition)

    await pause.pause(ledger.api, ids.DEFAULT_TENANT, waiter, reason=None, by="kim")
    await go(ledger, worker)

    assert (await ledger.step(waiter, "s"))["state"] == "succeeded"
    assert (await ledger.call(waiter, "t"))["held_reason"] == "pause"
    assert ledger.tools.sent("next") == []


async def test_paused_waiter_that_takes_over_sends_nothing_before_it_is_resumed(ledger: World) -> None:
    _, waiter, worker = await owned(ledger, refused(422), {"id": 7})

    await pause.pause(ledger.api, ids.DEFAULT_TENANT, waiter, reason=None, by="kim")
    await go(ledger, worker)
    paused = (await held(ledger, waiter), keys(ledger))
    await pause.resume(ledger.api, ids.DEFAULT_TENANT, waiter, reason=None, by="kim")
    await go(ledger, worker)

    assert paused == ("pause", [KEY])
    assert keys(ledger) == [KEY, f"{KEY}#2"]
    assert await statuses(ledger, waiter) == ["succeeded"]


async def test_waiter_that_took_over_keeps_its_key_when_its_worker_is_lost(ledger: World) -> None:
    owner, waiter, worker = await owned(ledger)
    doomed = await ledger.worker("doomed")
    await stop(ledger, owner)
    await ledger.sweep(worker)
    [call_id] = await ledger.due_calls()

    await doomed.claim(call_id)
    await ledger.lose(doomed)
    await ledger.sweep(worker)
    await go(ledger, worker)

    assert await statuses(ledger, waiter) == ["succeeded"]
    assert keys(ledger) == [f"{KEY}#2"]


async def test_key_is_not_taken_for_a_step_whose_time_is_up_in_the_same_decision(ledger: World) -> None:
    """Else it would belong for ever to a call that was never made."""
    worker = await ledger.worker()
    definition = keyed(step={"timeout": "1m", "on_error": "continue"})
    definition["steps"]["other"] = {"approval": {"title": "Go?"}}
    owner = await submit(ledger, "owner")
    waiter = await submit(ledger, "waiter", definition)
    await stop(ledger, owner)
    call = await ledger.call(waiter, "s")
    looked = OwnerLooked(call_id=call["id"], step="s", owner=None, state=None, undo="none", result=None)

    await sweep.bring(worker.services, {waiter: [looked, StepTimedOut(step="s")]})
    late = await submit(ledger, "late")
    await go(ledger, worker)

    assert await statuses(ledger, waiter, late) == ["waiting", "succeeded"]
    assert keys(ledger) == [f"{KEY}#2"]


# --- edits ---------------------------------------------------------------------------------------------------------


async def edit(world: World, values: dict[str, Any]) -> None:
    approval = await world.row("SELECT * FROM approvals WHERE status = 'open'")
    await decide_approval.decide(
        world.api, ids.DEFAULT_TENANT, approval["id"], decision="edit", values=values, comment=None,
        revision=approval["revision"], by="kim",
    )  # fmt: skip


async def test_edited_call_takes_the_key_with_it_and_who_wanted_the_old_arguments_conflicts(ledger: World) -> None:
    ledger.tools.script["do"] = [{"id": 7}]
    worker = await ledger.worker()
    asked = keyed(approve="always")
    owner = await submit(ledger, "owner", asked)
    waiter = await submit(ledger, "waiter", asked)

    await edit(ledger, {"n": 2})
    await go(ledger, worker)
    same = await submit(ledger, "same", keyed(n=2))

    assert [(request.key, request.arguments) for request in ledger.tools.ledger] == [(KEY, {"n": 2})]
    assert await statuses(ledger, owner, waiter, same) == ["succeeded", "failed", "succeeded"]
    assert (await ledger.workflow(waiter))["failure"]["kind"] == "key_conflict"
    assert (await ledger.step(same, "s"))["output"] == {"id": 7}


async def test_waiter_asks_for_its_own_approval_when_the_owner_was_rejected(ledger: World) -> None:
    worker = await ledger.worker()
    asked = keyed(approve="always")
    owner = await submit(ledger, "owner", asked)
    waiter = await submit(ledger, "waiter", asked)
    approval = await ledger.row("SELECT * FROM approvals")

    await decide_approval.decide(
        ledger.api, ids.DEFAULT_TENANT, approval["id"], decision="reject", values=None, comment=None,
        revision=approval["revision"], by="kim",
    )  # fmt: skip
    await go(ledger, worker)

    assert await statuses(ledger, owner) == ["failed"]
    assert await held(ledger, waiter) == "approval"
    assert ledger.tools.ledger == []


# --- races on real connections -------------------------------------------------------------------------------------

GATE = 7
"""An advisory lock that the test holds: who comes to the trigger waits for it."""


async def gate(world: World, *, table: str, event: str, when: str) -> None:
    row = "OLD" if event == "DELETE" else "NEW"
    await world.rows(
        "CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"PERFORM pg_advisory_xact_lock_shared({GATE}); RETURN {row}; END $$; "
        f"CREATE TRIGGER gate BEFORE {event} ON {table} FOR EACH ROW WHEN ({row}.{when}) EXECUTE FUNCTION gate()"
    )


async def attach_and_end(world: World, first: str) -> tuple[UUID, UUID, Worker]:
    """The one that is first stops before its commit; the other begins; then both go on."""
    async with await psycopg.AsyncConnection.connect(world.url, autocommit=True) as holder:
        worker = await world.worker()
        owner = await submit(world, "owner")
        claimed = await worker.claim((await world.call(owner, "s"))["id"])
        await holder.execute("SELECT pg_advisory_lock(%s)", (GATE,))
        if first == "attach":
            await gate(world, table="calls", event="INSERT", when="held_reason = 'attached'")
        else:
            await gate(world, table="dues", event="DELETE", when="kind = 'deadline'")

        def attach() -> asyncio.Task[UUID]:
            return asyncio.create_task(submit(world, "waiter"))

        def end() -> asyncio.Task[None]:
            return asyncio.create_task(record.record(worker.services, claimed, ok({"id": 7})))

        if first == "attach":
            attaching = attach()
            # Not the batch, which gives its locks up after a moment: the end would find nobody before it.
            await until_waiting(world, 1, purpose="submit-alone")
            ending = end()
        else:
            ending = end()
            await until_waiting(world, 1)
            attaching = attach()
        await until_waiting(world, 2)
        await holder.execute("SELECT pg_advisory_unlock(%s)", (GATE,))
        waiter = await attaching
        await ending
    return owner, waiter, worker


@pytest.mark.parametrize("first", ["attach", "end"])
async def test_nobody_is_left_attached_when_the_owner_ends_meanwhile(ledger: World, first: str) -> None:
    owner, waiter, worker = await attach_and_end(ledger, first)

    await ledger.sweep(worker)

    assert await statuses(ledger, owner, waiter) == ["succeeded", "succeeded"]
    assert (await ledger.step(waiter, "s"))["output"] == {"id": 7}
    assert keys(ledger) == []  # sent by hand, in attach_and_end


async def test_look_that_was_out_of_date_does_not_put_the_waiter_to_sleep(ledger: World) -> None:
    """The owner ended between the sweep's look and its decision."""
    owner, waiter, worker = await owned(ledger, {"id": 7})
    owning, call = await ledger.call(owner, "s"), await ledger.call(waiter, "s")
    looked = OwnerLooked(call_id=call["id"], step="s", owner=owning["id"], state="intended", undo="none", result=None)
    await ledger.run(worker)

    await sweep.bring(worker.services, {waiter: [looked]})

    assert await statuses(ledger, waiter) == ["succeeded"]


async def test_end_that_nobody_told_is_found_by_the_sweep(ledger: World) -> None:
    _, waiter, worker = await owned(ledger, {"id": 7})
    await ledger.run(worker)
    await ledger.rows("UPDATE dues SET due_at = due_at + interval '1 min', ring_at = ring_at + interval '1 min'")

    await ledger.sweep(worker)
    before = await held(ledger, waiter)
    await ledger.ripen(worker, "attached")

    assert before == "attached"
    assert await statuses(ledger, waiter) == ["succeeded"]
