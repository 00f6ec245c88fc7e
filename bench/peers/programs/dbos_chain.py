"""The chain on DBOS: workers that poll a queue in Postgres, a client that enqueues. Runs in DBOS's own environment.

    dbos_chain.py worker <configuration>    one worker process
    dbos_chain.py client <configuration>    enqueues from threads, waits for singles by polling, checks by SQL

Configuration: url (Postgres), ledger, name (of this process), threads, queue (arguments of `register_queue`),
pool (sys_db_pool_size or null), result_polling (seconds between two looks at a single's result, or null: the default).
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import sqlalchemy as sa
import talk
from dbos import DBOS, DBOSClient, DBOSConfig
from ledger import Ledger

STEPS = 10
QUEUE = "bench"
VERSION = "1"

SETTINGS = talk.configuration()
LEDGER = Ledger(SETTINGS["ledger"])


@DBOS.step()
def step(number: int) -> int:
    return LEDGER.step(number)


@DBOS.workflow()
def chain() -> int:
    number = 0
    for _ in range(STEPS):
        number = step(number)
    return number


def work() -> None:
    config: DBOSConfig = {
        "name": "bench",
        "system_database_url": SETTINGS["url"],
        "application_version": VERSION,
        "executor_id": SETTINGS["name"],
        "log_level": "WARNING",
    }
    if SETTINGS["pool"] is not None:
        config["sys_db_pool_size"] = SETTINGS["pool"]
    DBOS(config=config)
    DBOS.launch()
    DBOS.register_queue(QUEUE, **SETTINGS["queue"])
    talk.ready(["dbos", "sqlalchemy", "psycopg"])
    sys.stdin.read()
    DBOS.destroy()


class Client:
    def __init__(self) -> None:
        self._dbos = DBOSClient(system_database_url=SETTINGS["url"])
        self._threads = ThreadPoolExecutor(SETTINGS["threads"])

    def enqueue(self, number: int) -> Any:
        return self._dbos.enqueue(
            {"queue_name": QUEUE, "workflow_name": "chain", "workflow_id": f"w{number}", "app_version": VERSION}
        )

    def submit(self, first: int, count: int) -> None:
        for number in range(first, first + count):
            self._threads.submit(self.enqueue, number).add_done_callback(_loud)

    def single(self, number: int) -> float:
        began = time.monotonic()
        handle = self.enqueue(number)
        polling = SETTINGS["result_polling"]
        result = handle.get_result() if polling is None else handle.get_result(polling_interval_sec=polling)
        took = time.monotonic() - began
        if result != STEPS:
            raise RuntimeError(f"workflow {number} gave {result}")
        return took * 1000

    def check(self) -> talk.Told:
        """By DBOS's tables: so many workflows succeeded, and each of them has its ten step results."""
        engine = sa.create_engine(SETTINGS["url"].replace("postgresql:", "postgresql+psycopg:", 1))
        with engine.connect() as connection:
            ended = connection.execute(
                sa.text("SELECT count(*) FROM dbos.workflow_status WHERE status = 'SUCCESS'")
            ).scalar_one()
            outputs = connection.execute(sa.text("SELECT count(*) FROM dbos.operation_outputs")).scalar_one()
        wanted = ended * STEPS
        return {"ended": ended, "faults": [] if outputs == wanted else [f"step results: {outputs}, expected {wanted}"]}


def serve() -> None:
    client = Client()
    talk.ready(["dbos"])
    for order in talk.orders():
        if order["do"] == "submit":
            client.submit(order["first"], order["count"])
        elif order["do"] == "single":
            talk.say({"ms": client.single(order["number"])})
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
