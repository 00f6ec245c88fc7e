"""`surefoot up`: everything on this machine in one command, until Ctrl-C.

Order of a start: the data directory is locked and the port taken (what can be refused is refused at once), Postgres
and Valkey while the scripted model and the demo tools start beside them, migrations, tenant and key, the tools'
registration, the API and the workers together; then the ready file. A stop goes the same way backwards: workers
drain, the API ends its answers, Valkey, Postgres last. `SUREFOOT_DATABASE_URL`, `SUREFOOT_REDIS_URL` and
`ANTHROPIC_API_KEY` each replace a part.

    DATA/lock  DATA/ready.json  DATA/key  DATA/postgres/  DATA/redis/  DATA/run/*.port  DATA/tools.jsonl

Never: opens anything to the network by itself (Postgres and Valkey have Unix sockets only, the rest is loopback).
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from app.embedded import homes, listening, parts, ready, worker_group
from app.embedded.home_lock import HomeLock
from app.embedded.parts import Commands, PortPart
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.refusal import CannotStart
from app.embedded.supervisor import Death, Supervisor, print_line
from app.embedded.valkey import EmbeddedValkey
from app.embedded.worker_group import WorkerGroup
from app.settings import Settings

DATABASE: Final = "surefoot"
PROVIDER: Final = "https://api.anthropic.com"
"""What the SDK talks to when nobody names another base URL; shown in the ready file only."""

Say = Callable[[str, str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """Who a client of this installation is."""

    key: str
    webhook_secret: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Verbs:
    """What `up` asks of the rooms below: given by the command line, so that this file can be tried without them."""

    migrate: Callable[[str], object]
    """Bring the database at this URL to the newest revision. Blocks."""
    identify: Callable[[str, Identity | None], Awaitable[Identity]]
    """The default tenant's key and secret in that database; the ones we had, if they are still valid there."""
    register: Callable[[str, str], Awaitable[None]]
    """Register the demo tools (their base URL) in the database (its URL)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    settings: Settings
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    data: Path = Path(".surefoot")
    port: int | None = None
    """None: the setting's."""
    workers: int | None = None
    ready_file: Path | None = None
    """None: `ready.json` in the data directory."""
    ephemeral: bool = False


async def up(
    options: Options,
    *,
    verbs: Callable[[], Verbs],
    commands: Commands | None = None,
    say: Say = print_line,
    welcome: Callable[[ready.Ready], None] = lambda _: None,
) -> None:
    """Run until a signal asks to stop. Raises `CannotStart`, after everything that was started has been stopped.

    `verbs` is asked in a thread while Postgres starts: importing what is behind them takes a second.
    """
    with ExitStack() as stack:
        stopping = asyncio.Event()
        running: list[_Up] = []
        # Before anything is taken: a Ctrl-C that comes now must find somebody who lets go of it again.
        worker_group.on_signals(stopping, hurry=lambda: _hurry(running))
        data = stack.enter_context(homes.temporary_home()) if options.ephemeral else _data_directory(options.data)
        lock = HomeLock(data / "lock")  # before the port: who starts twice by mistake is told about the first
        stack.callback(lock.release)
        port = options.settings.port if options.port is None else options.port
        listener = stack.enter_context(listening.listen(options.settings.host, port))
        lock.tell(url=listening.url_of(listener))
        run = _Up(options=options, verbs=verbs, commands=commands or Commands(), data=data, listener=listener, say=say)
        running.append(run)
        try:
            if await worker_group.unless(stopping, run.start()):
                welcome(run.write_ready())
                await run.supervisor.run(stopping)
        finally:
            await run.stop()


def _hurry(running: Sequence[_Up]) -> None:
    for run in running:
        run.supervisor.hurry()


