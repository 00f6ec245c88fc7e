"""One running Surefoot for the end-to-end tests: `surefoot up` as a child, its processes, its tools' books.

    Installation   start, stop; ready file, pids, signals; the API; rows of its database; locks that hold a moment open
    Tools          the demo tools: told how to misbehave, asked what they really did
    until          wait for a condition, fail with what was waited for

Signals go only to processes that this installation's own ready file names. Never: looks into Surefoot's memory, or
believes its database about what happened in the world.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import UUID, uuid4

import httpx
import psycopg
from psycopg.rows import dict_row

from app.domain import ids
from app.embedded import process

REPOSITORY: Final = Path(__file__).parents[2]

KNOBS: Final = {
    "SUREFOOT_LEASE": "3",
    "SUREFOOT_HEARTBEAT": "0.5",
    "SUREFOOT_SWEEP": "0.3",
    "SUREFOOT_FENCE_MARGIN": "0.5",
    "SUREFOOT_DELIVERY_TIMEOUT": "3",
}
"""Short leases, so that losing one is seen within seconds."""

START_WITHIN: Final = 100.0
"""Seconds: a cold machine unpacks Postgres first, a busy one takes its time."""
STOP_WITHIN: Final = 40.0

DEATHS: Final = 4
DEATHS_WITHIN: Final = 31.0
"""A supervisor gives a child up at its fifth death within 30 s; nothing here may look like such a child."""

LOOK: Final = 0.03
"""Seconds between two looks at a condition."""

FREEZES: Final = 10
AT_REST: Final = 0.5
"""Seconds in which whoever runs has ended its transaction: whose is still open is frozen inside it."""

_JUST_OPENED: Final = """
SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'surefoot %%'
  AND xact_start BETWEEN %s - interval '1 second' AND %s"""
_WAITING: Final = """
SELECT pid, application_name, state, clock_timestamp() - xact_start AS open_for, pg_blocking_pids(pid) AS behind,
  left(query, 200) AS query
