"""The same parts as `bench/stack.py`, started and stopped one by one: for benches that take a part away, add one, or
run two databases side by side.

    with site.opened() as here:                       Postgres and Valkey, in a directory that is gone afterwards
        place = here.place("surefoot")                a database with its schema, tenant and key
        tools = here.serve("tools", WAITING_TOOL)     a server that tells its port through a file; its URL
        place.register({"bench.wait": …})
        place.start_api(); place.start_worker("worker.1", {"SUREFOOT_CONCURRENCY": "16"}); place.stop("worker.1")

Every part is the real program in its own process. Durability stays on. API and workers log in as roles of their own,
so that a statement, a session and its CPU time can be told to belong to one of them.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import sql

from app.embedded import homes, listening, parts, process, schema
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.process import Command
from app.embedded.valkey import EmbeddedValkey
from app.embedded.worker_group import WORKER
from app.engine.bootstrapping import ensure_tenant
from app.engine.register_tools import register_tools
from app.store.database import Database

ROLES: Final = ("api", "worker")
WAITING_TOOL: Final = (sys.executable, "-m", "bench.waiting_tool")

START_WITHIN: Final = 60.0
"""Seconds any part has to become ready: importing Python programs on two busy cores takes a few."""

STOP_WITHIN: Final = 30.0
"""Seconds a worker has to drain."""

_POLL: Final = 0.02

_POSTGRES: Final = {"shared_preload_libraries": "pg_stat_statements", "pg_stat_statements.track_utility": "on"}


class Site:
    """Servers that several places share. Make one with `opened`."""

    def __init__(self, *, home: Path, postgres: EmbeddedPostgres, valkey: EmbeddedValkey, exits: ExitStack) -> None:
        self.home = home
        self.postgres = postgres
        self.valkey = valkey
        self.pids: dict[str, int] = {}
        self._exits = exits

    def place(self, name: str, *, redis: int = 0) -> Place:
        """A new database of that name; `redis` is the number of its doorbell."""
        url = self.postgres.ensure_database(name)
        schema.upgrade(url)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION pg_stat_statements")
        key = asyncio.run(_tenant(url))
        return Place(site=self, name=name, key=key, database_url=url, redis_url=self.valkey.url_of(redis))

    def serve(self, name: str, argv: Sequence[str], settings: Mapping[str, str] | None = None) -> str:
        """Start a server that writes its port into `--port-file`; its URL once it listens."""
        port_file = self.home / f"{name}.port"
        child = self.start(name, (*argv, "--port", "0", "--port-file", str(port_file)), own_environment(settings))
        self.wait(name, lambda: listening.read_port(port_file) is not None, child)
        return f"http://127.0.0.1:{listening.read_port(port_file)}"

    def start(
        self, name: str, argv: Sequence[str], environment: Mapping[str, str], *, fds: tuple[int, ...] = ()
    ) -> subprocess.Popen[bytes]:
        command = Command(argv=tuple(argv), env=environment, log=self.log(name), pass_fds=fds)
        child = process.spawn(command)
        self.pids[name] = child.pid
        self._exits.callback(self.end, name, child)
        return child

    def end(self, name: str, child: subprocess.Popen[bytes]) -> None:
        if child.poll() is None:
            process.send(child.pid, signal.SIGTERM)
            if not process.wait_for_end(child.pid, seconds=STOP_WITHIN, child=child):
                child.kill()
                child.wait()
        self.pids.pop(name, None)

    def wait(self, name: str, ready: Callable[[], bool], child: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + START_WITHIN
        while not ready():
            if child.poll() is not None or time.monotonic() > until:
                sys.stderr.write(self.log(name).read_text(errors="replace")[-4000:])
                raise SystemExit(f"bench: {name} did not start")
            time.sleep(_POLL)

    def log(self, name: str) -> Path:
        return self.home / f"{name}.log"


@dataclass(kw_only=True)
class Place:
    """One database, its API and its workers."""

    site: Site
    name: str
    key: str
    database_url: str
    """As the superuser, who is neither API nor worker."""
    redis_url: str
    url: str = ""
    """Of the API, once it is started."""
    _children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.database_url, autocommit=True)

    def register(self, declarations: Mapping[str, Any]) -> None:
        asyncio.run(_register(self.database_url, declarations))

    def start_api(self, settings: Mapping[str, str] | None = None) -> None:
        listener = self.site._exits.enter_context(listening.listen("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        self.url = listening.url_of(listener)
        argv = (*parts.API, "--fd", str(listener.fileno()))
        self._start("api", argv, role="api", settings=settings, ready=lambda: _answers(port), fds=(listener.fileno(),))

    def start_worker(self, name: str, settings: Mapping[str, str] | None = None, *, wait: bool = True) -> int:
        """Its pid; with `wait`, once its row in `workers` says that it is at work."""
        before = self._at_work()
        argv = (*WORKER, "--name", name)
        ready = (lambda: self._at_work() > before) if wait else (lambda: True)
        return self._start(name, argv, role="worker", settings=settings, ready=ready)

    def stop(self, name: str) -> None:
        """End one part in peace: SIGTERM, and wait for its end."""
        self.site.end(f"{self.name}.{name}", self._children.pop(name))

    def pid(self, name: str) -> int:
        return self._children[name].pid

    @property
    def pids(self) -> dict[str, int]:
        """Of the processes that belong to this place only."""
        return {name: child.pid for name, child in self._children.items()}

    def _start(
        self,
        name: str,
        argv: Sequence[str],
        *,
        role: str,
        settings: Mapping[str, str] | None,
        ready: Callable[[], bool],
        fds: tuple[int, ...] = (),
    ) -> int:
        environment = own_environment(settings) | {
            "SUREFOOT_DATABASE_URL": self.database_url.replace("postgres@", f"{role}@", 1),
            "SUREFOOT_REDIS_URL": self.redis_url,
            "SUREFOOT_OUTBOUND_ALLOW": parts.OUTBOUND_DEFAULT,
            # A line per transition costs what it costs in production, too; here it would measure the terminal.
            "SUREFOOT_LOG_LEVEL": "warning",
        }
        whole = f"{self.name}.{name}"
        child = self.site.start(whole, argv, environment, fds=fds)
        self._children[name] = child
        self.site.wait(whole, ready, child)
        return child.pid

    def _at_work(self) -> int:
        with self.connect() as connection:
            row = connection.execute(
                "SELECT count(*) FROM workers WHERE lost_at IS NULL AND stopped_at IS NULL"
            ).fetchone()
            return 0 if row is None else int(row[0])


@contextmanager
def opened(*, postgres: Mapping[str, str] | None = None) -> Iterator[Site]:
    """Postgres (with these settings on top) and Valkey, ready, in a directory that is gone afterwards, also after a
    SIGTERM: a history takes gigabytes. In the main thread only."""
    with ExitStack() as exits:
        exits.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, _asked_to_end))
        home = exits.enter_context(homes.temporary_home())
        server = EmbeddedPostgres(home / "postgres", settings=_POSTGRES | dict(postgres or {}))
        exits.callback(server.stop)
        server.start()
        valkey = EmbeddedValkey(home / "valkey")
        exits.callback(valkey.kill)
        valkey.start()
        with psycopg.connect(server.url, autocommit=True) as connection:
            for role in ROLES:
                connection.execute(sql.SQL("CREATE ROLE {} LOGIN SUPERUSER").format(sql.Identifier(role)))
        yield Site(home=home, postgres=server, valkey=valkey, exits=exits)


def _asked_to_end(number: int, frame: object) -> None:
    raise SystemExit(f"bench: ended by signal {number}; everything it made is removed")


def own_environment(settings: Mapping[str, str] | None = None) -> dict[str, str]:
    """The caller's, without settings of theirs (they would change what is measured), and these instead."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("SUREFOOT_", "ANTHROPIC_", "PG"))}
    return own | dict(settings or {})


async def _tenant(url: str) -> str:
    database = Database(url, pool_size=1)
    try:
        key, _ = await ensure_tenant(database)
        return key
    finally:
        await database.close()


async def _register(url: str, declarations: Mapping[str, Any]) -> None:
    database = Database(url, pool_size=1)
    try:
        await register_tools(database, declarations)
    finally:
        await database.close()


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/livez")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
