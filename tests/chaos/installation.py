"""One Surefoot for a chaos run: its own Postgres, Valkey, proxy, receiver, and `surefoot up` between them.

    chaos process ── proxy ──┬── Postgres      stopped, started again by us: they are ours and not the supervisor's
         │                   └── Valkey
         ├── receiver (webhooks, fsynced ledger)
         └── surefoot up ── API, workers, scripted model, demo tools (fsynced ledger): killed by us, restarted by it

Workers, API and supervisor reach Postgres and Redis only through the proxy; the oracle reaches Postgres directly.
Signals go only to processes that this run has started. `folder` keeps logs and ledgers, the data are gone at the end.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from app.embedded import listening, process
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.valkey import EmbeddedValkey
from tests.chaos.waiting import until

REPOSITORY: Final = Path(__file__).parents[2]
CANARY: Final = "canary-7f3a9c51d2e84b60"
"""A secret every tool is sent and nobody may keep."""

KNOBS: Final = {
    "SUREFOOT_LEASE": "4",
    "SUREFOOT_HEARTBEAT": "0.6",
    "SUREFOOT_SWEEP": "0.4",
    "SUREFOOT_FENCE_MARGIN": "0.8",
    "SUREFOOT_DELIVERY_TIMEOUT": "5",
    # Shorter than the patience of the watch for what is stuck: a model that fails as told may be shut for minutes.
    "SUREFOOT_BREAKER_OPEN_LONGEST": "30",
    "SUREFOOT_LOG_JSON": "true",
    # A call may lose many workers in a row here; held as poisoned it would wait for a person for no fault of its own.
    "SUREFOOT_POISON_AFTER": "100",
    "SUREFOOT_SECRETS": json.dumps({"canary": CANARY}),
}
"""Short leases, so that losing one is seen within seconds."""

START_WITHIN: Final = 120.0
STOP_WITHIN: Final = 60.0


class Installation:
    def __init__(self, folder: Path, *, seed: int, workers: int) -> None:
        self.folder = folder
        self._seed, self._workers = seed, workers
        self._home = Path(tempfile.mkdtemp(prefix="surefoot-chaos-data-"))
        self._home.chmod(0o711 if os.geteuid() == 0 else 0o700)
        self.postgres = EmbeddedPostgres(self._home / "postgres")
        self.valkey = EmbeddedValkey(self._home / "redis")
        self._servers: dict[str, subprocess.Popen[bytes]] = {}
        self._up: subprocess.Popen[bytes] | None = None
        self.log = folder / "up.log"

    # --- life ---

    async def start(self) -> None:
        await asyncio.gather(self.start_server("postgres"), self.start_server("redis"))
        self.database_url = await asyncio.to_thread(self.postgres.ensure_database, "surefoot")
        await asyncio.gather(self._start_proxy(), self._start_receiver())
        ports = self._ports
        environment = {
            "SUREFOOT_DATABASE_URL": f"postgresql://postgres@127.0.0.1:{ports['postgres']}/surefoot",
            "SUREFOOT_REDIS_URL": f"redis://127.0.0.1:{ports['redis']}/0",
        }
        arguments = ("--ephemeral", "--port", "0", "--workers", str(self._workers))
        self._up = self._spawn(
            "up",
            ("-m", "app.cli.main", "up", *arguments, "--ready-file", str(self.folder / "ready.json")),
            {**KNOBS, **environment},
        )
        await until("everything is up", self._is_up, seconds=START_WITHIN)

    async def stop(self) -> None:
        """Everything of ours ends, the data go; logs and ledgers stay in the folder."""
        if self._up is not None:
            self._save_tool_ledger()
            await self._end(self._up)
        for name in ("receiver", "proxy", "redis", "postgres"):
            if (child := self._servers.get(name)) is not None:
                how = signal.SIGINT if name == "postgres" else signal.SIGTERM
                await self._end(child, how=how, seconds=15.0)
        self.postgres.remove()
        self.valkey.remove()
        shutil.rmtree(self._home, ignore_errors=True)

    async def _end(
        self, child: subprocess.Popen[bytes], *, how: signal.Signals = signal.SIGTERM, seconds: float = STOP_WITHIN
    ) -> None:
        for each in (how, signal.SIGTERM, signal.SIGKILL):
            if child.poll() is None:
                child.send_signal(each)
                await asyncio.to_thread(process.wait_for_end, child.pid, seconds=seconds, child=child)

    # --- its servers: ours to stop and to start ---

    async def start_server(self, name: str) -> None:
        """Return when it answers. The child is spawned here, in the main thread, which is who it must not outlive."""
        server = self.postgres if name == "postgres" else self.valkey
        await asyncio.to_thread(server.prepare)
        self._servers[name] = process.spawn(server.command)
        await asyncio.to_thread(server.wait_ready)

    async def end_server(self, name: str, how: signal.Signals) -> int:
        """Send it that signal and return its pid when it is gone."""
        child = self._servers[name]
        child.send_signal(how)
        await asyncio.to_thread(process.wait_for_end, child.pid, seconds=20.0, child=child)
        return child.pid

    def server_pid(self, name: str) -> int:
        return self._servers[name].pid

    async def cut(self, name: str, *, how: str, seconds: float) -> None:
        """Cut the wire to `postgres` or `redis`; returns when it is whole again."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._ports["control"])
        writer.write(json.dumps({"cut": name, "how": how, "seconds": seconds}).encode() + b"\n")
        await writer.drain()
        await reader.readline()
        writer.close()

    async def _start_proxy(self) -> None:
        targets = {"postgres": self.postgres.sockets / ".s.PGSQL.5432", "redis": self.valkey.socket}
        to = [part for name, target in targets.items() for part in ("--to", f"{name}={target}")]
        file = self.folder / "ports.json"
        self._servers["proxy"] = self._spawn("proxy", ("-m", "tests.chaos.proxy", *to, "--ports", str(file)), {})
        await until("the proxy listens", file.exists)
        self._ports: Mapping[str, int] = json.loads(file.read_text())

    async def _start_receiver(self) -> None:
        file = self.folder / "receiver.port"
        told = ("--ledger", str(self.receipts), "--seed", str(self._seed), "--port-file", str(file))
        self._servers["receiver"] = self._spawn("receiver", ("-m", "tests.chaos.receiver", *told), {})
        await until("the receiver listens", lambda: listening.read_port(file))
        self.hooks = f"http://127.0.0.1:{listening.read_port(file)}/hooks"

    def _spawn(self, name: str, arguments: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("SUREFOOT_", "ANTHROPIC_"))}
        return process.spawn(
            process.Command(
                argv=(sys.executable, *arguments),
                env={**inherited, **environment},
                cwd=REPOSITORY,
                log=self.folder / f"{name}.log",
            )
        )

    def _is_up(self) -> bool:
        assert self._up is not None
        assert self._up.poll() is None, self.log.read_text()[-3000:]
        return (self.folder / "ready.json").exists()

    # --- what one may know of it ---

    @property
    def alive(self) -> bool:
        return self._up is not None and self._up.poll() is None

    @property
    def ready(self) -> dict[str, Any]:
        """As it is now: pids change when a child was restarted."""
        found: dict[str, Any] = json.loads((self.folder / "ready.json").read_text())
        return found

    @property
    def pids(self) -> dict[str, int]:
        """The children of the supervisor that run now, by name."""
        return {name: pid for name, pid in self.ready["pids"].items() if pid is not None and name != "supervisor"}

    @property
    def redis_url(self) -> str:
        """Not through the proxy."""
        return self.valkey.url

    @property
    def receipts(self) -> Path:
        return self.folder / "receipts.jsonl"

    @property
    def tool_ledger(self) -> Path:
        """Where the tools write it; a copy in the folder once everything was stopped."""
        kept = self.folder / "tools.jsonl"
        return kept if kept.exists() else Path(self.ready["data"]) / "tools.jsonl"

    def _save_tool_ledger(self) -> None:
        if (self.folder / "ready.json").exists():
            ledger = self.tool_ledger
            if ledger.exists():
                shutil.copyfile(ledger, self.folder / "tools.jsonl")
