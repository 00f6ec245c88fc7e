"""A database that is not the one that last worked for us: effects wait until `recover` was told what was lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg import sql

from app.domain import ids
from app.embedded.postgres import EmbeddedPostgres
from app.errors import NotRecovered
from app.store import identity
from tests.engine.rewinding import MINUTE, recovered, restored, restored_with
from tests.engine.world import World, one, world


async def resting(world: World) -> int:
    """Rows that recovering could change, as one number."""
    row = await world.row(
        "SELECT (SELECT sum(revision) FROM workflows) + (SELECT count(*) FROM events) + (SELECT count(*) FROM audit) "
        "+ (SELECT count(*) FROM system WHERE value = 'before') AS n"
    )
    return int(row["n"])


# --- before anybody recovers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("effect", ["idempotent", "keyed", "at_most_once"])
async def test_worker_claims_no_effect_when_the_identity_is_another_one(small_world: World, effect: str) -> None:
    worker, workflow_id = await restored_with(small_world, effect)

    for call in await small_world.due_calls():
        await worker.run(call)

    assert small_world.tools.ledger == []
    call = await small_world.call(workflow_id, "s")
    assert (call["state"], call["attempts"]) == ("due", 0)


async def test_worker_goes_on_with_models_and_reading_when_the_identity_is_another_one(small_world: World) -> None:
    agent = {"name": "a", "steps": {"s": {"agent": {"model": "fast"}, "prompt": "Say yes."}}}
    worker = await small_world.worker()
    reading, asking = await small_world.submit(one("read_only")), await small_world.submit(agent, key="k-2")
    await restored(small_world)

    await small_world.run(worker)

    for workflow_id in (reading, asking):
        assert (await small_world.workflow(workflow_id))["status"] == "succeeded"


async def test_sweep_notices_a_restore_once_and_leaves_the_record_as_it_is(small_world: World) -> None:
    first, second = await small_world.worker("one"), await small_world.worker("two")
    await restored(small_world)

    for worker in (first, second, first):
        await small_world.sweep(worker)

    [noticed] = await small_world.rows(
        "SELECT value, updated_at = created.at AS once FROM system, LATERAL (SELECT "
        "updated_at AS at) AS created WHERE name = 'restored'"
    )
    recorded = await small_world.row("SELECT value FROM system WHERE name = 'identity'")
    assert noticed["value"].count("/") == 2
    assert recorded["value"] == "before"


async def test_sweep_records_the_identity_when_nothing_is_on_record(small_world: World) -> None:
    worker = await small_world.worker()
    await small_world.submit(one("at_most_once"))

    await small_world.sweep(worker)
    await small_world.run(worker)

    recorded = await small_world.row("SELECT value FROM system WHERE name = 'identity'")
    assert recorded["value"].count("/") == 2
    assert len(small_world.tools.ledger) == 1


@pytest.fixture
async def clone(small_world: World, embedded_postgres: EmbeddedPostgres) -> AsyncIterator[World]:
    """A copy of the world's database beside it, made while a call is due."""
    worker = await small_world.worker()
    await small_world.sweep(worker)
    await small_world.submit(one("at_most_once"))
    await small_world.close()
    name = small_world.url.partition("?")[0].rpartition("/")[2]
    copy = f"{name}_copy"
    with psycopg.connect(embedded_postgres.url, autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY wal_log").format(
                sql.Identifier(copy), sql.Identifier(name)
            )
        )
        async with world(embedded_postgres.url_of(copy)) as made:
            yield made
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(copy)))


async def test_worker_claims_no_effect_in_a_clone_of_the_database(clone: World) -> None:
    worker = await clone.worker("clone")

    for call in await clone.due_calls():
        await worker.run(call)

    assert clone.tools.ledger == []


# --- the command ---------------------------------------------------------------------------------------------------


