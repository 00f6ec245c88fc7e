"""A request that is held until something happens goes on when it is told so, and not only when it asks again."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from app.api import holding
from app.domain.ids import DEFAULT_TENANT
from app.domain.states import settled
from app.store import workflow_glance
from app.store.database import Database
from tests.api import rows, waiting_rows

pytestmark = pytest.mark.anyio

AN_HOUR = 3600.0
PATIENCE = 20.0


@pytest.mark.parametrize("which", [0, 1])
async def test_held_request_looks_at_once_when_it_is_told_that_something_settled_or_the_server_stops(
    which: int,
) -> None:
    told = asyncio.Event(), asyncio.Event()
    held = asyncio.create_task(holding.first_of(*told, within=AN_HOUR))

    told[which].set()

    await asyncio.wait_for(held, PATIENCE)
    assert held.exception() is None


async def test_held_request_looks_by_itself_when_nobody_tells_it_anything() -> None:
    told = asyncio.Event()

    await asyncio.wait_for(holding.first_of(told, within=0.01), PATIENCE)

    assert not told.is_set()


@pytest.mark.parametrize(
    ("status", "more"),
    [
        ("running", {}),
        ("running", {"undos_failed": 1}),
        ("waiting", {"open_calls": 0, "waits": 1}),
        ("waiting", {"waits": 1}),
        ("paused", {}),
        ("failing", {"saga": "held"}),
        ("failing", {"saga": "undo"}),
        ("compensating", {"open_calls": 0, "undos_failed": 1}),
        ("compensating", {"undos_failed": 1}),
        ("cancelling", {}),
    ],
)
async def test_look_at_a_row_says_whether_it_has_settled_as_its_reading_would(
    database: Database, status: str, more: dict[str, Any]
) -> None:
    workflow_id = await rows.workflow(database, status=status, revision=7, **more)

    async with database.hot("test", size=2) as connection:
        state = await workflow_glance.state(connection, tenant_id=DEFAULT_TENANT, workflow_id=workflow_id)
        row = await (
            await connection.execute(
                "SELECT status, saga, undos_failed, open_calls FROM workflows WHERE id = %s", (workflow_id,)
            )
        ).fetchone()

    assert row is not None
    assert state == workflow_glance.State(revision=7, settled=settled(**row))


@pytest.mark.parametrize("kind", ["saga_held", "compensation_failed"])
async def test_held_request_is_told_of_what_needs_an_operator(database: Database, kind: str) -> None:
    workflow_id = await waiting_rows.STORIES[kind](database)

    async with database.hot("test", size=2) as connection:
        state = await workflow_glance.state(connection, tenant_id=DEFAULT_TENANT, workflow_id=workflow_id)

    assert state is not None
    assert state.settled


async def test_held_request_ends_with_what_the_workflow_is_then_when_its_time_is_up(
    api: httpx.AsyncClient, database: Database
) -> None:
    workflow_id = await rows.workflow(database, status="running", revision=4)
    waiting = asyncio.create_task(api.get(rows.path(workflow_id), headers={"Prefer": "wait=1"}))
    await asyncio.wait({waiting}, timeout=0.2)

    await rows.change(database, "UPDATE workflows SET revision = 5, effects_done = 3")
    response = await waiting

    assert response.json()["status"] == "running"
    assert response.headers["etag"].startswith('"5')
