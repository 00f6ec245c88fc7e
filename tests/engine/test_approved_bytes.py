"""What is sent is what was approved: a request that was changed in the database is neither approved nor sent."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from app.errors import RequestChanged
from tests.engine.people import (
    EDITED,
    PAY,
    PAYS,
    agent,
    asked,
    laws,
    paid,
    pay,
    pays,
    rest,
    say,
    say_next,
    step_failure,
    step_of,
)
from tests.engine.world import World, uses

STOLEN = '{"tool": "pay", "arguments": {"to": "mallory", "amount": 5000}, "business_key": null}'


@pytest.mark.parametrize("decision", ["approve", "edit"])
async def test_word_is_refused_when_the_request_was_changed_after_the_question(
    small_world: World, decision: str
) -> None:
    worker = await small_world.worker()
    workflow_id = await small_world.submit(pays())
    [approval] = await asked(small_world, workflow_id)
    events = await small_world.events(workflow_id)

    await small_world.rows("UPDATE calls SET request = %s", STOLEN)
    with pytest.raises(RequestChanged) as refusal:
        await say(small_world, approval, decision, values=EDITED if decision == "edit" else None)
    await rest(small_world, worker)

    assert (refusal.value.status, "reject" in refusal.value.extra["possible"]) == (409, True)
    assert (paid(small_world), await small_world.events(workflow_id)) == ([], events)


@pytest.mark.parametrize("end", ["reject", "expiry"])
async def test_changed_request_can_still_be_refused(small_world: World, end: str) -> None:
    worker = await small_world.worker()
    workflow_id = await small_world.submit(pays())

    await small_world.rows("UPDATE calls SET request = %s", STOLEN)
    if end == "reject":
        await say_next(small_world, workflow_id, "reject")
    else:
        await small_world.ripen(worker, "expiry")
    await rest(small_world, worker)

    assert ((await small_world.workflow(workflow_id))["status"], paid(small_world)) == ("failed", [])


@pytest.mark.parametrize("decision", ["approve", "edit"])
@pytest.mark.parametrize("theft", ["request", "request and hash", "approval"])
async def test_nothing_is_sent_when_the_request_was_changed_after_the_word(
    small_world: World, decision: str, theft: str
) -> None:
    worker = await small_world.worker()
    workflow_id = await small_world.submit(pays())
    await say_next(small_world, workflow_id, decision, values=EDITED if decision == "edit" else None)

    if theft == "approval":
        await small_world.rows("UPDATE approvals SET arguments_sha256 = repeat('0', 64)")
    else:
        await small_world.rows("UPDATE calls SET request = %s WHERE state = 'due'", STOLEN)
    if theft == "request and hash":
        await small_world.rows("UPDATE calls SET args_sha256 = repeat('0', 64)")
    await rest(small_world, worker)

    assert (await step_failure(small_world, workflow_id), paid(small_world)) == ("internal", [])
    [attempt] = await small_world.rows("SELECT outcome FROM attempts")
    assert attempt["outcome"] == "not_sent"
    await laws(small_world)


async def test_nothing_is_sent_when_a_call_was_made_due_past_its_question(small_world: World) -> None:
    worker = await small_world.worker()
    workflow_id = await small_world.submit(pays())

    await small_world.rows("UPDATE calls SET state = 'due', held_reason = NULL")
    await small_world.rows("UPDATE workflows SET held = 0, open_calls = 1")
    await small_world.rows(
        "INSERT INTO dues (kind, ref, tenant_id, workflow_id, lane, priority, due_at, ring_at) "
        "SELECT 'call', id, tenant_id, workflow_id, 'calls', 0, clock_timestamp(), clock_timestamp() FROM calls"
    )
    await small_world.run(worker)

    assert (await step_failure(small_world, workflow_id), paid(small_world)) == ("internal", [])


async def test_nothing_is_sent_after_its_deadline_when_looking_at_the_word_took_too_long(small_world: World) -> None:
    worker = await small_world.worker()
    workflow_id = await small_world.submit(pays(timeout="1s"))
    await say_next(small_world, workflow_id, "approve")
    [call] = await small_world.due_calls()

    async with await psycopg.AsyncConnection.connect(small_world.url) as other:
        await other.execute("LOCK TABLE approvals IN ACCESS EXCLUSIVE MODE")
        running = asyncio.create_task(worker.run(call))
        while not await small_world.rows("SELECT 1 FROM attempts"):
            await small_world.rows("SELECT pg_sleep(0.01)")
        await small_world.rows("SELECT pg_sleep_until(max(send_deadline)) FROM attempts")
    await running

    [attempt] = await small_world.rows("SELECT outcome FROM attempts")
    assert (attempt["outcome"], paid(small_world)) == ("not_sent", [])
    await rest(small_world, worker)
    assert paid(small_world) == [PAY]


async def test_tool_that_asks_nobody_pays_nothing_for_the_gate(small_world: World) -> None:
    looking = "SELECT count(*) AS n FROM pg_stat_activity WHERE application_name = 'surefoot gate'"
    worker = await small_world.worker()

    await small_world.submit(pays(approve="never"))
    await rest(small_world, worker)
    ungated = (await small_world.row(looking))["n"]
    workflow_id = await small_world.submit(pays(), key="k-2")
    await say_next(small_world, workflow_id, "approve")
    await rest(small_world, worker)

    assert (ungated, (await small_world.row(looking))["n"], len(paid(small_world))) == (0, 1, 2)


@pytest.mark.parametrize(
    "text", ["\u0000", "\ud800", "\udfff \ud800", "e\u0301 \u202e \ufeff", "\U0001f4b8" * 10_000, '"}, {"to": "x'],
    ids=["nul", "lone surrogate", "surrogates turned round", "marks", "long", "quotes"],
)  # fmt: skip
async def test_odd_bytes_are_asked_about_and_sent_as_they_are_or_refused(small_world: World, text: str) -> None:
    odd = {"to": text, "amount": 2**70}
    small_world.model.answers = [uses((PAYS, odd)), "done"]
    worker = await small_world.worker()
    workflow_id = await small_world.submit(agent())

    await rest(small_world, worker)
    before, questions = paid(small_world), await asked(small_world, workflow_id)
    for question in questions:
        await say(small_world, question, "approve")
    await rest(small_world, worker)

    storable = "\x00" not in text and not any(0xD800 <= ord(letter) < 0xE000 for letter in text)
    assert (before, paid(small_world)) == ([], [odd] if storable else [])
    assert (await small_world.workflow(workflow_id))["ended_at"] is not None
    await laws(small_world)


async def test_numbers_survive_the_way_from_the_question_to_the_wire(small_world: World) -> None:
    odd = {"a": 1e22, "b": 1.0, "c": -0.0, "d": 2**70, "e": 1e-7, "f": 5e-324}
    worker = await small_world.worker()
    definition = {"name": "odd", "tools": {"pay": pay(input_schema=None)}, "steps": {"s": step_of(odd)}}
    del definition["tools"]["pay"]["input_schema"]
    first, second = await small_world.submit(definition), await small_world.submit(definition, key="k-2")

    await say_next(small_world, first, "approve")
    await say_next(small_world, second, "edit", values={**odd, "g": 1e300})
    await rest(small_world, worker)

    assert sorted(map(repr, paid(small_world))) == sorted([repr(odd), repr({**odd, "g": 1e300})])
