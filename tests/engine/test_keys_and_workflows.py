"""An Idempotency-Key and its workflow are stored together or not at all, wherever storing them fails."""

from __future__ import annotations

import psycopg
import pytest

from app.engine import submit
from tests.engine.submitting import submission
from tests.engine.world import World


@pytest.mark.parametrize("table", ["workflows", "steps", "calls", "dues", "events"])
async def test_key_stays_free_when_its_workflow_could_not_be_stored(small_world: World, table: str) -> None:
    await small_world.rows(
        "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE disk_full; END $$"
    )
    await small_world.rows(f"CREATE TRIGGER no_room BEFORE INSERT ON {table} EXECUTE FUNCTION no_room()")

    with pytest.raises(psycopg.errors.DiskFull):
        await submit.submit(small_world.api, submission(key="k"))
    keys = await small_world.rows("SELECT key FROM idempotency_keys")
    await small_world.rows(f"DROP TRIGGER no_room ON {table}")
    again = await submit.submit(small_world.api, submission(key="k"))

    assert keys == []
    assert not again.replayed
    assert (await small_world.workflow(again.workflow_id))["status"] == "running"
