"""What the whole matrix stands on, started once: Postgres, Valkey, the model, a webhook receiver, the nursery.

    Stack      the servers; `restart_postgres` is the fault that hits every lane
    Nursery    forks workers and API processes (`nursery.py`), waits for them as their parent
    Process    one of them: pid, channel, log

Everything is on loopback or on Unix sockets, in a directory that is gone afterwards, and ends with the driver.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from app.embedded import homes, listening, parts, process
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.process import Command
from app.embedded.valkey import EmbeddedValkey
from app.store import migrating
from tests.chaos.matrix.standstill import Channel, Order
from tests.e2e.driver import REPOSITORY, Tools, until
from tests.e2e.receiver import Receiver

TEMPLATE: Final = "template_matrix"
STOP_WITHIN: Final = 10.0
MODEL_LATENCY: Final = "0"


@dataclass(frozen=True, kw_only=True)
class Process:
    name: str
    pid: int
    channel: Channel
    log: Path

    def signal(self, number: signal.Signals) -> None:
        process.send(self.pid, number)


class Nursery:
    def __init__(self, *, home: Path, environment: Mapping[str, str]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._line, self._home, self._turn = ours, home, threading.Lock()
        command = Command(
            argv=(sys.executable, "-m", "tests.chaos.matrix.nursery", str(theirs.fileno())),
            env=environment,
            cwd=REPOSITORY,
            log=home / "nursery.log",
            orphan_signal=signal.SIGKILL,
            pass_fds=(theirs.fileno(),),
        )
        self._child = process.spawn(command)
        theirs.close()

    def start(
        self,
        what: str,
        *,
        name: str,
        environment: Mapping[str, str],
        order: Order | None = None,
        listener: socket.socket | None = None,
    ) -> Process:
        """Fork a worker or an API."""
        ours, theirs = socket.socketpair()
        log = self._home / f"{name}.log"
        told = {
            "start": what,
            "name": name,
            "environment": dict(environment),
            "order": None if order is None else order.to_json(),
            "log": str(log),
        }
        files = [theirs.fileno()] + ([] if listener is None else [listener.fileno()])
        with theirs:
            pid = self._ask(told, files)["pid"]
        return Process(name=name, pid=pid, channel=Channel(ours), log=log)

    def reap(self, pid: int) -> None:
        """Wait for a child that has ended, or is about to."""
        self._ask({"wait": pid})

    def stop(self) -> None:
        self._line.close()
        try:
            self._child.wait(STOP_WITHIN)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    def _ask(self, told: dict[str, Any], files: list[int] | None = None) -> dict[str, Any]:
        with self._turn:
            socket.send_fds(self._line, [json.dumps(told).encode()], files or [])
            answer = self._line.recv(4096)
        if not answer:
            raise RuntimeError(f"the nursery has died:\n{(self._home / 'nursery.log').read_text()[-3000:]}")
        found: dict[str, Any] = json.loads(answer)
        return found


class Stack:
    def __init__(self, home: Path, parts_of_it: ExitStack) -> None:
        self.home, self._parts = home, parts_of_it
        self.environment = _environment()
        self.nursery = Nursery(home=home, environment=self.environment)
        parts_of_it.callback(self.nursery.stop)
        self.postgres = EmbeddedPostgres(home / "postgres")
        parts_of_it.callback(self.postgres.stop_immediate)
        self.postgres.start()
        self.valkey = EmbeddedValkey(home / "valkey")
        parts_of_it.callback(self.valkey.kill)
        self.valkey.start()
        self.model_url = self._serve(parts_of_it, "model", (*parts.MODEL, "--latency-ms", MODEL_LATENCY))
        self.receiver = parts_of_it.enter_context(Receiver())
        migrating.upgrade(self.postgres.ensure_database(TEMPLATE))

    def serve_tools(self, name: str) -> Tools:
        """Demo tools of one lane, with a ledger of their own."""
        ledger = self.home / f"tools.{name}.jsonl"
        return Tools(self._serve(self._parts, f"tools.{name}", (*parts.TOOLS, "--ledger", str(ledger))))

    def _serve(self, stack: ExitStack, name: str, argv: tuple[str, ...]) -> str:
        port_file = self.home / f"{name}.port"
        log = self.home / f"{name}.log"
        told = ("--port", "0", "--port-file", str(port_file))
        child = process.spawn(Command(argv=(*argv, *told), env=self.environment, cwd=REPOSITORY, log=log))
        stack.callback(_end, child)
        port = until(f"{name} listens", lambda: listening.read_port(port_file), seconds=60)
        return f"http://127.0.0.1:{port}"

    def restart_postgres(self) -> None:
        """The crash of the database's machine, in small, and its recovery."""
        self.postgres.restart(immediate=True)


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()


def _environment() -> dict[str, str]:
    """The caller's, without settings of theirs."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("SUREFOOT_", "ANTHROPIC_", "PG"))}


@contextmanager
def running() -> Iterator[Stack]:
    with ExitStack() as stack:
        home = stack.enter_context(homes.temporary_home())
        yield Stack(home, stack)
