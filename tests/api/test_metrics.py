"""`GET /metrics`, and the checker of the first promise behind it: every way in which a workflow can be forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.api.metrics import Readings, render
from app.domain.ids import DEFAULT_TENANT
from app.domain.states import FINAL_STATUSES, DueKind, WorkflowStatus
from app.store import orphans, snapshots
from app.store.database import Database
from app.store.orphans import Orphans
from tests.api import rows, waiting_rows

pytestmark = pytest.mark.anyio

Broken = Callable[[Database], Awaitable[UUID]]


async def counted(database: Database) -> Orphans:
    async with snapshots.one_instant(database) as connection:
        return await orphans.count(connection)


def sample(text: str, name: str, **labels: str) -> float:
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            if one.name == name and one.labels == labels:
                return float(one.value)
    raise AssertionError(f"no sample {name} {labels} in:\n{text}")


@pytest.mark.parametrize("kind", waiting_rows.STORIES)
async def test_count_finds_nothing_wrong_when_something_wakes_the_workflow(database: Database, kind: str) -> None:
    await waiting_rows.STORIES[kind](database)

    found = await counted(database)

    assert found == Orphans(workflows=0, unwoken=0, disagreeing=0, left_over=0, examples=())


async def without_dues(database: Database, story: Broken) -> UUID:
    workflow_id = await story(database)
    await rows.change(database, "DELETE FROM dues WHERE workflow_id = :w", w=workflow_id)
    return workflow_id


async def nothing_open(database: Database) -> UUID:
    """The counter says that a call is open; there is none."""
    workflow_id = await rows.workflow(database)
    await waiting_rows.due(database, workflow_id, "deadline", workflow_id, seconds=604_800)
    return workflow_id


async def probing_with_a_probe_that_ended(database: Database) -> UUID:
    """The probe came to its end, and nobody told the call it asked about."""
    workflow_id = await without_dues(database, waiting_rows.probing)
    await rows.change(
        database, "UPDATE calls SET state = 'cancelled', ended_at = now() WHERE workflow_id = :w AND kind = 'probe'",
        w=workflow_id,
    )  # fmt: skip
    await rows.change(database, "UPDATE workflows SET open_calls = 1 WHERE id = :w", w=workflow_id)
    return workflow_id


async def held_without_its_approval(database: Database) -> UUID:
    workflow_id, _ = await waiting_rows.held(database, "repeat")
    return workflow_id


async def paused_call_in_a_running_workflow(database: Database) -> UUID:
    workflow_id, _ = await waiting_rows.held(database, "pause")
    return workflow_id


async def one_forgotten_beside_another(database: Database) -> UUID:
    """Something of the workflow moves, and one call of it is forgotten."""
    workflow_id = await waiting_rows.flying(database)
    await rows.step(database, workflow_id, "ask", position=1)
    await rows.call(database, workflow_id, "ask")
    await rows.change(database, "UPDATE workflows SET open_calls = 2 WHERE id = :w", w=workflow_id)
    return workflow_id


UNWOKEN: dict[str, Broken] = {
    "due without its due": lambda database: without_dues(database, waiting_rows.due_call),
    "in flight without its due": lambda database: without_dues(database, waiting_rows.flying),
    "probing without its probe's due": lambda database: without_dues(database, waiting_rows.probing),
    "probing with a probe that ended": probing_with_a_probe_that_ended,
    "accepted without its deadline": lambda database: without_dues(database, waiting_rows.awaited),
    "switched off without its due": lambda database: without_dues(database, waiting_rows.switched_off),
    "nothing open": nothing_open,
    "held without its approval": held_without_its_approval,
    "held by a pause that is over": paused_call_in_a_running_workflow,
    "one forgotten beside another": one_forgotten_beside_another,
}


@pytest.mark.parametrize("what", UNWOKEN)
async def test_count_finds_the_workflow_when_nothing_would_wake_a_call_of_it(database: Database, what: str) -> None:
    await waiting_rows.asking(database)
    workflow_id = await UNWOKEN[what](database)

    found = await counted(database)

    assert found.unwoken == 1
    assert found.examples == (workflow_id,)


async def test_count_finds_the_attached_call_when_its_due_is_gone(database: Database) -> None:
    workflow_id = await waiting_rows.attached(database)
    await rows.change(database, "DELETE FROM dues WHERE workflow_id = :w", w=workflow_id)

    assert (await counted(database)).examples == (workflow_id,)


@pytest.mark.parametrize(
    ("story", "counter"),
    [
        ("in_flight", "open_calls = 2"),
        ("held", "held = 2"),
        ("doubt", "doubts = 2"),
        ("approval", "waits = 2"),
        ("saga_held", "undos = 2"),
        ("compensation_failed", "undos_failed = 2"),
    ],
)
async def test_count_finds_the_workflow_when_a_counter_is_not_true(
    database: Database, story: str, counter: str
) -> None:
    workflow_id = await waiting_rows.STORIES[story](database)
    await rows.change(database, f"UPDATE workflows SET {counter} WHERE id = :w", w=workflow_id)

    found = await counted(database)

    assert (found.disagreeing, found.examples) == (1, (workflow_id,))


async def test_count_finds_the_workflow_when_it_has_ended_and_still_has_a_due(database: Database) -> None:
    workflow_id = await rows.workflow(database, status="succeeded", open_calls=0, ended_at=rows.BEGAN)
    await waiting_rows.due(database, workflow_id, "deadline", workflow_id)
    delivered = await rows.workflow(database, status="succeeded", open_calls=0, ended_at=rows.BEGAN)
    await waiting_rows.due(database, delivered, "delivery", delivered)

    found = await counted(database)

    assert (found.left_over, found.workflows, found.examples) == (1, 1, (workflow_id,))


async def test_metrics_tell_what_is_open_and_due_when_asked_without_a_key(base_url: str, database: Database) -> None:
    await waiting_rows.worker(database)
    await waiting_rows.due_call(database)
    await waiting_rows.doubtful(database)
    await waiting_rows.undo_failed(database)

    async with httpx.AsyncClient(base_url=base_url, timeout=20, trust_env=False) as nobody:
        response = await nobody.get("/metrics")

    text = response.text
    assert response.headers["content-type"].startswith("text/plain; version=")
    assert sample(text, "surefoot_checked") == 1
    assert sample(text, "surefoot_orphans") == 0
    assert sample(text, "surefoot_workflows", status="running") == 1
    assert sample(text, "surefoot_workflows", status="waiting") == 1
    assert sample(text, "surefoot_workflows", status="paused") == 0
    assert sample(text, "surefoot_doubts") == 1
    assert sample(text, "surefoot_undos_failed") == 1
    assert sample(text, "surefoot_dues", kind="call") == 1
    assert sample(text, "surefoot_dues", kind="delivery") == 0
    assert sample(text, "surefoot_backlog") == 1
    assert sample(text, "surefoot_oldest_due_seconds") >= 1
    assert sample(text, "surefoot_workers") == 1
    assert sample(text, "surefoot_database_time_seconds") >= (await waiting_rows.clock(database)).timestamp() - 3600


async def test_metrics_count_the_orphan_and_name_nobody_when_there_is_one(base_url: str, database: Database) -> None:
    await nothing_open(database)

    async with httpx.AsyncClient(base_url=base_url, timeout=20, trust_env=False) as nobody:
        text = (await nobody.get("/metrics")).text

    assert sample(text, "surefoot_orphans") == 1
    assert str(DEFAULT_TENANT) not in text
    assert "wf_" not in text


async def test_metrics_ask_the_database_once_when_many_scrape(database: Database) -> None:
    readings = Readings()
    await readings.text(database)
    await waiting_rows.due_call(database)

    scraped = await asyncio.gather(*(readings.text(database) for _ in range(5)))

    assert {sample(text.decode(), "surefoot_backlog") for text in scraped} == {0}


async def test_metrics_leave_out_what_is_not_known_when_the_database_is_away() -> None:
    away = Database("postgresql://nobody@127.0.0.1:1/nothing", pool_size=1)

    text = (await Readings().text(away)).decode()
    await away.close()

    assert sample(text, "surefoot_checked") == 0
    assert "surefoot_orphans" not in text
    assert "surefoot_backlog" not in text


def test_metrics_say_when_orphans_could_not_be_counted_in_time() -> None:
    assert sample(render(None, None, age=0).decode(), "surefoot_checked") == 0


async def test_metrics_have_a_series_for_every_status_and_kind(base_url: str) -> None:
    async with httpx.AsyncClient(base_url=base_url, timeout=20, trust_env=False) as nobody:
        text = (await nobody.get("/metrics")).text

    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert {one.labels["kind"] for one in families["surefoot_dues"].samples} == {kind.value for kind in DueKind}
    assert {one.labels["status"] for one in families["surefoot_workflows"].samples} == {
        status.value for status in WorkflowStatus if status not in FINAL_STATUSES
    }
    assert all(family.documentation for family in families.values())