class _Up:
    """One run of it: the parts as they become known."""

    def __init__(
        self,
        *,
        options: Options,
        verbs: Callable[[], Verbs],
        commands: Commands,
        data: Path,
        listener: socket.socket,
        say: Say,
    ) -> None:
        self._options, self._load_verbs, self._commands = options, verbs, commands
        self._verbs: Verbs  # known once the stores have started
        self._data, self._listener, self._say = data, listener, say
        self._settings = options.settings
        self._ready_file = options.ready_file or data / "ready.json"
        self._written = False
        self._environment = self._first_environment()
        self._group: WorkerGroup | None = None
        self._identity: Identity | None = None
        self._database_url = ""
        self._redis_url = ""
        # The demo's model and tools know neither database nor queue: they start while Postgres does.
        tools_argv = (*self._commands.tools, "--ledger", str(data / "tools.jsonl"))
        self._tools = PortPart(name="tools", argv=tools_argv, environment=self._environment, run=data / "run")
        self._model: PortPart | None = None
        if options.settings.anthropic_api_key is None:
            self._model = PortPart(
                name="model", argv=self._commands.model, environment=self._environment, run=data / "run"
            )
        self.supervisor = Supervisor(say=say, died=self._died, changed=self._changed, before_kill=self._before_kill)

    # --- start ---

    async def start(self) -> None:
        (self._data / "run").mkdir(exist_ok=True)
        demo = [self._tools] if self._model is None else [self._tools, self._model]
        await _together(self._start_stores(), self.supervisor.start(*(part.child for part in demo)))
        await self._verbs.register(self._database_url, self._tools.url)
        self._environment |= {
            "SUREFOOT_DATABASE_URL": self._database_url,
            "SUREFOOT_REDIS_URL": self._redis_url,
        }
        if self._model is not None:
            if self._settings.anthropic_base_url:
                self._say(
                    "surefoot", "ANTHROPIC_BASE_URL is set and ANTHROPIC_API_KEY is not: the scripted model answers"
                )
            self._environment |= {"ANTHROPIC_BASE_URL": self._model.url, "ANTHROPIC_API_KEY": "scripted"}
        count = self._options.workers or self._settings.worker_processes
        self._group = WorkerGroup(
            count=count,
            database_url=self._database_url,
            environment=self._environment,
            argv=self._commands.worker,
        )
        api = parts.api(argv=self._commands.api, environment=self._environment, listener=self._listener)
        await _together(self.supervisor.start(api), self.supervisor.start(*self._group.children))

    async def _start_stores(self) -> None:
        """Postgres with schema, tenant and key; Valkey. Each ours, or the one that a setting names."""
        children = []
        postgres = None
        if not self._settings.database_url:
            postgres = EmbeddedPostgres(self._data / "postgres")
            children.append(parts.postgres(postgres))
        if not self._settings.redis_url:
            valkey = EmbeddedValkey(self._data / "redis")
            self._redis_url = valkey.url
            children.append(parts.valkey(valkey))
        else:
            self._redis_url = self._settings.redis_url
        await _together(self.supervisor.start(*children), self._load())
        if postgres is not None:
            self._database_url = await asyncio.to_thread(postgres.ensure_database, DATABASE)
        else:
            self._database_url = self._settings.database_url
            await worker_group.await_database(self._database_url, say=self._say)
        if self._settings.redis_url:
            await warn_without_redis(self._redis_url, say=self._say)
        await asyncio.to_thread(self._verbs.migrate, self._database_url)
        await self._identify()

    async def _load(self) -> None:
        self._verbs = await asyncio.to_thread(self._load_verbs)

    async def _identify(self) -> None:
        path = self._data / "key"
        known: Identity | None = None
        if path.exists():
            told = json.loads(path.read_text())
            known = Identity(key=told["key"], webhook_secret=told["webhook_secret"])
        self._identity = await self._verbs.identify(self._database_url, known)
        if self._identity != known:
            text = json.dumps({"key": self._identity.key, "webhook_secret": self._identity.webhook_secret})
            ready.private_file(path, text + "\n")

    def _first_environment(self) -> dict[str, str]:
        host, port = self._listener.getsockname()[:2]
        told = {"SUREFOOT_HOST": str(host), "SUREFOOT_PORT": str(port), "PYTHONUNBUFFERED": "1"}
        mine = {"SUREFOOT_OUTBOUND_ALLOW": parts.OUTBOUND_DEFAULT, "SUREFOOT_MCP_COMMANDS": parts.MCP_DEFAULT}
        given = {**mine, **self._options.environment}
        return {**given, **told}

    # --- while it runs ---

    def write_ready(self) -> ready.Ready:
        found = self._ready(self.supervisor.pids)
        ready.write(self._ready_file, found)
        self._written = True
        return found

    def _ready(self, pids: Mapping[str, int]) -> ready.Ready:
        if self._identity is None or self._group is None:
            raise RuntimeError("not started")
        names = ("api", "postgres", "redis", "model", "tools", *self._group.names)
        model_url = self._model.url if self._model is not None else self._settings.anthropic_base_url or PROVIDER
        return ready.Ready(
            url=listening.url_of(self._listener),
            key=self._identity.key,
            webhook_secret=self._identity.webhook_secret,
            database_url=self._database_url,
            redis_url=self._redis_url,
            model_url=model_url,
            tools_url=self._tools.url,
            data=str(self._data.resolve()),
            pids={"supervisor": os.getpid(), **{name: pids.get(name) for name in names}},
        )

    def _changed(self, pids: Mapping[str, int]) -> None:
        if self._written:
            ready.write(self._ready_file, self._ready(pids))

    async def _died(self, death: Death) -> None:
        if self._group is not None:
            await self._group.died(death)

    async def _before_kill(self, name: str, pid: int) -> None:
        if self._group is not None:
            await self._group.before_kill(name, pid, say=self._say)

    # --- stop ---

    async def stop(self) -> None:
        if self._written:
            self._say("surefoot", "stopping: workers first, Postgres last")
            ready.remove(self._ready_file, supervisor=os.getpid())
        if self._group is not None:
            await worker_group.drain(group=self._group, say=self._say, supervisor=self.supervisor)
        self._listener.close()  # nobody behind it any more: clients are refused, not kept waiting
        await self.supervisor.stop()
        await asyncio.get_running_loop().shutdown_default_executor()


