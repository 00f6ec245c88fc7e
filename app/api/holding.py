"""A request that is held (`Prefer: wait`) until its workflow settles or changes, the time is up, or nobody listens.

    until_settled    it ended, or goes on only after a person did something
    until_changed    it is not what the client has already (`If-None-Match`)

A hint says when a workflow settles (`app/ports/settled_hints.py`); polls find what no hint told. Meanwhile only two
columns of its row are looked at: nobody asks what it looks like before the answer is due.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, nullcontext
from typing import Final
from uuid import UUID

from fastapi import Request

from app.api import preferences, workflow_reading
from app.api.context import services_of, stopping_of
from app.api.workflow_reading import POLLING, POLLS, Reading
from app.store import workflow_glance
from app.store.workflow_glance import State

FIRST_POLL: Final = 0.02
"""Seconds. A held request asks soon at first (a workflow of quick calls takes parts of a second) …"""
HEARD_POLL: Final = 0.25
"""… then less often while hints are heard: what settles is told at once, and a poll is for the hint that was lost …"""
SLOWEST_POLL: Final = 1.0
"""… and ever more slowly: two queries a second for an hour-long workflow help nobody."""
POLL_GROWTH: Final = 1.4


async def until_settled(request: Request, reading: Reading, *, tenant_id: UUID, seconds: float) -> Reading:
    """The last reading: made when it has settled, or the time is up."""
    if reading.settled:
        return reading
    looked = False
    async with aclosing(_looks(request, reading.id, tenant_id=tenant_id, seconds=seconds)) as looks:
        async for state, _ in looks:
            looked = True
            if not state.settled:
                continue
            reading = await workflow_reading.read(request, tenant_id=tenant_id, workflow_id=reading.id)
            if reading.settled:  # else somebody has moved it on meanwhile
                return reading
    return await workflow_reading.read(request, tenant_id=tenant_id, workflow_id=reading.id) if looked else reading


async def until_changed(request: Request, reading: Reading, *, tenant_id: UUID, seconds: float) -> Reading:
    """The last reading. What depends on time (a worker that died) changes without a revision: read now and then."""
    if not preferences.known_etag(request.headers, reading.etag):
        return reading
    async with aclosing(_looks(request, reading.id, tenant_id=tenant_id, seconds=seconds)) as looks:
        async for state, seldom in looks:
            if state.revision == reading.revision and not seldom:
                continue
            reading = await workflow_reading.read(request, tenant_id=tenant_id, workflow_id=reading.id)
            if not preferences.known_etag(request.headers, reading.etag):
                break
    return reading


async def _looks(
    request: Request, workflow_id: UUID, *, tenant_id: UUID, seconds: float
) -> AsyncGenerator[tuple[State, bool], None]:
    """The workflow's state, by and by and at once when a hint says that it has settled; whether looks are as seldom as
    they get. Ends when the time is up, the client is gone, the server stops, or there is no such workflow any more."""
    services, clock, stopping = services_of(request), asyncio.get_running_loop().time, stopping_of(request)
    until, pause = clock() + seconds, FIRST_POLL
    hints = services.settled_hints
    with nullcontext(asyncio.Event()) if hints is None else hints.watching(workflow_id) as settled:
        while clock() < until and not stopping.is_set():
            await first_of(settled, stopping, within=min(pause, max(until - clock(), 0)))
            settled.clear()
            heard = hints is not None and hints.listening
            pause = min(max(pause * POLL_GROWTH, HEARD_POLL if heard else 0), SLOWEST_POLL)
            if await request.is_disconnected():
                return
            async with services.database.hot(POLLS, size=POLLING) as connection:
                state = await workflow_glance.state(connection, tenant_id=tenant_id, workflow_id=workflow_id)
            if state is None:
                return
            yield state, pause >= SLOWEST_POLL


async def first_of(*events: asyncio.Event, within: float) -> None:
    """Until one of them is set, or the time is up."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, timeout=within, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waiting:
            each.cancel()
