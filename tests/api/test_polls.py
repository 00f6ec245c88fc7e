"""A poll is answered by one statement where nothing more is to be told, and says what the longer way would say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from app.domain.ids import DEFAULT_TENANT
from app.store import columns, tables, workflow_glance, workflow_views
from app.store.database import Database
from app.store.workflow_glance import Glance
from app.store.workflow_views import Waits
from tests.api import rows
from tests.api.waiting_rows import due

pytestmark = pytest.mark.anyio

AN_HOUR = 3600.0
ENDED: dict[str, Any] = {"open_calls": 0, "steps_open": 0, "ended_at": rows.BEGAN, "revision": 9}
FAILURE = {"kind": "http_5xx", "message": "it broke", "step": "a"}


async def glance(database: Database, workflow_id: UUID, *, tenant_id: UUID = DEFAULT_TENANT) -> Glance | None:
    async with database.hot("test", size=2) as connection:
        return await workflow_glance.glance(connection, tenant_id=tenant_id, workflow_id=workflow_id)


async def worker(database: Database, **changed: Any) -> None:
    now = datetime.now(UTC)
    values = {
        "id": uuid7(), "name": "worker.1", "host": "h", "boot_id": "b", "pid": 1, "slots": 1, "engine_version": 1,
        "started_at": now, "beat_at": now, "lease_until": now + timedelta(hours=1),
    }  # fmt: skip
    await rows.write(database, tables.workers, **values | changed)


async def same_as_the_longer_way(database: Database, seen: Glance, workflow_id: UUID) -> None:
    async with database.reading() as connection:
        row = await workflow_views.one(connection, tenant_id=DEFAULT_TENANT, workflow_id=workflow_id)
        assert row is not None
        waits = (await workflow_views.waits(connection, [row]))[workflow_id]
        symptoms = (await workflow_views.symptoms(connection, [row])).get(workflow_id, [])
        busy, recovered = await workflow_views.story(connection, row)
    assert {name: seen.row[name] for name in columns.WORKFLOW} == {name: row[name] for name in columns.WORKFLOW}
    assert waits == Waits(approvals=[], calls=[], pending=[])
    assert list(seen.symptoms) == symptoms
    assert [step["path"] for step in seen.busy] == [step["path"] for step in busy]
    assert recovered == []


@pytest.mark.parametrize(
    ("seconds", "call", "alive", "words"),
    [
        (-1, {}, {}, []),
        (-1, {}, None, ["no_worker"]),
        (-1, {}, {"lost_at": rows.BEGAN}, ["no_worker"]),
        (-1, {}, {"stopped_at": rows.BEGAN}, ["no_worker"]),
        (-1, {}, {"lease_until": rows.BEGAN}, ["no_worker"]),
        (-AN_HOUR, {}, {}, ["stalled"]),
        (AN_HOUR, {}, None, []),
        (AN_HOUR, {"attempts": 2}, {}, ["retrying"]),
        (AN_HOUR, {"retry_of": uuid7()}, {}, ["retrying"]),
    ],
)
async def test_poll_says_what_is_due_when_a_workflow_runs(
    database: Database, seconds: float, call: dict[str, Any], alive: dict[str, Any] | None, words: list[str]
) -> None:
    workflow_id = await rows.workflow(database)
    for position, (path, state) in enumerate([("b", "running"), ("a", "running"), ("c", "pending")]):
        await rows.step(database, workflow_id, path, position=position, state=state)
    await rows.step(database, workflow_id, "a.0", position=1, parent="a", item_index=0)
    await due(database, workflow_id, "call", await rows.call(database, workflow_id, "a", **call), seconds=seconds)
    if alive is not None:
        await worker(database, **alive)

    seen = await glance(database, workflow_id)

    assert seen is not None
    assert list(seen.symptoms) == words
    assert [step["path"] for step in seen.busy] == ["b", "a"]
    await same_as_the_longer_way(database, seen, workflow_id)


@pytest.mark.parametrize(
    "changed",
    [
        ENDED | {"status": "succeeded", "output": {"z": 1, "a": [1e16, None]}},
        ENDED | {"status": "failed", "failure": FAILURE, "compensation": "partial"},
        ENDED | {"status": "cancelled", "cancel": {"reason": "enough"}},
        {"status": "failing", "failure": FAILURE},
        {"status": "cancelling", "attention": ["outcome_unknown"]},
        {"status": "compensating", "undos": 1},
        {"status": "queued"},
    ],
    ids=lambda changed: changed["status"],
)
async def test_poll_needs_no_second_look_when_nothing_is_waited_for(
    database: Database, changed: dict[str, Any]
) -> None:
    workflow_id = await rows.workflow(database, **changed)
    await rows.step(database, workflow_id, "a")

    seen = await glance(database, workflow_id)

    assert seen is not None
    await same_as_the_longer_way(database, seen, workflow_id)


@pytest.mark.parametrize(
    "changed",
    [
        *({counter: 1} for counter in ("waits", "held", "doubts", "undos_failed", "retries")),
        *({"status": status, "timers": 1} for status in ("waiting", "paused")),
    ],
)
async def test_poll_looks_longer_when_there_is_more_to_tell(database: Database, changed: dict[str, Any]) -> None:
    workflow_id = await rows.workflow(database, **changed)

    assert await glance(database, workflow_id) is None


@pytest.mark.parametrize(("kind", "due_kind"), [("probe", "call"), ("probe", "attempt"), ("tool", "result")])
async def test_poll_looks_longer_when_a_tool_is_asked_or_its_result_awaited(
    database: Database, kind: str, due_kind: str
) -> None:
    workflow_id = await rows.workflow(database)
    await rows.step(database, workflow_id, "a")
    about = await rows.call(database, workflow_id, "a", state="probing", attempts=1)
    asked = about
    if kind == "probe":
        asked = await rows.call(database, workflow_id, "a", n=2, kind="probe", key=None, target=about)
    holder = {"worker": uuid7()} if due_kind == "attempt" else {}
    await due(database, workflow_id, due_kind, asked, seconds=AN_HOUR, **holder)

    assert await glance(database, workflow_id) is None


async def test_poll_finds_nothing_when_the_workflow_is_somebody_elses(database: Database) -> None:
    workflow_id = await rows.workflow(database)

    assert await glance(database, workflow_id, tenant_id=uuid7()) is None
    assert await glance(database, uuid7()) is None
