"""The chain on Temporal: a workflow of ten activities. Runs in the environment of Temporal's SDK.

    temporal_chain.py worker <configuration>    one worker process: workflows and activities
    temporal_chain.py client <configuration>    starts workflows; waits for singles on their result

Configuration: address (of the dev server), ledger, starters (requests under way at once), worker (arguments of
`Worker`: numbers only), autoscaling (of its pollers), sandbox (of its workflows). Activities are ordinary ones: a
local activity is recorded with the workflow task it ran in, so ten of them would become durable once, not ten times.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from datetime import timedelta
from typing import Any

import talk
from ledger import Ledger
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import PollerBehaviorAutoscaling, UnsandboxedWorkflowRunner, Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

STEPS = 10
QUEUE = "bench"
STEP_WITHIN = timedelta(seconds=60)

OURS = SandboxRestrictions.default.with_passthrough_modules("ledger", "talk")
"""Modules the sandbox need not load anew for every workflow; the SDK's documentation advises it."""

SETTINGS = talk.configuration()
LEDGER = Ledger(SETTINGS["ledger"])


@activity.defn
async def step(number: int) -> int:
    return LEDGER.step(number)


@workflow.defn
class Chain:
    @workflow.run
    async def run(self) -> int:
        number = 0
        for _ in range(STEPS):
            number = await workflow.execute_activity(step, number, start_to_close_timeout=STEP_WITHIN)
        return number


async def work() -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.run_in_executor(None, sys.stdin.read).add_done_callback(lambda _: stop.set())
    polling: dict[str, Any] = {}
    if SETTINGS["autoscaling"]:
        polling["workflow_task_poller_behavior"] = PollerBehaviorAutoscaling()
        polling["activity_task_poller_behavior"] = PollerBehaviorAutoscaling()
    async with Worker(
        await Client.connect(SETTINGS["address"]),
        task_queue=QUEUE,
        workflows=[Chain],
        activities=[step],
        workflow_runner=SandboxedWorkflowRunner(restrictions=OURS)
        if SETTINGS["sandbox"]
        else UnsandboxedWorkflowRunner(),
        **polling,
        **SETTINGS["worker"],
    ):
        talk.ready(["temporalio"])
        await stop.wait()


class Starter:
    def __init__(self, client: Client) -> None:
        self._client = client
        self._free = asyncio.Semaphore(SETTINGS["starters"])
        self._starting: set[asyncio.Task[Any]] = set()

    def submit(self, first: int, count: int) -> None:
        for number in range(first, first + count):
            task = asyncio.create_task(self.start(number))
            self._starting.add(task)
            task.add_done_callback(self._done)

    async def start(self, number: int) -> Any:
        async with self._free:
            return await self._client.start_workflow(Chain.run, id=f"w{number}", task_queue=QUEUE)

    async def single(self, number: int) -> float:
        began = time.monotonic()
        given = await self._client.execute_workflow(Chain.run, id=f"w{number}", task_queue=QUEUE)
        took = time.monotonic() - began
        if given != STEPS:
            raise RuntimeError(f"workflow {number} gave {given}")
        return took * 1000

    async def check(self) -> talk.Told:
        """By the server's own index: so many workflows completed, none ended otherwise."""
        await asyncio.gather(*self._starting)
        ended = (await self._client.count_workflows("ExecutionStatus = 'Completed'")).count
        other = (await self._client.count_workflows("ExecutionStatus != 'Completed'")).count
        return {"ended": ended, "faults": [f"workflows not completed: {other}"] if other else []}

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._starting.discard(task)
        if (error := task.exception()) is not None:
            talk.fail(error)


async def serve() -> None:
    starter = Starter(await Client.connect(SETTINGS["address"]))
    talk.ready(["temporalio"])
    async for order in talk.orders_async():
        if order["do"] == "submit":
            starter.submit(order["first"], order["count"])
        elif order["do"] == "single":
            talk.say({"ms": await starter.single(order["number"])})
        else:
            talk.say(await starter.check())


if __name__ == "__main__":
    try:
        asyncio.run({"worker": work, "client": serve}[talk.role()]())
    except Exception as error:
        talk.fail(error)