async def _together(*work: Coroutine[Any, Any, None]) -> None:
    """Both, or the first reason why not (bare, not as a group)."""
    try:
        async with asyncio.TaskGroup() as group:
            for each in work:
                group.create_task(each)
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None


def _data_directory(path: Path) -> Path:
    """Made if missing, unseen by git; others may pass through (Postgres's user) but not look, if we are root."""
    try:
        if not path.exists():
            path.mkdir(parents=True)
            path.chmod(0o711 if os.geteuid() == 0 else 0o700)
            (path / ".gitignore").write_text("*\n")
    except OSError as error:
        what = f"{path} cannot be made: {error.strerror}."
        raise CannotStart(what, fix="Choose another one with --data DIR.") from error
    if not path.is_dir() or not os.access(path, os.W_OK | os.X_OK):
        raise CannotStart(f"{path} is not a directory we may write to.", fix="Choose another one with --data DIR.")
    return path.resolve()


async def warn_without_redis(url: str, *, say: Say) -> None:
    """Redis is a doorbell: without it everything still happens, about a second later."""
    problem = await asyncio.to_thread(_ask_redis, url)
    if problem is not None:
        say(
            "surefoot",
            f"Redis at SUREFOOT_REDIS_URL does not answer ({problem}); starting all the same: "
            "work is found by the sweep every second until it does",
        )


def _ask_redis(url: str) -> str | None:
    import redis  # only where somebody has named a server

    try:
        with redis.Redis.from_url(url, socket_connect_timeout=2, socket_timeout=2) as client:
            client.ping()
    except (redis.RedisError, ValueError) as error:
        return str(error)
    return None
