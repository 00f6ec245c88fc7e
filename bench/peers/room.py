"""The room one peer is measured in: a directory, Postgres and Valkey of its own, the steps' ledger, its processes.

Postgres and Valkey are the ones the product runs on, with the same settings (fsync and synchronous_commit on), made
anew for each peer, so that nobody inherits anybody's tables. Everything ends and is removed when the room is left,
also after a failure or Ctrl-C.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from app.embedded import homes
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.valkey import EmbeddedValkey
from bench.peers import environments
from bench.peers.children import Child
from bench.peers.environments import CannotRun

PROGRAMS: Final = Path(__file__).parent / "programs"

START_WITHIN: Final = 90.0
"""Seconds any part of a peer has to become ready, on two cores that may be busy."""

_POLL: Final = 0.05

_POSTGRES: Final = {"shared_preload_libraries": "pg_stat_statements", "pg_stat_statements.track_utility": "on"}
"""As in `bench.stack`: what costs us something costs the peers the same."""


class Room:
    def __init__(self, *, home: Path, stack: ExitStack) -> None:
        self.home = home
        self.ledger = home / "ledger"
        self.ledger.mkdir()
        self.children: list[Child] = []
        self.versions: dict[str, str] = {}
        self.postgres: EmbeddedPostgres | None = None
        self.valkey: EmbeddedValkey | None = None
        self._stack = stack

    def start_postgres(self) -> str:
        """The URL of an empty database."""
        self.postgres = EmbeddedPostgres(self.home / "postgres", settings=_POSTGRES)
        self._stack.callback(self.postgres.stop)
        self.postgres.start()
        return self.postgres.ensure_database("peer")

    def start_valkey(self) -> EmbeddedValkey:
        self.valkey = EmbeddedValkey(self.home / "valkey")
        self._stack.callback(self.valkey.kill)
        self.valkey.start()
        return self.valkey

    def program(self, product: str, role: str, configuration: Mapping[str, Any], *, name: str) -> Child:
        """A role of the product's script, in the product's environment; `heard` tells when it is ready."""
        settings = json.dumps({"ledger": str(self.ledger), "name": name, **configuration})
        script = str(PROGRAMS / f"{product}_chain.py")
        return self.server(name, (str(environments.python(product)), script, role, settings))

    def server(self, name: str, argv: Sequence[str], **more: str) -> Child:
        log = self.home / f"{name}.log"
        child = Child(name=name, argv=argv, environment={**self._environment(), **more}, log=log)
        self.children.append(child)
        self._stack.callback(child.stop)
        return child

    def heard(self, children: Sequence[Child]) -> list[dict[str, Any]]:
        """Wait until each has said that it is ready; what they said."""
        told = [child.hear(seconds=START_WITHIN) for child in children]
        for said in told:
            self.versions |= said["ready"]
        return told

    def wait_for(self, child: Child, ready: Callable[[], bool]) -> None:
        until = time.monotonic() + START_WITHIN
        while not ready():
            if not child.alive() or time.monotonic() > until:
                raise CannotRun(child.last_words("did not start"))
            time.sleep(_POLL)

    def roots(self) -> list[int]:
        """The processes whose CPU time is the peer's, with all their descendants."""
        servers = [server.pid for server in (self.postgres, self.valkey) if server is not None]
        return [pid for pid in (*servers, *(child.pid for child in self.children)) if pid]

    def _environment(self) -> dict[str, str]:
        """Nothing of the caller's settings, and a home of its own for what it likes to write."""
        return {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": str(self.home),
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
        }


@contextmanager
def opened() -> Iterator[Room]:
    with ExitStack() as stack:
        home = stack.enter_context(homes.temporary_home())
        yield Room(home=home, stack=stack)


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody has now, for servers that must be told theirs."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(held.getsockname()[1]) for held in sockets]
