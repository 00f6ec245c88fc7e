"""A process whose loop hangs looks dead for as long as it hangs, also after it has been reported as stuck."""

from __future__ import annotations

from datetime import datetime

import psycopg
import pytest

from app.engine.lease import STUCK_AFTER, Lease

pytestmark = pytest.mark.anyio


async def test_worker_stays_silent_when_its_loop_hangs_for_longer_than_it_takes_to_report_it(database_url: str) -> None:
    lease = Lease(database_url, name="worker.1", slots=1, lease=60.0, heartbeat=0.02, margin=2.0)
    await lease.start()
    with psycopg.connect(database_url, autocommit=True) as database:
        # The loop is blocked by what waits in the database; a beat that was on its way is over after the first.
        before = _beat_after(database, seconds=0.5)
        after = _beat_after(database, seconds=2.5 * STUCK_AFTER)
    await lease.stop()

    assert before == after


def _beat_after(database: psycopg.Connection, *, seconds: float) -> datetime:
    database.execute("SELECT pg_sleep(%s)", [seconds])
    found = database.execute("SELECT beat_at FROM workers").fetchone()
    assert found is not None
    beat: datetime = found[0]
    return beat
