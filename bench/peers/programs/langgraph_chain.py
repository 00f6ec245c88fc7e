"""The chain on LangGraph: a graph of ten nodes with the Postgres checkpointer. Runs in LangGraph's own environment.

    langgraph_chain.py client <configuration>    runs the graphs it is told to, in its own event loop

There is no queue and there are no workers: who calls runs. So each process is client and worker at once, and the
bench gives every second graph to the other one. `durability="sync"`: the checkpoint of a step is committed before the
next step begins.

Configuration: url (Postgres), ledger, savers (checkpointers in this process). A checkpointer takes a lock around
every statement, also over a pool of connections; several of them, each with its connection, are what lets one process
have several commits under way.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any, TypedDict

import talk
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import END, START, StateGraph
from ledger import Ledger
from psycopg import AsyncConnection
from psycopg.rows import dict_row

STEPS = 10

SETTINGS = talk.configuration()
LEDGER = Ledger(SETTINGS["ledger"])


class State(TypedDict):
    number: int


async def node(state: State) -> State:
    return {"number": LEDGER.step(state["number"])}


def graph(saver: AsyncPostgresSaver) -> Any:
    builder = StateGraph(State)
    names = [f"s{n}" for n in range(1, STEPS + 1)]
    for name in names:
        builder.add_node(name, node)
    for before, after in zip([START, *names], [*names, END], strict=True):
        builder.add_edge(before, after)
    return builder.compile(checkpointer=saver)


class Runner:
    def __init__(self, graphs: list[Any]) -> None:
        self._graphs = graphs
        self._running: set[asyncio.Task[Any]] = set()
        self._ended = 0

    def submit(self, first: int, count: int) -> None:
        for number in range(first, first + count):
            task = asyncio.create_task(self.run(number))
            self._running.add(task)
            task.add_done_callback(self._done)

    async def run(self, number: int) -> None:
        chosen = self._graphs[number // 2 % len(self._graphs)]
        config = {"configurable": {"thread_id": f"w{number}"}}
        given = await chosen.ainvoke({"number": 0}, config, durability="sync")
        if given["number"] != STEPS:
            raise RuntimeError(f"graph {number} gave {given}")
        self._ended += 1

    async def single(self, number: int) -> float:
        began = time.monotonic()
        await self.run(number)
        return (time.monotonic() - began) * 1000

    async def check(self) -> talk.Told:
        """What this process ran, and that the last checkpoint of everybody's threads has all ten steps."""
        await asyncio.gather(*self._running)
        async with await AsyncConnection.connect(SETTINGS["url"]) as connection:
            found = await connection.execute(
                """SELECT count(*) FROM (SELECT thread_id, max((metadata->>'step')::int) AS last, count(*) AS kept
                   FROM checkpoints GROUP BY 1) t WHERE last <> %s OR kept <> %s""",
                # From step -1 (the input) over 0 (START) to 10.
                [STEPS, STEPS + 2],
            )
            row = await found.fetchone()
        wrong = row[0] if row is not None else 0
        return {"ended": self._ended, "faults": [f"threads without all checkpoints: {wrong}"] if wrong else []}

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if (error := task.exception()) is not None:
            talk.fail(error)


async def serve() -> None:
    async with AsyncExitStack() as stack:
        graphs = []
        for _ in range(SETTINGS["savers"]):
            connection = await AsyncConnection.connect(
                SETTINGS["url"], autocommit=True, prepare_threshold=0, row_factory=dict_row
            )
            saver = AsyncPostgresSaver(await stack.enter_async_context(connection))
            if SETTINGS["setup"] and not graphs:
                await saver.setup()
            graphs.append(graph(saver))
        runner = Runner(graphs)
        talk.ready(["langgraph", "langgraph-checkpoint-postgres", "psycopg"])
        async for order in talk.orders_async():
            if order["do"] == "submit":
                runner.submit(order["first"], order["count"])
            elif order["do"] == "single":
                talk.say({"ms": await runner.single(order["number"])})
            else:
                talk.say(await runner.check())


if __name__ == "__main__":
    try:
        asyncio.run(serve())
    except Exception as error:
        talk.fail(error)
