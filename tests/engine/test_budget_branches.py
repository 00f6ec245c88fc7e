"""Parallel branches and one budget: it is never overshot, whoever races; who waits is told; nobody is forgotten."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import psycopg
import pytest

from app.domain import ids
from app.domain.facts import CallSettled
from app.domain.outcomes import Outcome
from app.engine import cancel, record
from app.ports.world import ModelRequest
from tests.engine.budgeted import account, agent, answer, branches, reserved, spent, wanted
from tests.engine.world import Worker, World, not_sent, tool, unknown, uses

ITEMS = 50
PASS = 20
SLACK = 100
"""Tokens: less than the shortest answer needs, so nobody is admitted with what is left over."""


async def watch(world: World) -> None:
    """Every version that the account ever has is kept, also those between two reads of ours."""
    await world.rows("CREATE TABLE watched (scope text, taken bigint, allowed bigint)")
    await world.rows(
        "CREATE FUNCTION watching() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO watched VALUES "
        "(new.scope, new.spent_tokens + new.reserved_tokens, new.limit_tokens); RETURN new; END $$"
    )
    await world.rows(
        "CREATE TRIGGER watching AFTER INSERT OR UPDATE ON budgets FOR EACH ROW EXECUTE FUNCTION watching()"
    )


async def worst_of_one(world: World) -> int:
    """Tokens that one branch takes at worst."""
    workflow_id = await world.submit(branches(1, {"tokens": 10**9}), key="measure")
    call = await wanted(world, workflow_id, "a.0")
    await world.rows("UPDATE dues SET due_at = 'infinity' WHERE kind = 'call'")
    return int(call["tokens"]) + 2  # two digits in the prompt of the later ones


def takes(tokens: int) -> Any:
    """An answer that took exactly so many."""
    return lambda request: answer(read=tokens - 10, wrote=10)


async def race(world: World, workers: list[Worker], *, rounds: int = 60) -> None:
    """All due calls at once, each by the worker whose turn it is, until nothing is due."""
    for _ in range(rounds):
        due = await world.due_calls()
        if not due:
            return
        await asyncio.gather(*(workers[n % len(workers)].run(call) for n, call in enumerate(due)))
    raise AssertionError("it does not come to rest")


async def states(world: World, workflow_id: UUID) -> dict[str, int]:
    rows = await world.rows(
        "SELECT state, count(*) AS n FROM steps WHERE workflow_id = %s AND parent = 'a' GROUP BY state", workflow_id
    )
    return {row["state"]: row["n"] for row in rows}


async def test_fifty_branches_never_overshoot_what_pays_for_twenty(small_world: World) -> None:
    workers = [await small_world.worker(f"worker.{n}") for n in range(3)]
    worst = await worst_of_one(small_world)
    limit = PASS * worst + SLACK
    small_world.model.answers = [takes(worst - 2)] * ITEMS
    await watch(small_world)

    workflow_id = await small_world.submit(branches(ITEMS, {"tokens": limit}, on_error="continue"), key="k")
    at_once = await account(small_world, workflow_id)
    await race(small_world, workers)

    row = await account(small_world, workflow_id)
    most = await small_world.row("SELECT max(taken) AS taken, min(allowed) AS allowed FROM watched")
    assert at_once["open_calls"] == PASS
    assert most["taken"] <= limit == most["allowed"]
    assert (reserved(row), row["overrun_tokens"]) == ((0, 0, 0, 0), 0)
    assert len(small_world.model.requests) == PASS
    assert await states(small_world, workflow_id) == {"succeeded": PASS, "failed": ITEMS - PASS}
    assert await small_world.rows("SELECT * FROM calls WHERE workflow_id = %s AND state = 'held'", workflow_id) == []


async def test_branches_that_take_less_than_their_worst_case_make_room_for_others(small_world: World) -> None:
    workers = [await small_world.worker(f"worker.{n}") for n in range(2)]
    worst = await worst_of_one(small_world)
    small_world.model.answers = [takes(worst // 3)] * ITEMS

    workflow_id = await small_world.submit(branches(ITEMS, {"tokens": PASS * worst}), key="k")
    before = await small_world.workflow(workflow_id)
    await race(small_world, workers)

    row = await account(small_world, workflow_id)
    assert (before["open_calls"], before["held"]) == (PASS, ITEMS - PASS)
    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"
    assert spent(row)[1] == ITEMS * (worst // 3)
    waited = await small_world.rows(
        "SELECT recovery FROM calls WHERE workflow_id = %s AND jsonb_array_length(recovery) > 0", workflow_id
    )
    assert len(waited) == ITEMS - PASS
    assert waited[0]["recovery"][0]["message"] == "It waited until its budget had room for it."


async def test_branches_that_cannot_be_paid_for_wait_for_a_top_up(small_world: World) -> None:
    workers = [await small_world.worker(f"worker.{n}") for n in range(2)]
    worst = await worst_of_one(small_world)
    small_world.model.answers = [takes(worst - 2)] * ITEMS
    budget = {"tokens": PASS * worst + SLACK, "on_exceeded": "pause"}

    workflow_id = await small_world.submit(branches(ITEMS, budget), key="k")
    await race(small_world, workers)

    workflow = await small_world.workflow(workflow_id)
    assert (workflow["status"], workflow["held"]) == ("waiting", ITEMS - PASS)
    assert (await small_world.events(workflow_id)).count("workflow.budget.exceeded") == 1
    attention = await small_world.rows(
        "SELECT data FROM events WHERE type = 'workflow.needs_attention' AND data ->> 'attention' = 'budget_exceeded'"
    )
    assert len(attention) == 1


async def test_waiting_call_is_looked_at_again_when_nobody_told_it(small_world: World) -> None:
    """The net below the telling: its due finds the room."""
    worker = await small_world.worker()
    worst = await worst_of_one(small_world)
    workflow_id = await small_world.submit(branches(2, {"tokens": worst + SLACK}), key="k")
    await small_world.rows(
        "UPDATE budgets SET limit_tokens = limit_tokens * 2 WHERE workflow_id = %s", workflow_id
    )  # as if room had come from where no decision was made

    await small_world.ripen(worker, "budget")

    assert (await small_world.workflow(workflow_id))["open_calls"] == 2


async def test_waiting_call_goes_on_waiting_when_there_is_no_room_yet(small_world: World) -> None:
    worker = await small_world.worker()
    worst = await worst_of_one(small_world)
    workflow_id = await small_world.submit(branches(2, {"tokens": worst + SLACK}), key="k")

    await small_world.ripen(worker, "budget")

    due = await small_world.row("SELECT due_at > clock_timestamp() + interval '50 seconds' AS later FROM dues "
                                "WHERE kind = 'budget'")  # fmt: skip
    assert due["later"]
    assert (await small_world.workflow(workflow_id))["held"] == 1


async def test_reservation_is_let_go_when_the_workflow_is_cancelled_before_sending(small_world: World) -> None:
    workflow_id = await small_world.submit(branches(3, {"usd": 1}))
    await cancel.cancel(small_world.api, ids.DEFAULT_TENANT, workflow_id, reason=None, by="kim")

    row = await account(small_world, workflow_id)
    assert (spent(row), reserved(row), row["open_calls"]) == ((0, 0, 0, 0), (0, 0, 0, 0), 0)


async def test_database_refuses_an_account_that_is_overshot(small_world: World) -> None:
    await small_world.submit(agent({"usd": 1, "tokens": 10_000, "turns": 3, "tool_calls": 3}))

    for measure in ("microusd", "tokens", "turns", "tool_calls"):
        with pytest.raises(psycopg.errors.CheckViolation):
            await small_world.rows(f"UPDATE budgets SET reserved_{measure} = limit_{measure} + 1")
    with pytest.raises(psycopg.errors.CheckViolation):
        await small_world.rows("UPDATE budgets SET reserved_turns = -1")


# --- losses --------------------------------------------------------------------------------------------------------


async def test_lost_attempt_counts_at_its_worst_case_until_late_evidence_corrects_it(small_world: World) -> None:
    first, second = await small_world.worker("one"), await small_world.worker("two")
    workflow_id = await small_world.submit(agent({"usd": 1}))
    worst = await wanted(small_world, workflow_id, "a")
    [call_id] = await small_world.due_calls()
    claimed = await first.claim(call_id)
    await small_world.lose(first)
    await small_world.sweep(second)
    lost = await account(small_world, workflow_id)

    await record.record(second.services, claimed, answer(read=30, wrote=20, cost=7))

    tokens = worst["input"] + 1000
    after = await account(small_world, workflow_id)
    assert spent(lost) == (worst["microusd"], tokens, 1, 0)
    assert reserved(lost) == (worst["microusd"], tokens, 0, 0)
    assert (spent(after), reserved(after)) == ((7, 50, 1, 0), (0, 0, 0, 0))
    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"


async def test_late_testimony_that_nothing_was_sent_gives_the_money_back(small_world: World) -> None:
    first, second = await small_world.worker("one"), await small_world.worker("two")
    workflow_id = await small_world.submit(agent({"usd": 1}))
    [call_id] = await small_world.due_calls()
    claimed = await first.claim(call_id)
    await small_world.lose(first)
    await small_world.sweep(second)

    await record.record(second.services, claimed, not_sent())
    await small_world.run(second)

    assert spent(await account(small_world, workflow_id)) == (100, 15, 1, 0)  # of the second attempt alone


async def test_evidence_that_is_kept_without_its_decision_is_settled_once(small_world: World) -> None:
    worker = await small_world.worker()
    workflow_id = await small_world.submit(agent({"usd": 1}))
    [call_id] = await small_world.due_calls()
    claimed = await worker.claim(call_id)
    fact = CallSettled(call_id=call_id, attempt_id=claimed.attempt_id, step="a", outcome=answer(cost=5))

    await record.keep_evidence(worker.services, workflow_id, [fact])
    kept = await account(small_world, workflow_id)
    await small_world.ripen(worker, "apply")
    await record.record(worker.services, claimed, answer(cost=5))

    after = await account(small_world, workflow_id)
    assert (spent(kept), reserved(kept)) == ((5, 150, 1, 0), (0, 0, 0, 0)) == (spent(after), reserved(after))
    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"


async def test_truth_beyond_the_worst_case_is_written_down_and_told(small_world: World) -> None:
    worker = await small_world.worker()
    small_world.model.answers = [lambda request: _too_much(request)]

    workflow_id = await small_world.submit(agent({"tokens": 5_000}))
    await small_world.run(worker)

    row = await account(small_world, workflow_id)
    assert (spent(row)[1], row["overrun_tokens"]) == (9_000, 4_000)
    assert "workflow.budget.overrun" in await small_world.events(workflow_id)


def _too_much(request: ModelRequest) -> Outcome:
    return answer(read=8_000, wrote=1_000)


async def test_unknown_effect_is_settled_although_the_workflow_has_used_up_its_budget(small_world: World) -> None:
    """What may have happened is settled whatever it costs: a keyed call is repeated in the drain."""
    worker = await small_world.worker()
    small_world.model.answers = [uses(("book", {"n": 1}), ("look", {"n": 1}), ("look", {"n": 2}))]
    small_world.tools.script["book"] = [unknown()]
    tools = {"book": tool("keyed"), "look": tool("read_only")}

    workflow_id = await small_world.submit(agent({"tool_calls": 2}, tools=tools))
    await small_world.run(worker)

    workflow = await small_world.workflow(workflow_id)
    assert (workflow["status"], workflow["failure"]["kind"]) == ("failed", "budget_exceeded")
    assert len(small_world.tools.sent("book")) == 2
    assert reserved(await account(small_world, workflow_id)) == (0, 0, 0, 0)
