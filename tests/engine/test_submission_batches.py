"""Submissions that share a transaction: each gets its own answer, and none waits for another's trouble."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest

from app.domain import ids
from app.engine import accept, submit
from app.engine.submission import Submitted
from app.errors import IdempotencyKeyReused, RequestInProgress
from tests.engine.submitting import DEFINITION, judged, submission
from tests.engine.world import World, tool, world


@pytest.fixture
async def patient_world(database_url: str) -> AsyncIterator[World]:
    """Twins wait for as long as the test may take."""
    async with world(database_url, twin_wait=60.0) as made:
        yield made


async def answers(world: World, batch: list[accept.Asked]) -> list[Any]:
    """Of one batch, those that went on alone included."""
    found = await accept.accept_batch(world.api, batch)
    return [await _settled(answer) if isinstance(answer, asyncio.Task) else answer for answer in found]


async def _settled(task: asyncio.Task[Submitted]) -> Submitted | BaseException:
    await asyncio.wait([task])
    return task.exception() or task.result()


async def transactions_of(world: World) -> int:
    row = await world.row("SELECT count(DISTINCT xmin::text) AS n FROM workflows")
    return int(row["n"])


async def test_many_submissions_share_one_transaction_when_they_come_at_once(small_world: World) -> None:
    await submit.submit(small_world.api, submission(key="warm"))

    made = await asyncio.gather(*(submit.submit(small_world.api, submission(key=f"k-{n}")) for n in range(20)))

    assert len({one.workflow_id for one in made}) == 20
    assert await transactions_of(small_world) == 2
    assert await small_world.row("SELECT count(*) AS n FROM workflows WHERE status = 'running'") == {"n": 21}
    assert len(small_world.bell.rung) == 21


async def test_second_of_a_batch_is_a_replay_when_it_brings_the_same_key_and_body(small_world: World) -> None:
    batch = [await judged(small_world.api, submission(key="k")) for _ in range(2)]

    first, second = await answers(small_world, batch)

    assert (first.replayed, second.replayed) == (False, True)
    assert first.workflow_id == second.workflow_id == batch[0].workflow_id
    assert await small_world.row("SELECT count(*) AS n FROM workflows") == {"n": 1}


async def test_second_of_a_batch_is_refused_when_it_brings_the_same_key_and_another_body(small_world: World) -> None:
    batch = [await judged(small_world.api, submission(key="k", given={"n": n})) for n in (1, 2)]

    first, second = await answers(small_world, batch)

    assert (first.workflow_id, first.replayed) == (batch[0].workflow_id, False)
    assert isinstance(second, IdempotencyKeyReused)
    assert [fault.pointer for fault in second.faults] == ["/input"]


async def test_others_of_a_batch_are_accepted_when_one_is_poisoned(small_world: World) -> None:
    poison = await judged(small_world.api, submission(key="bad"), given={"n": "\x00"})
    batch = [await judged(small_world.api, submission(key=f"k-{n}")) for n in range(3)]

    first, culprit, second, third = await answers(small_world, [batch[0], poison, *batch[1:]])

    assert isinstance(culprit, psycopg.DataError)
    assert [one.workflow_id for one in (first, second, third)] == [asked.workflow_id for asked in batch]
    keys = await small_world.rows("SELECT key FROM idempotency_keys ORDER BY key")
    assert [row["key"] for row in keys] == ["k-0", "k-1", "k-2"]


async def test_others_of_a_batch_are_accepted_when_one_has_a_twin_in_flight(small_world: World) -> None:
    batch = [await judged(small_world.api, submission(key=key)) for key in ("a", "twin", "z")]
    async with await psycopg.AsyncConnection.connect(small_world.url) as holder:
        await holder.execute(
            "INSERT INTO idempotency_keys (tenant_id, route, key, fingerprint, field_hashes, response_status) "
            "VALUES (%s, 'POST /v1/workflows', 'twin', 'x', '{}', 202)",
            (ids.DEFAULT_TENANT,),
        )
        first, twin, last = await answers(small_world, batch)
        await holder.rollback()

    assert isinstance(twin, RequestInProgress)
    assert [isinstance(one, Submitted) for one in (first, last)] == [True, True]


async def test_next_batch_is_accepted_while_a_twin_of_the_last_one_waits(patient_world: World) -> None:
    async with await psycopg.AsyncConnection.connect(patient_world.url) as holder:
        await holder.execute(
            "INSERT INTO idempotency_keys (tenant_id, route, key, fingerprint, field_hashes, response_status) "
            "VALUES (%s, 'POST /v1/workflows', 'twin', 'x', '{}', 202)",
            (ids.DEFAULT_TENANT,),
        )
        waiting = asyncio.create_task(submit.submit(patient_world.api, submission(key="twin")))
        await somebody_waits_alone(patient_world)

        other = await submit.submit(patient_world.api, submission(key="other"))
        still_waiting = not waiting.done()
        await holder.rollback()
        twin = await waiting

    assert still_waiting
    assert (other.replayed, twin.replayed) == (False, False)


async def somebody_waits_alone(world: World) -> None:
    """Until the twin waits for the key on the connection of those that go alone."""
    query = "SELECT count(*) AS n FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name LIKE %s"
    async with asyncio.timeout(60):
        while not (await world.row(query, "%submit-alone"))["n"]:
            pass


async def test_batch_has_one_owner_when_two_workflows_want_the_same_business_key(small_world: World) -> None:
    owning = {
        "name": "owning",
        "tools": {"do": tool("keyed", key_header="Idempotency-Key", key_ttl="1h")},
        "steps": {"s": {"tool": "do", "with": {}, "idempotency_key": "order-1"}},
    }
    batch = [await judged(small_world.api, submission(owning, key=key), given={}) for key in ("a", "b")]

    made = await answers(small_world, batch)

    states = await small_world.rows("SELECT state, held_reason FROM calls ORDER BY state")
    assert [one.replayed for one in made] == [False, False]
    assert states == [{"state": "due", "held_reason": None}, {"state": "held", "held_reason": "attached"}]


async def test_definition_is_stored_once_when_a_batch_brings_it_many_times(small_world: World) -> None:
    batch = [await judged(small_world.api, submission(key=f"k-{n}", given={"n": n})) for n in range(5)]
    batch.append(await judged(small_world.api, submission({**DEFINITION, "name": "two"}, key="other")))

    await answers(small_world, batch)

    assert await small_world.row("SELECT count(*) AS n FROM definitions") == {"n": 2}
    assert await small_world.row("SELECT count(*) AS n FROM plans") == {"n": 2}
