"""Orders of events that nobody hopes for: two doubts of one turn, keys wanted by a workflow that fails, poison in a
drain, a person's word that was wrong. Each of these once broke a promise."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from app.domain import ids
from app.engine import cancel, record, resolve
from tests.engine.world import Worker, World, ok, one, refused, settle, tool, unknown, uses


async def resolve_call(world: World, call_id: UUID, outcome: str) -> None:
    await resolve.resolve(world.api, ids.DEFAULT_TENANT, call_id, outcome=outcome, result=None, note="looked", by="kim")


def pair(**step: Any) -> dict[str, Any]:
    """An agent with two effects that nobody can repeat."""
    return {
        "name": "pair",
        "tools": {"do": tool("at_most_once"), "tell": tool("at_most_once")},
        "steps": {"a": {"agent": {"model": "fast", "tools": ["do", "tell"]}, "prompt": "Both.", **step}},
    }


async def two_doubts(world: World, **step: Any) -> tuple[UUID, Worker]:
    world.model.answers = [uses(("do", {"n": 1}), ("tell", {"n": 2}))]
    world.tools.script |= {"do": [unknown()], "tell": [unknown()]}
    worker = await world.worker()
    workflow_id = await world.submit(pair(**step))
    await world.run(worker)
    return workflow_id, worker


async def test_both_doubts_of_one_turn_can_be_given_up(small_world: World) -> None:
    workflow_id, _ = await two_doubts(small_world)

    for n in (2, 3):
        await resolve_call(small_world, (await small_world.call(workflow_id, "a", n))["id"], "abandon")

    workflow = await small_world.workflow(workflow_id)
    assert (workflow["status"], workflow["doubts"]) == ("failed", 0)


async def test_step_that_may_fail_waits_for_the_other_doubt_of_its_turn(small_world: World) -> None:
    workflow_id, worker = await two_doubts(small_world, on_error="continue")

    await resolve_call(small_world, (await small_world.call(workflow_id, "a", 2))["id"], "abandon")
    between = await small_world.workflow(workflow_id)
    await resolve_call(small_world, (await small_world.call(workflow_id, "a", 3))["id"], "happened")
    await small_world.run(worker)

    assert (between["status"], between["doubts"]) == ("waiting", 1)
    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"
    assert (await small_world.step(workflow_id, "a"))["state"] == "failed"


async def test_workflow_that_fails_as_it_begins_keeps_no_business_key(small_world: World) -> None:
    definition = one("keyed", key="meeting:7")
    definition["steps"]["wrong"] = {"set": {"x": "${{ input.missing.name }}"}}
    worker = await small_world.worker()

    first = await small_world.submit(definition, key="a")
    second = await small_world.submit(one("keyed", key="meeting:7"), key="b")
    await small_world.run(worker)

    assert (await small_world.workflow(first))["status"] == "failed"
    assert (await small_world.workflow(second))["status"] == "succeeded"
    assert [request.key for request in small_world.tools.ledger] == ["meeting:7"]


async def test_failing_workflow_starts_no_keyed_effect_beside_one_in_flight(small_world: World) -> None:
    """One outcome makes a keyed step ready, another fails the workflow, in one transaction; a third is in doubt."""
    definition = {
        "name": "late-key",
        "tools": {
            "do": tool("keyed"),
            "look": tool("read_only"),
            "fail": tool("read_only"),
            "doubt": tool("at_most_once"),
        },
        "steps": {
            "d": {"tool": "doubt", "with": {}},
            "x": {"tool": "look", "with": {}},
            "y": {"tool": "fail", "with": {}},
            "s": {"needs": ["x"], "tool": "do", "with": {"n": 1}, "idempotency_key": "meeting:7"},
        },
    }
    small_world.tools.script["doubt"] = [unknown()]
    worker = await small_world.worker()
    workflow_id = await small_world.submit(definition)
    await worker.run((await small_world.call(workflow_id, "d"))["id"])
    outcomes = {"x": ok(1), "y": refused(404)}
    batch = []
    for step, outcome in outcomes.items():
        claimed = await worker.claim((await small_world.call(workflow_id, step))["id"])
        fact = record.CallSettled(
            call_id=claimed.call_id, attempt_id=claimed.attempt_id, step=claimed.step, outcome=outcome
        )
        batch.append(record.Settled(workflow_id=workflow_id, fact=fact))

    await record.record_batch(worker.services, batch)
    await small_world.run(worker)

    assert (await small_world.workflow(workflow_id))["status"] == "failing"
    assert small_world.tools.sent("do") == []
    assert await small_world.rows("SELECT * FROM effect_keys WHERE released_at IS NULL") == []


async def test_business_key_goes_on_after_the_last_generation_that_was_sent(small_world: World) -> None:
    """Each definite failure was answered under its own key: the next owner must not repeat any of them."""
    small_world.tools.script["do"] = [refused(500), refused(500)]
    definition = one("keyed", key="meeting:7")
    definition["steps"]["s"]["retry"] = {"tool_error": {"max_retries": 1}}
    worker = await small_world.worker()

    await small_world.submit(definition, key="a")
    await small_world.run(worker)
    await small_world.submit(definition, key="b")
    await small_world.run(worker)

    assert [request.key for request in small_world.tools.ledger] == ["meeting:7", "meeting:7#2", "meeting:7#3"]


async def lose_again_and_again(world: World, call_id: UUID, *, times: int) -> None:
    survivor = await world.worker("survivor")
    for n in range(times):
        doomed = await world.worker(f"doomed.{n}")
        await doomed.claim(call_id)
        await world.lose(doomed)
        await world.sweep(survivor)


async def test_poisoned_call_of_a_draining_workflow_is_a_doubt_that_a_person_can_settle(small_world: World) -> None:
    workflow_id = await small_world.submit(one("idempotent"))
    [call_id] = await small_world.due_calls()
    await lose_again_and_again(small_world, call_id, times=1)

    await cancel.cancel(small_world.api, ids.DEFAULT_TENANT, workflow_id, reason=None, by="kim")
    await lose_again_and_again(small_world, call_id, times=small_world.settings.poison_after)
    between = await small_world.call(workflow_id, "s")
    await settle(small_world, workflow_id, "happened")

    assert between["state"] == "in_doubt"
    assert (await small_world.workflow(workflow_id))["status"] == "cancelled"


async def test_answer_against_the_word_that_it_did_not_happen_is_told_while_the_repeat_runs(small_world: World) -> None:
    first, second = await small_world.worker("one"), await small_world.worker("two")
    workflow_id = await small_world.submit(one("at_most_once"))
    [call_id] = await small_world.due_calls()
    lost = await first.claim(call_id)
    await small_world.lose(first)
    await small_world.silence()
    await small_world.sweep(second)
    await small_world.end_quarantines()
    await settle(small_world, workflow_id, "did_not_happen")

    await second.claim(call_id)
    await record.record(second.services, lost, ok({"id": 1}))

    assert (await small_world.workflow(workflow_id))["attention"] == ["contradicted"]
    assert "effect.contradicted" in await small_world.events(workflow_id)


async def test_timers_that_have_nothing_more_to_say_are_gone(small_world: World) -> None:
    """A drain may wait days for a person: its deadline and its steps' timeouts must not be rung all the while."""
    small_world.tools.script["do"] = [unknown(), unknown()]
    definition = one("at_most_once")
    definition["steps"]["s"]["timeout"] = "1m"
    worker = await small_world.worker()
    workflow_id = await small_world.submit(definition)
    await small_world.run(worker)

    for kind in ("step_timeout", "deadline"):
        await small_world.rows("UPDATE dues SET ring_at = clock_timestamp() WHERE kind = %s", kind)
        await small_world.sweep(worker)

    assert (await small_world.workflow(workflow_id))["status"] == "failing"
    assert await small_world.rows("SELECT * FROM dues") == []


