"""How the bench and a peer's program talk: one JSON object a line, orders on stdin, answers on stdout, the rest a log.

    argv               <role> <configuration as JSON>
    program says       {"ready": {package: version, …}}, once
    the bench orders   {"do": "submit", "first": 7, "count": 3}    start workflows 7, 8, 9; no answer
                       {"do": "single", "number": 10}              → {"ms": 41.2}: submitted, waited for, result checked
                       {"do": "check"}                             → {"ended": 10, "faults": []}: the peer's own records
    the end of stdin   is the order to stop

What fails in a thread or a task is said as {"error": "…"} and ends the program: a load that silently stops growing
would look like a slow peer. A check is one look; the bench asks again while the last results are on their way. The
standard library only: it runs in every peer's environment.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import traceback
from collections.abc import AsyncIterator, Iterator, Sequence
from importlib.metadata import version
from typing import Any

Told = dict[str, Any]


def role() -> str:
    return sys.argv[1]


def configuration() -> Told:
    return dict(json.loads(sys.argv[2]))


def say(told: Told) -> None:
    """To the descriptor itself: a Celery worker takes `sys.stdout` for its log."""
    os.write(1, json.dumps(told).encode() + b"\n")


def ready(packages: Sequence[str]) -> None:
    say({"ready": {name: version(name) for name in packages}})


def orders() -> Iterator[Told]:
    for line in iter(sys.stdin.readline, ""):
        yield json.loads(line)


async def orders_async() -> AsyncIterator[Told]:
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        yield json.loads(line)


def fail(error: BaseException) -> None:
    """Say it and end at once, whichever thread this is."""
    traceback.print_exception(error)
    say({"error": f"{type(error).__name__}: {error}"})
    os._exit(1)
