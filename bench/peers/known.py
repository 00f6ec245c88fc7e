"""The peers: what each is started with, what it promises, how many workflows are tried in flight.

Two processes execute steps in all of them. Settings that differ from a peer's defaults are named in `settings`, which
is printed with the numbers; the reasons are in the package's docstring.
"""

from __future__ import annotations

import http.client
import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.peers import environments
from bench.peers.children import Child
from bench.peers.environments import CannotRun
from bench.peers.room import START_WITHIN, Room, free_ports

WORKERS: Final = 2
SUBMITTERS: Final = 4
"""Threads of a client that submits: as many as the clients of our own load."""

DBOS_TUNED: Final[Mapping[str, Any]] = {
    "pool": 40,
    "queue": {"worker_concurrency": 40, "polling_interval_sec": 0.02},
    "result_polling": 0.005,
}
DBOS_DEFAULT: Final[Mapping[str, Any]] = {"pool": None, "queue": {}, "result_polling": None}

CELERY_TUNED: Final[Mapping[str, Any]] = {
    "worker": ["--concurrency", str(WORKERS), "--without-gossip", "--without-mingle", "--without-heartbeat"],
    "celery": {"worker_prefetch_multiplier": 64, "task_track_started": False, "worker_send_task_events": False},
}
CELERY_STOCK: Final[Mapping[str, Any]] = {"worker": ["--concurrency", str(WORKERS)], "celery": {}}

SAVERS: Final = 8
"""Checkpointers per LangGraph process; measured with 1, 4, 8 and 16."""

TEMPORAL_SLOTS: Final = {
    "max_concurrent_workflow_tasks": 200,
    "max_concurrent_activities": 400,
    "max_cached_workflows": 2000,
}
TEMPORAL_TUNED: Final[Mapping[str, Any]] = {"worker": TEMPORAL_SLOTS, "autoscaling": True, "sandbox": False}
TEMPORAL_DEFAULT: Final[Mapping[str, Any]] = {"worker": {}, "autoscaling": False, "sandbox": True}
TEMPORAL_STARTERS: Final = 16
RESTATE_SENDERS: Final = 64

Clients = Sequence[Child]


@dataclass(frozen=True, kw_only=True, slots=True)
class Peer:
    name: str
    title: str
    start: Callable[[Room], Clients]
    """Starts everything in the room; who takes the orders."""
    levels: tuple[int, ...]
    """Workflows in flight that are tried; the best is measured."""
    settings: str
    promises: str


def _dbos(room: Room, settings: Mapping[str, Any]) -> Clients:
    configuration = {"url": room.start_postgres(), "threads": SUBMITTERS, **settings}
    workers = []
    for n in range(1, WORKERS + 1):
        workers.append(room.program("dbos", "worker", configuration, name=f"worker{n}"))
        if n == 1:
            room.heard(workers)  # it makes the tables; the second would wait for its lock
    client = room.program("dbos", "client", configuration, name="client")
    room.heard([*workers[1:], client])
    return [client]


def _celery(room: Room, settings: Mapping[str, Any]) -> Clients:
    socket = room.start_valkey().socket
    configuration = {
        "broker": f"redis+socket://{socket}?virtual_host=0",
        "backend": f"redis+socket://{socket}?virtual_host=1",
        "socket": str(socket),
        "database": 1,
        "threads": SUBMITTERS,
        **settings,
    }
    worker = room.program("celery", "worker", configuration, name="worker")
    client = room.program("celery", "client", configuration, name="client")
    room.heard([worker, client])
    return [client]


def _langgraph(room: Room) -> Clients:
    url = room.start_postgres()
    runners: list[Child] = []
    for n in range(1, WORKERS + 1):
        configuration = {"url": url, "savers": SAVERS, "setup": n == 1}
        runners.append(room.program("langgraph", "client", configuration, name=f"runner{n}"))
        room.heard(runners[-1:])
    return runners


def _temporal(room: Room, settings: Mapping[str, Any], *, limits: Sequence[str]) -> Clients:
    binary = environments.python("temporal").with_name("temporal")
    port, http_port, metrics_port = free_ports(3)
    server = room.server(
        "server",
        (
            *(str(binary), "server", "start-dev", "--headless", "--ip", "127.0.0.1", "--port", str(port)),
            *("--http-port", str(http_port), "--metrics-port", str(metrics_port), "--log-level", "error"),
            *(part for limit in limits for part in ("--dynamic-config-value", f"{limit}=1000000")),
        ),
    )
    room.wait_for(server, lambda: _accepts(binary, port))
    room.versions |= {"temporal": _said_by((str(binary), "--version"))}
    configuration = {"address": f"127.0.0.1:{port}", "starters": TEMPORAL_STARTERS, **settings}
    workers = [room.program("temporal", "worker", configuration, name=f"worker{n}") for n in range(1, WORKERS + 1)]
    client = room.program("temporal", "client", configuration, name="client")
    room.heard([*workers, client])
    return [client]


TEMPORAL_LIMITS: Final = (
    "frontend.rps",
    "frontend.namespaceRPS",
    "frontend.namespaceCount",
    "history.rps",
    "matching.rps",
    "history.persistenceMaxQPS",
    "matching.persistenceMaxQPS",
    "frontend.persistenceMaxQPS",
    "history.transferProcessorMaxPollRPS",
    "history.transferProcessorMaxPollHostRPS",
    "history.timerProcessorMaxPollRPS",
    "history.visibilityProcessorMaxPollRPS",
)
"""Rates the dev server keeps to: they protect a shared cluster, here they would measure themselves. With its 20 polls
a second of the transfer queue each step of a lonely workflow waits 40 ms for the next poll."""