async def test_evidence_is_kept_even_when_the_disk_has_no_room_for_it_at_first(small_world: World) -> None:
    worker = await small_world.worker()
    workflow_id = await small_world.submit(one("at_most_once"))
    [call_id] = await small_world.due_calls()
    claimed = await worker.claim(call_id)
    # The first three tries (batch, alone, evidence alone) find the disk full, as sequences are not rolled back.
    await small_world.rows(
        "CREATE SEQUENCE tries; CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF nextval('tries') <= 3 THEN RAISE disk_full; END IF; RETURN NEW; END $$; "
        "CREATE TRIGGER full_disk BEFORE UPDATE ON attempts FOR EACH ROW EXECUTE FUNCTION full_disk()"
    )

    await record.record(worker.services, claimed, ok({"id": 1}))

    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"


async def test_items_that_were_never_begun_are_cancelled_with_their_failed_step(small_world: World) -> None:
    definition = {
        "name": "fan",
        "tools": {"do": tool("idempotent")},
        "steps": {
            "each": {
                "for_each": "${{ input.names }}",
                "max_parallel": 1,
                "on_error": "continue",
                "tool": "do",
                "with": {"name": "${{ item }}"},
            }
        },
    }
    small_world.tools.script["do"] = [refused(404)]
    worker = await small_world.worker()
    workflow_id = await small_world.submit(definition, input={"names": ["a", "b", "c"]})

    await small_world.run(worker)

    states = await small_world.rows("SELECT state FROM steps WHERE parent = 'each' ORDER BY item_index")
    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"
    assert [row["state"] for row in states] == ["failed", "cancelled", "cancelled"]