FROM pg_stat_activity WHERE datname = current_database() AND xact_start < clock_timestamp() - interval '1 second'"""

Found = TypeVar("Found")
Row = dict[str, Any]


def until(what: str, condition: Callable[[], Found | None], *, seconds: float = 20.0) -> Found:
    """Wait until the condition holds and return what it found."""
    end, tick = time.monotonic() + seconds, threading.Event()
    while not (found := condition()):
        assert time.monotonic() < end, f"waited {seconds:.0f} s in vain: {what}"
        tick.wait(LOOK)
    assert found is not None
    return found


class Installation:
    def __init__(self, folder: Path, *, environment: Mapping[str, str] | None = None) -> None:
        """`environment`: settings beside `KNOBS`, as the address of a Postgres that the test itself runs."""
        self._folder = folder
        self._environment = {**KNOBS, **(environment or {})}
        self._deaths: dict[str, deque[float]] = defaultdict(deque)
        self._child: subprocess.Popen[bytes] | None = None
        self._frozen: set[int] = set()
        self.log = folder / "up.log"

    # --- life ---

    def start(self) -> None:
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("SUREFOOT_", "ANTHROPIC_"))
        }
        arguments = ("up", "--ephemeral", "--port", "0", "--ready-file", str(self._folder / "ready.json"))
        self._child = process.spawn(
            process.Command(
                argv=(sys.executable, "-m", "app.cli.main", *arguments),
                env={**inherited, **self._environment},
                cwd=REPOSITORY,
                log=self.log,
            )
        )
        until("everything is up", lambda: self._is_up(), seconds=START_WITHIN)
        ready = self.ready
        self.http = httpx.Client(
            base_url=ready["url"],
            headers={"Authorization": f"Bearer {ready['key']}"},
            # A connection of its own for every request: the other end may have been killed since the last one.
            limits=httpx.Limits(max_keepalive_connections=0),
            trust_env=False,
            timeout=30.0,
        )
        self.tools = Tools(ready["tools_url"])

    def stop(self) -> None:
        self.thaw()
        if self._child is None:
            return
        self.http.close()
        self.tools.close()
        self._child.send_signal(signal.SIGTERM)
        try:
            self._child.wait(STOP_WITHIN)
        except subprocess.TimeoutExpired:
            self._child.send_signal(signal.SIGTERM)  # the second signal ends everything at once
            self._child.wait(STOP_WITHIN)

    def _is_up(self) -> bool:
        assert self._child is not None
        assert self._child.poll() is None, self.log.read_text()[-3000:]
        return (self._folder / "ready.json").exists()

    # --- processes ---

    @property
    def ready(self) -> Row:
        """As it is now: the pids change when a child was restarted."""
        found: Row = json.loads((self._folder / "ready.json").read_text())
        return found

    @property
    def workers(self) -> dict[str, int]:
        return {name: pid for name, pid in self.ready["pids"].items() if name.startswith("worker.")}

    def name_of(self, pid: int) -> str:
        return next(name for name, its in self.ready["pids"].items() if its == pid)

    def signal(self, names: Sequence[str], number: signal.Signals) -> dict[str, int]:
        """Send it to these children and return their pids. Waits first if one of them has died too often of late."""
        pids: Mapping[str, int] = self.ready["pids"]
        for name in names:
            until(f"{name} may die again", lambda name=name: self._may_die(name), seconds=DEATHS_WITHIN)
            self._deaths[name].append(time.monotonic())
        for name in names:
            os.kill(pids[name], number)
        return {name: pids[name] for name in names}

    def kill(self, *names: str) -> dict[str, int]:
        """SIGKILL, and gone when this returns."""
        pids = self.signal(names, signal.SIGKILL)
        for name, pid in pids.items():
            until(f"{name} is dead", lambda pid=pid: not process.alive(pid))
        return pids

    def until_back(self, pids: Mapping[str, int]) -> None:
        """Wait until each of these children runs again, as another process."""
        for name, pid in pids.items():
            until(f"{name} is back", lambda name=name, pid=pid: self.ready["pids"][name] not in (None, pid), seconds=30)

    def freeze(self, *names: str) -> None:
        for name in names:
            pid = self.ready["pids"][name]
            self._frozen.add(pid)
            os.kill(pid, signal.SIGSTOP)

    def freeze_at_rest(self, *names: str) -> list[int]:
        """Freeze them where none of them is inside a transaction, and return their pids. What one has locked it would
        keep from everybody until Postgres ends its transaction, a minute later (`tests/engine/test_standing_still.py`);
        they sweep three times a second."""
        pids = [self.ready["pids"][name] for name in names]
        for _ in range(FREEZES):
            self.freeze(*names)
            frozen = self.rows("SELECT clock_timestamp() AS at")[0]["at"]
            try:
                until("nothing is open", lambda at=frozen: not self.rows(_JUST_OPENED, at, at), seconds=AT_REST)
                return pids
            except AssertionError:
                self.thaw_only(*pids)
        raise AssertionError(f"frozen {FREEZES} times, and each time inside a transaction: {self.waiting()}")

    def thaw(self) -> None:
        self.thaw_only(*self._frozen)

    def thaw_only(self, *pids: int) -> None:
        for pid in pids:
            process.send(pid, signal.SIGCONT)
        self._frozen.difference_update(pids)

    def _may_die(self, name: str) -> bool:
        deaths, now = self._deaths[name], time.monotonic()
        while deaths and now - deaths[0] > DEATHS_WITHIN:
            deaths.popleft()
        return len(deaths) < DEATHS

    # --- the API ---

    def submit(self, definition: Row, *, key: str | None = None, **rest: Any) -> str:
        answer = self.http.post(
            "/v1/workflows",
            json={"definition": definition, **rest},
            headers={"Idempotency-Key": key or uuid4().hex},
        )
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def workflow(self, workflow: str) -> Row:
        return self._get(f"/v1/workflows/{workflow}")

    def step(self, workflow: str, path: str) -> Row:
        return self._get(f"/v1/workflows/{workflow}/steps/{path}")

    def effects(self, workflow: str) -> list[Row]:
        found: list[Row] = self._get(f"/v1/workflows/{workflow}/effects?limit=200")["data"]
        return found

    def resolve(self, effect: str, outcome: str, *, result: Any = None) -> httpx.Response:
        body = {"outcome": outcome, "note": "looked into the tool's ledger", "result": result}
        return self.http.post(f"/v1/effects/{effect}/resolve", json=body)

    def until_status(self, workflow: str, *wanted: str, seconds: float = 25.0) -> Row:
        def look() -> Row | None:
            found = self.workflow(workflow)
            return found if found["status"] in wanted else None

        try:
            return until(f"{workflow} is {' or '.join(wanted)}", look, seconds=seconds)
        except AssertionError as error:
            now = self.workflow(workflow)
            told = f"{error}; it is {now['status']}: {now['headline']} {now['failure']}"
            raise AssertionError("\n".join([told, *self.waiting(), *map(str, self.attempts(workflow))])) from None

    def _get(self, path: str) -> Row:
        answer = self.http.get(path)
        assert answer.status_code == 200, answer.text
        found: Row = answer.json()
        return found

    # --- its database ---

    def rows(self, sql: str, *parameters: Any) -> list[Row]:
        with psycopg.connect(self.ready["database_url"], autocommit=True, row_factory=dict_row) as connection:
            return connection.execute(sql, parameters).fetchall()

    def waiting(self) -> list[str]:
        """Which transactions are open in Postgres for more than a second, and behind whom they wait."""
        return [str(row) for row in self.rows(_WAITING)]

    def attempts(self, workflow: str) -> list[Row]:
        """Every attempt of a workflow, in order, with the process that made it."""
        return self.rows(
            "SELECT a.*, c.state, c.tool, w.name AS worker_name, w.pid, w.reaped_at FROM attempts a "
            "JOIN calls c ON c.workflow_id = a.workflow_id AND c.id = a.call_id JOIN workers w ON w.id = a.worker "
            "WHERE a.workflow_id = %s ORDER BY a.intended_at, a.n",
            uuid_of(workflow),
        )

    @contextmanager
    def locked(self, table: str) -> Iterator[Lock]:
        """Nobody else gets at this table inside: what needs it stops exactly there. Let go early with `release`."""
        connection = psycopg.connect(self.ready["database_url"], row_factory=dict_row)
        try:
            connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            yield Lock(self, connection)
        finally:
            connection.close()  # and not the end of a transaction: Postgres may have been stopped meanwhile


class Lock:
    """A table nobody else gets at, and who stands before it."""

    def __init__(self, up: Installation, connection: psycopg.Connection[Row]) -> None:
        self._up, self._connection = up, connection

    def waiting(self, application: str, query: str = "%") -> bool:
        """Whether a session of that name waits for this lock with a query like that."""
        # Asked on another connection: inside one transaction these views never change.
        found = self._up.rows(
            "SELECT pid FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid)) "
            "AND application_name = %s AND query LIKE %s",
            self._connection.info.backend_pid,
            application,
            query,
        )
        return bool(found)

    def release(self) -> None:
        self._connection.rollback()


class Tools:
    """The demo tools: their behaviour and their books."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = httpx.Client(base_url=url, trust_env=False, timeout=10.0)

    def behave(self, **rule: Any) -> None:
        answer = self._http.post("/behave", json=rule)
        assert answer.status_code == 200, answer.text

    def forget_rules(self) -> None:
        self._http.delete("/behave").raise_for_status()

    def held(self) -> list[Row]:
        found: list[Row] = self._http.get("/held").json()["data"]
        return found

    def held_marks(self, tool: str) -> set[str]:
        """Every text in the arguments of what is held of that tool, tags among them."""
        return {
            value
            for held in self.held()
            if held["tool"] == tool
            for value in held["arguments"].values()
            if isinstance(value, str)
        }

    def release(self, tool: str | None = None, *, drop: bool = False) -> None:
        self._http.post("/release", json={"tool": tool, "drop": drop}).raise_for_status()

    def ledger(self) -> list[Row]:
        found: list[Row] = self._http.get("/ledger").json()["data"]
        return found

    def close(self) -> None:
        self._http.close()


def uuid_of(workflow: str) -> UUID:
    return ids.decode("wf", workflow)