async def test_effects_are_made_as_they_were_when_nothing_was_lost(small_world: World) -> None:
    worker, workflow_id = await restored_with(small_world, "at_most_once")

    done = await recovered(small_world, since=None)
    await small_world.run(worker)

    assert (done.since, done.workflows) == (None, 0)
    assert (await small_world.workflow(workflow_id))["status"] == "succeeded"


async def test_operator_may_recover_a_database_that_looks_as_before(small_world: World) -> None:
    worker = await small_world.worker()
    await small_world.sweep(worker)
    workflow_id = await small_world.submit(one("at_most_once"))

    done = await recovered(small_world)
    await small_world.run(worker)

    assert (done.identity.changed, done.in_doubt) == (False, 1)
    assert (await small_world.call(workflow_id, "s"))["state"] == "in_doubt"


async def test_dry_run_tells_the_same_and_changes_nothing(small_world: World) -> None:
    worker, _ = await restored_with(small_world, "at_most_once")
    before = await resting(small_world)

    told = await recovered(small_world, dry_run=True, since=datetime.now(UTC) - MINUTE)
    after = await resting(small_world)
    for call in await small_world.due_calls():
        await worker.run(call)

    assert (told.workflows, told.in_doubt) == (1, 1)
    assert after == before
    assert small_world.tools.ledger == []


async def test_recovering_twice_doubts_nothing_twice(small_world: World) -> None:
    since = datetime.now(UTC) - MINUTE
    _, workflow_id = await restored_with(small_world, "at_most_once")

    await recovered(small_world, since=since)
    await recovered(small_world, since=since)

    events = await small_world.events(workflow_id)
    audit = await small_world.rows("SELECT actor, action, data->>'in_doubt' AS n FROM audit ORDER BY id")
    assert (events.count("effect.in_doubt"), events.count("workflow.needs_attention")) == (1, 2)
    assert audit == [{"actor": "kim", "action": "database.recovered", "n": "1"}] * 2


@pytest.mark.parametrize("seen", [True, False])
async def test_no_effect_is_claimed_while_one_workflow_cannot_be_decided(small_world: World, seen: bool) -> None:
    worker = await small_world.worker()
    broken = await small_world.submit(one("at_most_once"))
    whole = await small_world.submit(one("idempotent"), key="k-2")
    plan = (await small_world.workflow(broken))["plan_digest"]
    await small_world.sweep(worker)
    if seen:
        await restored(small_world)
    await small_world.rows("UPDATE workflows SET plan_digest = 'gone' WHERE id = %s", broken)

    with pytest.raises(NotRecovered, match=ids.encode("wf", broken)):
        await recovered(small_world)
    for call in await small_world.due_calls():
        await worker.run(call)
    held = list(small_world.tools.ledger)
    await small_world.rows("UPDATE workflows SET plan_digest = %s WHERE id = %s", plan, broken)
    await recovered(small_world)
    await small_world.run(worker)

    assert held == []
    assert (await small_world.workflow(whole))["status"] == "succeeded"
    assert (await small_world.call(broken, "s"))["state"] == "in_doubt"


async def test_database_that_changed_again_meanwhile_is_not_accepted(small_world: World) -> None:
    await restored(small_world)

    async with small_world.api.database.hot("test") as connection:
        accepted = await identity.accept(connection, "what it was a moment ago")

    assert not accepted
    assert await small_world.row("SELECT value FROM system WHERE name = 'identity'") == {"value": "before"}


async def test_recovery_is_refused_when_its_instant_is_still_to_come(small_world: World) -> None:
    worker, _ = await restored_with(small_world, "at_most_once")

    with pytest.raises(NotRecovered, match="still to come"):
        await recovered(small_world, since=datetime.now(UTC) + timedelta(hours=1))
    for call in await small_world.due_calls():
        await worker.run(call)

    assert small_world.tools.ledger == []
    assert await small_world.row("SELECT value FROM system WHERE name = 'identity'") == {"value": "before"}
