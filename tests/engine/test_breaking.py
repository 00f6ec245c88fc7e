"""A tool that is down is left in peace: by all workers, with one canary at a time, and nobody else notices."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any
from uuid import UUID

from app.domain import ids
from app.domain.states import FailureKind
from app.engine import claim, depend
from app.store import breakers
from tests.engine.operations import cancelled
from tests.engine.outages import (
    AGENT,
    Outage,
    asks,
    breaker,
    held,
    look_at_all,
    opened,
    pass_the_pause,
    refused_by_provider,
    statuses,
    swept,
)
from tests.engine.world import World, not_sent, ok, refused, unknown

PLACE = (ids.DEFAULT_TENANT, "tool:do")


async def fresh(world: World, key: str = "fresh") -> UUID:
    """The call of another workflow that asks the same tool; due, and never tried."""
    return UUID(str((await world.call(await world.submit(asks(), key=key), "s"))["id"]))


async def owner(world: World, call: UUID) -> UUID:
    return UUID(str((await world.row("SELECT workflow_id FROM calls WHERE id = %s", call))["workflow_id"]))


async def test_breaker_opened_by_one_worker_holds_the_calls_of_another(small_world: World) -> None:
    first, second = await small_world.worker("worker.1"), await small_world.worker("worker.2")
    outage = Outage(small_world)
    await opened(small_world, first)
    asked = outage.requests

    sixth = await small_world.submit(asks(), key="sixth")
    await small_world.run(second, hurry=False)

    row, call = await breaker(small_world), await small_world.call(sixth, "s")
    assert (row["state"], row["failures"], row["kind"]) == ("open", 5, "network")
    assert (call["state"], call["held_reason"], call["attempts"]) == ("held", "breaker", 0)
    assert outage.requests == asked == 5
    assert call["recovery"][0]["rule"] == "breaker"
    assert call["recovery"][0]["message"].startswith("do failed 5 of 5 times since")


async def test_failed_call_is_held_by_the_record_that_opened_the_breaker(small_world: World) -> None:
    worker = await small_world.worker()
    Outage(small_world)

    workflows = await opened(small_world, worker)

    calls = [await small_world.call(each, "s") for each in workflows]
    assert "breaker" in [call["held_reason"] for call in calls]
    last = next(call for call in calls if call["held_reason"] == "breaker")
    assert [record["rule"] for record in last["recovery"]] == ["transient", "breaker"]


async def test_canary_that_is_answered_sets_everybody_free(small_world: World) -> None:
    worker = await small_world.worker()
    outage = Outage(small_world)
    await opened(small_world, worker, n=12)
    await small_world.hurry()
    await small_world.run(worker, hurry=False)
    before = await held(small_world)

    outage.over = True
    await pass_the_pause(small_world)
    await swept(small_world, worker)
    after_canary = await breaker(small_world)
    soon = "SELECT max(ring_at) < clock_timestamp() + interval '2 seconds' AS soon FROM dues WHERE kind = 'dependency'"
    woken = await small_world.row(soon)
    while await held(small_world):
        await look_at_all(small_world)
        await swept(small_world, worker)

    assert (before, after_canary["state"], woken["soon"]) == (12, "closed", True)
    assert await statuses(small_world) == {"succeeded": 12}


async def test_one_canary_passes_of_twenty_that_ask_at_once(small_world: World) -> None:
    workers = [await small_world.worker("worker.1"), await small_world.worker("worker.2")]
    outage = Outage(small_world)
    await opened(small_world, workers[0])
    asked = outage.requests
    for n in range(20):
        await small_world.submit(asks(), key=f"more-{n}")
    # The breaker's pause is over, and nobody has looked yet: all twenty find it so at once.
    await small_world.rows("UPDATE breakers SET until = clock_timestamp()")

    due = await small_world.due_calls()
    await asyncio.gather(*(workers[n % 2].run(call) for n, call in enumerate(due)))

    row = await breaker(small_world)
    assert outage.requests - asked == 1
    assert (row["state"], row["opened"], row["canary"]) == ("open", 2, None)


async def test_canary_that_fails_leaves_the_others_in_peace_for_longer(small_world: World) -> None:
    worker = await small_world.worker()
    outage = Outage(small_world)
    await opened(small_world, worker, n=8)
    await small_world.hurry()
    await small_world.run(worker, hurry=False)
    asked = outage.requests

    await pass_the_pause(small_world)
    await swept(small_world, worker)

    row = await breaker(small_world)
    assert (outage.requests - asked, row["state"], row["opened"]) == (1, "open", 2)
    assert (row["until"] - row["updated_at"]).total_seconds() == 10
    assert await held(small_world) == 8


async def test_dead_canary_gives_its_place_to_the_next(small_world: World) -> None:
    victim, worker = await small_world.worker("victim"), await small_world.worker("worker")
    outage = Outage(small_world)
    await opened(small_world, worker)
    first, second, third = [await fresh(small_world, key) for key in "abc"]
    await small_world.rows("UPDATE breakers SET until = clock_timestamp()")

    claimed = await victim.claim(first)
    granted = await depend.stand_back(victim.services, claimed)
    await victim.claim(first)  # claimed as the canary, and the process dies
    await small_world.rows("UPDATE breakers SET canary_until = clock_timestamp()")
    await worker.run(second)
    while_it_seems_alive = outage.requests
    await small_world.lose(victim, proof=True)
    outage.over = True
    await worker.run(third)

    assert (granted, while_it_seems_alive, outage.requests) == (True, 5, 6)
    assert (await breaker(small_world))["state"] == "closed"


async def test_canary_granted_and_never_claimed_gives_its_place_up_after_its_time(small_world: World) -> None:
    victim, worker = await small_world.worker("victim"), await small_world.worker("worker")
    outage = Outage(small_world)
    await opened(small_world, worker)
    first, second = [await fresh(small_world, key) for key in "ab"]
    await small_world.rows("UPDATE breakers SET until = clock_timestamp()")

    await depend.stand_back(victim.services, await victim.claim(first))
    await worker.run(second)
    in_its_time = outage.requests
    await cancelled(small_world, await owner(small_world, first))
    await small_world.rows("UPDATE breakers SET canary_until = clock_timestamp()")
    outage.over = True
    await look_at_all(small_world)
    await swept(small_world, worker)

    assert in_its_time == 5
    assert (await breaker(small_world))["state"] == "closed"


async def test_canary_that_was_not_sent_closes_nothing(small_world: World) -> None:
    worker = await small_world.worker()
    Outage(small_world)
    await opened(small_world, worker)
    call = await fresh(small_world)
    await small_world.rows("UPDATE breakers SET until = clock_timestamp()")

    small_world.tools.script["do"] = [not_sent(FailureKind.WORKER_LOST)]  # its worker could not prove its lease
    await worker.run(call)

    row = await breaker(small_world)
    assert (row["state"], row["canary"], row["until"] > row["updated_at"]) == ("half_open", None, True)


async def test_herd_is_let_go_fifty_a_second_and_each_tenant_in_its_turn(small_world: World) -> None:
    worker = await small_world.worker()
    small_world.model.answers = [refused_by_provider(FailureKind.AUTH)]
    await small_world.submit(AGENT, key="first")
    await small_world.run(worker, hurry=False)
    for n in range(119):
        await small_world.submit(AGENT, key=str(n))
    await small_world.run(worker, hurry=False)
    waiting = await held(small_world)
    late = "SELECT ref FROM dues WHERE kind = 'dependency' ORDER BY due_at DESC, ref DESC LIMIT 1"
    youngest = (await small_world.row(late))["ref"]
    other = ids.derived("another tenant")
    await small_world.rows("UPDATE dues SET tenant_id = %s WHERE kind = 'dependency' AND ref = %s", other, youngest)

    await depend.reset(worker.services, ids.DEFAULT_TENANT, scope="model:none/*", by="kim")

    went = await small_world.rows(
        "SELECT ref, round(extract(epoch FROM ring_at - min(ring_at) OVER ()))::int AS second "
        "FROM dues WHERE kind = 'dependency'"
    )
    assert waiting == 120
    assert Counter(row["second"] for row in went) == {0: 50, 1: 50, 2: 20}
    assert [row["second"] for row in went if row["ref"] == youngest] == [0]


async def test_breaker_that_closed_between_the_claim_and_the_holding_holds_nothing(small_world: World) -> None:
    worker = await small_world.worker()
    outage = Outage(small_world)
    await opened(small_world, worker)
    call = await fresh(small_world)
    claimed = await worker.claim(call)

    await depend.reset(worker.services, ids.DEFAULT_TENANT, scope="tool:do", by="kim")
    outage.over = True
    may_be_claimed = await depend.stand_back(worker.services, claimed)
    await worker.run(call)

    assert (claimed.stands, may_be_claimed) == (["tool:do"], True)
    assert (await small_world.row("SELECT state FROM calls WHERE id = %s", call))["state"] == "succeeded"


async def test_call_that_may_have_happened_stays_due_and_a_cancel_makes_no_doubt_of_it(small_world: World) -> None:
    worker = await small_world.worker()
    small_world.tools.script["do"] = [unknown()]
    document = asks(effect="keyed")
    document["steps"]["s"]["retry"]["transient"]["backoff"] = {"first": "1h", "max": "1h"}
    maybe = await small_world.submit(document, key="maybe")
    await small_world.run(worker, hurry=False)
    outage = Outage(small_world)
    await opened(small_world, worker)
    asked = outage.requests

    await small_world.hurry()
    await small_world.run(worker, hurry=False)
    call = await small_world.call(maybe, "s")
    await cancelled(small_world, maybe)

    assert (call["state"], call["attempts"], outage.requests) == ("due", 1, asked)
    assert call["recovery"][-1]["rule"] == "breaker"
    assert (await small_world.call(maybe, "s"))["state"] == "due"
    assert (await small_world.workflow(maybe))["status"] == "cancelling"


async def test_failures_that_the_tool_answers_open_nothing(small_world: World) -> None:
    worker = await small_world.worker()
    small_world.tools.script["do"] = [refused(404)] * 20

    for n in range(20):
        await small_world.submit(asks(), key=str(n))
    await small_world.run(worker, hurry=False)

    assert await small_world.rows("SELECT 1 AS one FROM breakers") == []


async def test_successes_write_nothing_and_are_weighed_when_one_fails(small_world: World) -> None:
    worker = await small_world.worker()
    small_world.tools.script["do"] = [{"ok": True}] * 30 + [unknown()] * 6
    for n in range(30):
        await small_world.submit(asks(), key=str(n))
    await small_world.run(worker, hurry=False)
    healthy = await small_world.rows("SELECT 1 AS one FROM breakers")

    for n in range(6):
        await small_world.submit(asks(), key=f"late-{n}")
    await small_world.run(worker, hurry=False)

    row = await breaker(small_world)
    assert healthy == []
    assert (row["state"], row["failures"], row["successes"]) == ("closed", 6, 30)


async def test_workflows_beside_a_dead_tool_are_neither_held_nor_told_of_it(small_world: World) -> None:
    worker = await small_world.worker()
    Outage(small_world)

    async def beside(n: int) -> int:
        """How many events 10 workflows of another tool have: the same attempts, and nothing of them waits."""
        found = [await small_world.submit(asks("other"), key=f"other-{n}-{k}") for k in range(10)]
        await small_world.run(worker, hurry=False)
        rows = await small_world.row("SELECT count(*) AS attempts FROM attempts WHERE workflow_id = ANY(%s)", found)
        held_beside = await small_world.row(
            "SELECT count(*) AS n FROM dues WHERE kind = 'dependency' AND workflow_id = ANY(%s)", found
        )
        assert (rows["attempts"], held_beside["n"]) == (10, 0)
        return len(await small_world.rows("SELECT 1 AS one FROM events WHERE workflow_id = ANY(%s)", found))

    healthy = await beside(0)
    await opened(small_world, worker, n=200)
    in_the_outage = await beside(1)

    assert in_the_outage == healthy
    assert (await breaker(small_world))["state"] == "open"


async def test_flood_against_a_dead_tool_asks_it_a_handful_of_times_and_all_end_when_it_is_back(
    small_world: World,
) -> None:
    workers = [await small_world.worker("worker.1"), await small_world.worker("worker.2")]
    outage = Outage(small_world)
    for n in range(100):
        await small_world.submit(asks(), key=str(n))

    async def all_try() -> None:
        due = await small_world.due_calls()
        for start in range(0, len(due), 10):
            part = due[start : start + 10]
            await asyncio.gather(*(workers[k % 2].run(call) for k, call in enumerate(part)))

    for _ in range(3):
        await all_try()
        await small_world.hurry()
    for _ in range(3):  # canaries
        await pass_the_pause(small_world)
        await swept(small_world, workers[0])
    asked = outage.requests
    waiting = await statuses(small_world)
    outage.over = True
    for _ in range(8):
        await pass_the_pause(small_world)
        await swept(small_world, workers[1])
        await small_world.hurry()

    assert asked <= 10 + 3  # those under way when it opened, and one canary each time
    assert waiting == {"waiting": 100}
    assert await statuses(small_world) == {"succeeded": 100}


async def test_repeats_beyond_the_retry_budget_wait_and_say_so(database_url: str) -> None:
    world = World(database_url, breaker_failures=0, retry_burst=2, retry_rate=0.5)
    worker = await world.worker()
    Outage(world)

    workflows = [await world.submit(asks(), key=str(n)) for n in range(4)]
    for call in await world.due_calls():
        await worker.run(call)

    rules: list[list[Any]] = []
    for each in workflows:
        call = await world.call(each, "s")
        rules.append(sorted((record["rule"], record["waited_ms"] >= 1000) for record in call["recovery"]))
    assert sorted(rules) == [
        [("retry_budget", True), ("transient", False)],
        [("retry_budget", True), ("transient", False)],
        [("transient", False)],
        [("transient", False)],
    ]
    assert (await world.row("SELECT min(d.due_at) > clock_timestamp() AS late FROM dues d JOIN calls c ON c.id = d.ref "
                            "WHERE d.kind = 'call' AND jsonb_array_length(c.recovery) = 2"))["late"]  # fmt: skip
    await world.close()


async def test_repeated_claim_of_a_canary_whose_commit_reply_was_lost_is_still_the_canary(small_world: World) -> None:
    worker = await small_world.worker()
    Outage(small_world)
    await opened(small_world, worker)
    call = await fresh(small_world)
    await small_world.rows("UPDATE breakers SET until = clock_timestamp()")
    await depend.stand_back(worker.services, await worker.claim(call))
    asked = claim.Asked(call_id=call, attempt_id=ids.derived("attempt"))

    [(first, _)] = await claim.claim(worker.services, [asked])
    [(again, _)] = await claim.claim(worker.services, [asked])

    assert first is not None
    assert again is not None
    assert (first.canary_of, again.canary_of, again.stands) == (["tool:do"], ["tool:do"], None)


async def test_breaker_that_closed_long_ago_is_forgotten(small_world: World) -> None:
    worker = await small_world.worker()
    Outage(small_world)
    await opened(small_world, worker)
    await depend.reset(worker.services, ids.DEFAULT_TENANT, scope="tool:do", by="kim")
    small_world.tools.script["do"] = [unknown(), ok({})]
    await small_world.submit(asks(), key="a")
    await small_world.run(worker, hurry=False)
    await small_world.rows("UPDATE breakers SET updated_at = clock_timestamp() - interval '11 minutes'")

    async with worker.services.database.hot("test") as connection:
        await breakers.tidy(connection)

    assert await small_world.rows("SELECT 1 AS one FROM breakers") == []
