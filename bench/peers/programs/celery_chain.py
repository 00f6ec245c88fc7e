"""The chain on Celery: a canvas chain of ten tasks, results in Redis. Runs in Celery's own environment.

    celery_chain.py worker <configuration>    `celery worker`: a parent and its prefork children
    celery_chain.py client <configuration>    sends chains from threads; waits for singles on their result

Configuration: broker, backend (URLs), ledger, threads, worker (further words of the command line), celery (settings
that differ from the stock ones).
"""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import redis
import talk
from celery import Celery
from celery import chain as chain_of
from celery.result import AsyncResult
from celery.signals import worker_ready
from ledger import Ledger

STEPS = 10
RESULT_WITHIN = 30.0
"""Seconds a single may take: long enough to be a failure and not a number."""
CHUNK = 1000
"""Results read at once in the check."""

SETTINGS = talk.configuration()
LEDGER = Ledger(SETTINGS["ledger"])

app = Celery("bench", broker=SETTINGS["broker"], backend=SETTINGS["backend"])
app.conf.update(SETTINGS["celery"])


@app.task(name="step")
def step(number: int) -> int:
    return LEDGER.step(number)


def work() -> None:
    worker_ready.connect(_say_ready)
    threading.Thread(target=_leave_with_the_bench, daemon=True).start()
    app.worker_main(["worker", "--loglevel", "WARNING", *SETTINGS["worker"]])


def _say_ready(**_: object) -> None:
    talk.ready(["celery", "kombu", "redis"])


def _leave_with_the_bench() -> None:
    """The end of stdin asks for a warm shutdown, as SIGTERM does.

    Read below `sys.stdin`: a child forked while its lock is held waits for ever when it closes it.
    """
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)


class Client:
    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(SETTINGS["threads"])
        self._lock = threading.Lock()
        self._last: list[str] = []
        """The id of every chain's last task."""

    def send(self) -> AsyncResult:
        result = chain_of(step.s(0), *(step.s() for _ in range(STEPS - 1))).apply_async()
        with self._lock:
            self._last.append(result.id)
        return result

    def submit(self, count: int) -> None:
        for _ in range(count):
            self._threads.submit(self.send).add_done_callback(_loud)

    def single(self) -> float:
        began = time.monotonic()
        given = self.send().get(timeout=RESULT_WITHIN)
        took = time.monotonic() - began
        if given != STEPS:
            raise RuntimeError(f"a chain gave {given}")
        return took * 1000

    def check(self) -> talk.Told:
        """By the result backend: every chain's last task succeeded with the number ten."""
        server = redis.Redis(unix_socket_path=SETTINGS["socket"], db=SETTINGS["database"])
        ended = 0
        for start in range(0, len(self._last), CHUNK):
            keys = [app.backend.get_key_for_task(task) for task in self._last[start : start + CHUNK]]
            metas = [app.backend.decode(value) for value in server.mget(keys) if value is not None]
            ended += sum(meta["status"] == "SUCCESS" and meta["result"] == STEPS for meta in metas)
        return {"ended": ended, "faults": []}


def serve() -> None:
    client = Client()
    talk.ready(["celery"])
    for order in talk.orders():
        if order["do"] == "submit":
            client.submit(order["count"])
        elif order["do"] == "single":
            talk.say({"ms": client.single()})
        else:
            talk.say(client.check())


def _loud(done: Future[Any]) -> None:
    if (error := done.exception()) is not None:
        talk.fail(error)


if __name__ == "__main__":
    try:
        {"worker": work, "client": serve}[talk.role()]()
    except Exception as error:
        talk.fail(error)