def _restate(room: Room) -> Clients:
    services = [f"Chain{n}" for n in range(1, WORKERS + 1)]
    fabric, ingress, admin = free_ports(3)
    binary = environments.restate_server()
    server = room.server(
        "server",
        (str(binary), "--no-logo"),
        RESTATE_BASE_DIR=str(room.home / "restate"),
        RESTATE_DISABLE_TELEMETRY="true",
        RESTATE_LISTEN_MODE="tcp",
        RESTATE_BIND_IP="127.0.0.1",
        RESTATE_BIND_PORT=str(fabric),
        RESTATE_INGRESS__BIND_PORT=str(ingress),
        RESTATE_ADMIN__BIND_PORT=str(admin),
        RESTATE_LOG_FILTER="warn",
    )
    room.versions |= {"restate-server": _said_by((str(binary), "--version"))}
    workers = [room.program("restate", "worker", {}, name=name) for name in services]
    ports = [said["port"] for said in room.heard(workers)]
    room.wait_for(server, lambda: _get(admin, "/health") == 200)
    for port in ports:
        _register(admin, f"http://127.0.0.1:{port}")
    configuration = {
        "services": services,
        "ingress": f"http://127.0.0.1:{ingress}",
        "admin": f"http://127.0.0.1:{admin}",
        "senders": RESTATE_SENDERS,
    }
    client = room.program("restate", "client", configuration, name="client")
    room.heard([client])
    return [client]


def _register(admin: int, uri: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", admin, timeout=START_WITHIN)
    try:
        connection.request("POST", "/deployments", json.dumps({"uri": uri}), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        said = answer.read().decode(errors="replace")
    finally:
        connection.close()
    if answer.status not in (200, 201):
        raise CannotRun(f"its server refused the deployment {uri}: {answer.status} {said}")


def _get(port: int, path: str) -> int | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()


def _accepts(binary: Path, port: int) -> bool:
    asked = [str(binary), "operator", "cluster", "health", "--address", f"127.0.0.1:{port}"]
    return subprocess.run(asked, check=False, capture_output=True, timeout=START_WITHIN).returncode == 0


def _said_by(argv: Sequence[str]) -> str:
    told = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=START_WITHIN)
    return told.stdout.strip().rpartition(" version ")[2].removeprefix("restate-server ")


PEERS: Final = (
    Peer(
        name="dbos",
        title="DBOS, queued, tuned",
        start=lambda room: _dbos(room, DBOS_TUNED),
        levels=(100, 200, 400),
        settings="2 workers; sys_db_pool_size 40, worker_concurrency 40, queue polled each 20 ms, result each 5 ms",
        promises="steps at least once, each committed to Postgres (fsync) before the next; recovery on restart",
    ),
    Peer(
        name="dbos-default",
        title="DBOS, queued, default",
        start=lambda room: _dbos(room, DBOS_DEFAULT),
        levels=(100, 400, 800),
        settings="2 workers, everything default (queue and result polled each second, no worker_concurrency)",
        promises="as above",
    ),
    Peer(
        name="celery",
        title="Celery chain, stock",
        start=lambda room: _celery(room, CELERY_STOCK),
        levels=(100, 200, 400),
        settings="1 worker with 2 prefork processes, stock; broker and result backend Redis, in memory",
        promises="messages acknowledged before execution (a killed process loses its task); nothing fsynced",
    ),
    Peer(
        name="celery-tuned",
        title="Celery chain, tuned",
        start=lambda room: _celery(room, CELERY_TUNED),
        levels=(100, 200, 400),
        settings="as above; worker_prefetch_multiplier 64, no gossip, mingle, heartbeat",
        promises="as above",
    ),
    Peer(
        name="langgraph",
        title="LangGraph, Postgres checkpointer",
        start=_langgraph,
        levels=(32, 128, 400),
        settings=f'2 processes; durability="sync", {SAVERS} AsyncPostgresSaver per process, a connection each',
        promises="in process: no queue, no workers, no recovery by itself; a checkpoint per step, fsynced",
    ),
    Peer(
        name="restate",
        title="Restate",
        start=_restate,
        levels=(100, 200, 400),
        settings="1 server, default (24 partitions, log fsynced); 2 endpoints on Hypercorn, set as its docs advise",
        promises="steps at least once, journalled before the next; its own log and store, no Postgres",
    ),
    Peer(
        name="temporal",
        title="Temporal dev server, tuned",
        start=lambda room: _temporal(room, TEMPORAL_TUNED, limits=TEMPORAL_LIMITS),
        levels=(20, 50, 100, 200),
        settings="in memory, rate limits off; 2 workers, autoscaling pollers, no sandbox, ordinary activities",
        promises="activities at least once; in memory: a restart of this server loses everything",
    ),
    Peer(
        name="temporal-default",
        title="Temporal dev server, default",
        start=lambda room: _temporal(room, TEMPORAL_DEFAULT, limits=()),
        levels=(20, 50, 100, 200),
        settings="in memory; 2 workers, everything default, ordinary activities",
        promises="as above",
    ),
)


def named(name: str) -> Peer:
    for peer in PEERS:
        if peer.name == name:
            return peer
    raise KeyError(name)
