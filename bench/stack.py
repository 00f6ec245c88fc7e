"""Everything the bench measures, on this machine: Postgres, Valkey, the API, worker processes, the noop tool.

Each part is the real program in its own process, as `surefoot up` starts it, with two differences: Postgres keeps
`pg_stat_statements`, and API and workers log in as roles of their own, so that a statement can be told to belong to
one of them. Durability stays on: what is measured is what is promised.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql

from app.embedded import homes, listening, parts, process, schema, tools
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.process import Command
from app.embedded.valkey import EmbeddedValkey
from app.embedded.worker_group import WORKER
from app.engine.bootstrapping import ensure_tenant
from app.engine.register_tools import register_tools
from app.store.database import Database
from bench import instant_tools

DATABASE: Final = "surefoot"
ROLES: Final = ("api", "worker")
OVER_HTTP: Final = "demo.noop"
IN_PROCESS: Final = "bench.noop"
"""The same nothing as an HTTP call to a local server, and as a Python function in the worker."""

START_WITHIN: Final = 60.0
"""Seconds any part has to become ready: importing Python programs on two busy cores takes a few."""

STOP_WITHIN: Final = 20.0
"""Seconds a worker has to drain: nothing is open by then."""

_POLL: Final = 0.05

_POSTGRES: Final = {"shared_preload_libraries": "pg_stat_statements", "pg_stat_statements.track_utility": "on"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Stack:
    url: str
    key: str
    database_url: str
    """As the superuser, who is neither API nor worker."""
    pids: Mapping[str, int]
    """api, worker.1 …, tools, valkey, postgres (the postmaster)."""
    logs: Path


@contextmanager
def running(*, processes: int) -> Iterator[Stack]:
    """The whole stack, ready, in a directory that is gone afterwards."""
    with ExitStack() as stack:
        home = stack.enter_context(homes.temporary_home())
        postgres, valkey = EmbeddedPostgres(home / "postgres", settings=_POSTGRES), EmbeddedValkey(home / "valkey")
        stack.callback(postgres.stop)
        postgres.start()
        stack.callback(valkey.kill)
        valkey.start()
        owner = postgres.ensure_database(DATABASE)
        schema.upgrade(owner)
        _make_roles(owner)
        environment = _environment(owner, valkey.url, site=instant_tools.site(home / "site"))
        tools_port = home / "tools.port"
        argv = (*parts.TOOLS, "--port", "0", "--port-file", str(tools_port))
        noop = _start(stack, "tools", argv, environment, home)
        _await("the noop tool", lambda: listening.read_port(tools_port) is not None, noop, home / "tools.log")
        key = asyncio.run(_prepare(owner, f"http://127.0.0.1:{listening.read_port(tools_port)}"))
        listener = stack.enter_context(listening.listen("127.0.0.1", 0))
        api_argv = (*parts.API, "--fd", str(listener.fileno()))
        api = _start(stack, "api", api_argv, _as(environment, "api"), home, fds=(listener.fileno(),))
        workers = {
            name: _start(stack, name, (*WORKER, "--name", name), _as(environment, "worker"), home)
            for name in (f"worker.{n}" for n in range(1, processes + 1))
        }
        port: int = listener.getsockname()[1]
        _await("the API", lambda: _answers(port), api, home / "api.log")
        for name, child in workers.items():
            _await(name, lambda: _at_work(owner) >= processes, child, home / f"{name}.log")
        pids = {"api": api, "tools": noop, **workers}
        yield Stack(
            url=listening.url_of(listener),
            key=key,
            database_url=owner,
            pids={n: p.pid for n, p in pids.items()} | {"valkey": valkey.pid or 0, "postgres": postgres.pid or 0},
            logs=home,
        )


def _start(
    stack: ExitStack,
    name: str,
    argv: tuple[str, ...],
    environment: Mapping[str, str],
    home: Path,
    *,
    fds: tuple[int, ...] = (),
) -> subprocess.Popen[bytes]:
    child = process.spawn(Command(argv=argv, env=environment, log=home / f"{name}.log", pass_fds=fds))
    stack.callback(_end, child)
    return child


def _end(child: subprocess.Popen[bytes]) -> None:
    process.send(child.pid, signal.SIGTERM)
    if not process.wait_for_end(child.pid, seconds=STOP_WITHIN, child=child):
        child.kill()
        child.wait()


def _await(what: str, ready: Callable[[], bool], child: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_WITHIN
    while not ready():
        if child.poll() is not None or time.monotonic() > until:
            sys.stderr.write(log.read_text(errors="replace")[-4000:])
            raise SystemExit(f"bench: {what} did not start")
        time.sleep(_POLL)


def _environment(database_url: str, redis_url: str, *, site: Path) -> dict[str, str]:
    """The caller's, without settings of theirs: they would change what is measured."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("SUREFOOT_", "ANTHROPIC_", "PG"))}
    return own | {
        "PYTHONPATH": os.pathsep.join((str(Path.cwd()), str(site))),
        "SUREFOOT_DATABASE_URL": database_url,
        "SUREFOOT_REDIS_URL": redis_url,
        "SUREFOOT_OUTBOUND_ALLOW": parts.OUTBOUND_DEFAULT,
        # A line per transition costs what it costs in production, too; here it would measure the terminal.
        "SUREFOOT_LOG_LEVEL": "warning",
    }


def _as(environment: Mapping[str, str], role: str) -> dict[str, str]:
    url = environment["SUREFOOT_DATABASE_URL"].replace("postgres@", f"{role}@", 1)
    return {**environment, "SUREFOOT_DATABASE_URL": url}


def _make_roles(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION pg_stat_statements")
        for role in ROLES:
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN SUPERUSER").format(sql.Identifier(role)))


async def _prepare(url: str, tools_url: str) -> str:
    """A tenant and the noop tool; the tenant's key."""
    database = Database(url, pool_size=1)
    try:
        declared = {OVER_HTTP: tools.noop_declaration(tools_url), IN_PROCESS: instant_tools.DECLARATION}
        key, _ = await ensure_tenant(database)
        await register_tools(database, declared)
        return key
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


def _at_work(url: str) -> int:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute("SELECT count(*) FROM workers WHERE lost_at IS NULL AND stopped_at IS NULL").fetchone()
        return 0 if row is None else int(row[0])
