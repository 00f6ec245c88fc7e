"""The chain on Restate: a handler of ten `ctx.run` steps. Runs in the environment of Restate's Python SDK.

    restate_chain.py worker <configuration>    one endpoint process, on Hypercorn (HTTP/2) as the SDK's readme says
    restate_chain.py client <configuration>    sends invocations to the server's ingress; waits for singles

Restate's server calls the endpoints; two processes behind one address would get what the connections happen to
give them, so each process has a service of its own (`Chain1`, `Chain2`) and the client alternates.

Configuration: ledger, name (of the service), services, ingress and admin (URLs), senders (requests at once).
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import time
from importlib.metadata import version
from typing import Any

import httpx
import hypercorn
import hypercorn.asyncio
import restate
import talk
from ledger import Ledger

STEPS = 10
ANSWER_WITHIN = 60.0
"""Seconds for one request to the server, a waited-for single included."""

UNLIMITED = 2147483647
"""What Restate's documentation sets in production: by default Hypercorn ends a connection after 1,000 requests."""

SETTINGS = talk.configuration()
LEDGER = Ledger(SETTINGS["ledger"])

BY_STATUS = "SELECT status, completion_result, count(*) AS n FROM sys_invocation GROUP BY status, completion_result"


async def step(number: int) -> int:
    return LEDGER.step(number)


async def run(ctx: restate.Context, number: int) -> int:
    for n in range(STEPS):
        number = await ctx.run_typed(f"s{n}", step, number=number)
    return number


async def work() -> None:
    service = restate.Service(SETTINGS["name"])
    service.handler()(run)
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    config = hypercorn.Config()
    config.bind = [f"fd://{listener.fileno()}"]
    config.accesslog = None
    config.h2_max_concurrent_streams = config.keep_alive_max_requests = config.keep_alive_timeout = UNLIMITED
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    asyncio.get_running_loop().run_in_executor(None, sys.stdin.read).add_done_callback(lambda _: stop.set())
    packages = ("restate-sdk", "hypercorn", "h2")
    talk.say({"ready": {name: version(name) for name in packages}, "port": listener.getsockname()[1]})
    await hypercorn.asyncio.serve(restate.app([service]), config, shutdown_trigger=stop.wait)


class Sender:
    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._sending: set[asyncio.Task[Any]] = set()

    def submit(self, first: int, count: int) -> None:
        for number in range(first, first + count):
            task = asyncio.create_task(self.send(number))
            self._sending.add(task)
            task.add_done_callback(self._done)

    async def send(self, number: int) -> None:
        answer = await self._client.post(f"{self._handler(number)}/send", json=0)
        answer.raise_for_status()

    async def single(self, number: int) -> float:
        began = time.monotonic()
        answer = await self._client.post(self._handler(number), json=0)
        took = time.monotonic() - began
        if answer.raise_for_status().json() != STEPS:
            raise RuntimeError(f"invocation {number} gave {answer.text}")
        return took * 1000

    async def check(self) -> talk.Told:
        """By the server's table of invocations, which it keeps for a day: so many completed with success."""
        await asyncio.gather(*self._sending)
        asked = await self._client.post(
            f"{SETTINGS['admin']}/query", json={"query": BY_STATUS}, headers={"accept": "application/json"}
        )
        rows = asked.raise_for_status().json()["rows"]
        well = [row for row in rows if (row["status"], row["completion_result"]) == ("completed", "success")]
        return {"ended": sum(row["n"] for row in well), "faults": [f"invocations {r}" for r in rows if r not in well]}

    def _handler(self, number: int) -> str:
        services = SETTINGS["services"]
        return f"{SETTINGS['ingress']}/{services[number % len(services)]}/run"

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._sending.discard(task)
        if (error := task.exception()) is not None:
            talk.fail(error)


async def serve() -> None:
    limits = httpx.Limits(max_connections=SETTINGS["senders"])
    async with httpx.AsyncClient(limits=limits, timeout=ANSWER_WITHIN) as client:
        sender = Sender(client)
        talk.ready(["restate-sdk"])
        async for order in talk.orders_async():
            if order["do"] == "submit":
                sender.submit(order["first"], order["count"])
            elif order["do"] == "single":
                talk.say({"ms": await sender.single(order["number"])})
            else:
                talk.say(await sender.check())


if __name__ == "__main__":
    try:
        asyncio.run({"worker": work, "client": serve}[talk.role()]())
    except Exception as error:
        talk.fail(error)
