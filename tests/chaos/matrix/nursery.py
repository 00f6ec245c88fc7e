"""The nursery: one process that has imported everything, and forks the product's own programs from then on.

A worker takes a second of CPU to import; forked it takes milliseconds, so that each boundary can have a process of its
own to die. The driver speaks to it over a Unix socket, a line of JSON with the child's sockets attached:

    {"start": "worker" | "api", "name", "environment", "order", "log"} + its channel (+ the listener)   →  {"pid"}
    {"wait": pid}   waits for that child, as a parent must   →  {"status"}

Children run `worker/process.py` and `app/cli/serve_api.py` as they are, with `points.py` installed. The nursery has
one thread and opens nothing before it forks. A child dies with it, and it with the driver.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

import uuid_utils

from app import logs
from app.cli import serve_api
from app.engine.sweep import Swept
from app.ports import model, prices
from app.settings import Settings
from tests.chaos.matrix import points
from tests.chaos.matrix.standstill import Channel, Order, Standstill
from worker import main as worker_main
from worker.process import Work, run_worker

_PR_SET_PDEATHSIG = 1
_prctl: Any = ctypes.CDLL(None, use_errno=True).prctl
MESSAGE = 64 * 1024
"""Bytes of one order: an environment of some 2 KB."""


def main() -> None:
    line = socket.socket(fileno=int(sys.argv[1]))
    model._import()
    prices.warm()
    gc.collect()
    gc.freeze()  # what is forked is not copied by the collector's marks
    assert threading.active_count() == 1, "a fork with threads is no copy of anything"
    while True:
        told, files, _, _ = socket.recv_fds(line, MESSAGE, 4)
        if not told:
            return
        asked = json.loads(told)
        if "wait" in asked:
            _, status = os.waitpid(asked["wait"], 0)
            line.sendall(json.dumps({"status": status}).encode())
            continue
        pid = os.fork()
        if pid == 0:
            line.close()
            _live(asked, files)
        for file in files:
            os.close(file)
        line.sendall(json.dumps({"pid": pid}).encode())


def _live(asked: dict[str, Any], files: list[int]) -> None:
    """The whole life of a child."""
    code = 1
    try:
        _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        os.setsid()
        log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.clear()
        os.environ.update(asked["environment"])
        uuid_utils.reseed_rng()
        code = (_worker if asked["start"] == "worker" else _api)(asked, files)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(code)


def _standstill(asked: dict[str, Any], channel: Channel) -> None:
    order = None if asked["order"] is None else Order.from_json(asked["order"])
    points.install(Standstill(channel, order))


def _worker(asked: dict[str, Any], files: list[int]) -> int:
    channel = Channel(socket.socket(fileno=files[0]))
    _standstill(asked, channel)
    settings, name = Settings(), asked["name"]
    logs.configure(level=settings.log_level, as_json=settings.log_json)
    gate = Gate(channel, is_open=asked["order"] is not None)
    return run_worker(settings, name=name, build=partial(_build, settings, name, gate))


def _build(settings: Settings, name: str, gate: Gate) -> Work:
    work = worker_main._build(settings, name)
    return replace(work, sweep=gate.around(work.sweep))


def _api(asked: dict[str, Any], files: list[int]) -> int:
    _standstill(asked, Channel(socket.socket(fileno=files[0])))
    return serve_api.run_api(Settings(), fd=files[1])


class Gate:
    """Before a worker's sweep. One without an order stays out of the way until the driver opens it."""

    def __init__(self, channel: Channel, *, is_open: bool) -> None:
        self._channel = channel
        self._open = is_open
        self._idle = threading.Event()
        self._idle.set()
        self._begun = False
        if not is_open:
            threading.Thread(target=self._listen, daemon=True).start()

    def around(self, sweep: Callable[..., Awaitable[Any]]) -> Any:
        async def gated(*, free_slots: int) -> Any:
            if not self._begun:
                self._begun = True
                self._channel.say(ready=True)
            self._idle.clear()
            try:
                return await sweep(free_slots=free_slots) if self._open else Swept()
            finally:
                self._idle.set()

        return gated

    def _listen(self) -> None:
        while True:
            try:
                self._open = bool(self._channel.hear()["gate"])
            except EOFError:
                return
            self._idle.wait()
            self._channel.say(gate=self._open)


if __name__ == "__main__":
    main()
