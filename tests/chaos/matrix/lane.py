"""One lane: a database of its own on the shared Postgres, an API, a rescuer, and victims that come and go.

    Lane      submit, operate, rows; `victim(order)`, `bury`; `rescue` opens the rescuer's gate
    KNOBS     short leases, so that losing one is seen within seconds

The victim hears the doorbells of Redis database 2n, where the API rings. The rescuer hears 2n + 1, where only it rings,
and sweeps only while its gate is open: until then the victim is the only one who works.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import signal
import socket
from typing import Any, Final
from urllib.parse import urlsplit

import psycopg
import redis
from psycopg.rows import dict_row

from app.embedded import listening, parts
from app.embedded.verbs import identify
from app.store import workers
from tests.chaos.matrix.stack import TEMPLATE, Process, Stack
from tests.chaos.matrix.standstill import Order
from tests.e2e.driver import Row, until

KNOBS: Final = {
    "SUREFOOT_LEASE": "2.5",
    "SUREFOOT_HEARTBEAT": "0.4",
    "SUREFOOT_SWEEP": "0.15",
    "SUREFOOT_FENCE_MARGIN": "0.5",
    "SUREFOOT_DELIVERY_TIMEOUT": "1",
    "SUREFOOT_MODEL_TIMEOUT": "5",
    "SUREFOOT_POISON_AFTER": "9",
    "SUREFOOT_LOG_LEVEL": "info",
}

BELLS: Final = ("calls", "deliveries")
"""The lists in Redis."""

START_WITHIN: Final = 30.0
ANSWER_WITHIN: Final = 10.0
"""Seconds for one HTTP answer: a frozen API gives none."""


class Answer:
    def __init__(self, *, status: int, text: bytes) -> None:
        self.status, self.text = status, text

    @property
    def json(self) -> Row:
        found: Row = json.loads(self.text)
        return found


class Lane:
    def __init__(self, stack: Stack, number: int) -> None:
        self.stack, self.number = stack, number
        name = f"lane_{number}"
        with psycopg.connect(stack.postgres.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY wal_log")
        self.url = stack.postgres.url_of(name)
        identity = asyncio.run(identify(self.url, None))
        self.key, self.webhook_secret = identity.key, identity.webhook_secret
        self.tools = stack.serve_tools(name)
        self.receiver = stack.receiver
        self._numbers = 0
        self._rows: psycopg.Connection[Row] | None = None
        self.bells = [redis.Redis.from_url(stack.valkey.url_of(2 * number + n)) for n in (0, 1)]
        self.api = listening.listen("127.0.0.1", 0)
        self._api = self._start("api", listener=self.api, bell=0)
        self.rescuer = self._start("worker", role="rescuer", bell=1)
        until("the API answers", lambda: self._answers(), seconds=START_WITHIN)
        self.rescuer.channel.hear(within=START_WITHIN)

    # --- processes ---

    def _start(
        self,
        what: str,
        *,
        bell: int,
        role: str | None = None,
        order: Order | None = None,
        listener: socket.socket | None = None,
    ) -> Process:
        self._numbers += 1
        environment = {
            **self.stack.environment,
            **KNOBS,
            "SUREFOOT_DATABASE_URL": self.url,
            "SUREFOOT_REDIS_URL": self.stack.valkey.url_of(2 * self.number + bell),
            "SUREFOOT_OUTBOUND_ALLOW": parts.OUTBOUND_DEFAULT,
            "ANTHROPIC_BASE_URL": self.stack.model_url,
            "ANTHROPIC_API_KEY": "scripted",
        }
        name = f"lane{self.number}.{role or what}.{self._numbers}"
        return self.stack.nursery.start(what, name=name, environment=environment, order=order, listener=listener)

    def victim(self, order: Order) -> Process:
        """A worker that will stand still where the order says; at work when this returns."""
        found = self._start("worker", role="victim", order=order, bell=0)
        found.channel.hear(within=START_WITHIN)
        return found

    def victim_api(self, order: Order, listener: socket.socket) -> Process:
        """Another API over the same database; it rings where the rescuer hears it."""
        found = self._start("api", role="victim-api", order=order, listener=listener, bell=1)
        until("the other API answers", lambda: self._answers(listener), seconds=START_WITHIN)
        return found

    def bury(self, dead: Process) -> None:
        """Its parent waits for it and writes down that it is dead, as the supervisor does."""
        self.stack.nursery.reap(dead.pid)
        self.prove_dead(dead.pid)

    def prove_dead(self, pid: int) -> None:
        machine = workers.this_machine()
        with psycopg.connect(self.url, autocommit=True) as connection:
            workers.reaped(connection, host=machine.host, boot_id=machine.boot_id, pid=pid)

    def end(self, one: Process) -> None:
        """Over with it, whatever state it is in."""
        one.signal(signal.SIGKILL)
        self.bury(one)
        one.channel.close()

    def rescue(self, *, on: bool) -> None:
        self.rescuer.channel.say(gate=on)
        self.rescuer.channel.hear(within=START_WITHIN)

    def silence(self) -> None:
        """No doorbell of an earlier round is left."""
        for bell in self.bells:
            bell.flushdb()

    def ring_through(self) -> None:
        """What the API has rung reaches the rescuer (at once; without this its sweep finds it in two seconds)."""
        for lane in BELLS:
            self.bells[0].move(lane, 2 * self.number + 1)

    def stop(self) -> None:
        for one in (self.rescuer, self._api):
            one.signal(signal.SIGKILL)
            self.stack.nursery.reap(one.pid)
            one.channel.close()
        self.api.close()
        self.tools.close()
        if self._rows is not None:
            self._rows.close()
        for bell in self.bells:
            bell.close()

    # --- the API ---

    def post(self, path: str, body: Any, *, key: str | None = None, listener: socket.socket | None = None) -> Answer:
        """One request on a connection of its own. Raises OSError and HTTPException as the network does."""
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        if key is not None:
            headers["Idempotency-Key"] = key
        place = urlsplit(listening.url_of(listener or self.api))
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=ANSWER_WITHIN)
        try:
            connection.request("POST", path, body=json.dumps(body), headers=headers)
            answer = connection.getresponse()
            return Answer(status=answer.status, text=answer.read())
        finally:
            connection.close()

    def _answers(self, listener: socket.socket | None = None) -> bool:
        place = urlsplit(listening.url_of(listener or self.api))
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=ANSWER_WITHIN)
        try:
            connection.request("GET", "/livez")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    # --- the database ---

    def there(self, sql: str, **parameters: Any) -> bool:
        """Whether there is such a row."""
        return bool(self.rows(sql, **parameters))

    def rows(self, sql: str, **parameters: Any) -> list[Row]:
        """Read; once more on a new connection if Postgres has been away meanwhile."""
        try:
            return self._connected().execute(sql, parameters).fetchall()
        except psycopg.OperationalError:
            self._connected().close()
            return self._connected().execute(sql, parameters).fetchall()

    def _connected(self) -> psycopg.Connection[Row]:
        if self._rows is None or self._rows.closed:
            self._rows = psycopg.connect(self.url, autocommit=True, row_factory=dict_row)
        return self._rows
